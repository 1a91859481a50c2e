//! The server's end against rustls' own client: over streams cut into pieces of every size, and record by record.

use std::io::{Read as _, Write as _};

use proptest::prelude::*;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex, split};
use tokio::join;
use tokio::runtime::Builder;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::tls::pair::{self, CONFIGS, NAME, accept, configs_with};

mod forged;
mod handshakes;
mod packets;
mod records;

/// Both ends over a pipe that holds `pipe` bytes a direction.
async fn connect(
    configs: &(Arc<ServerConfig>, Arc<ClientConfig>),
    pipe: usize,
) -> (TlsSocket<DuplexStream>, TlsStream<DuplexStream>) {
    let (near, far) = duplex(pipe);
    pair::connect(configs, near, far).await
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_time().build();
    // Nothing here waits for time; what is not done by then hangs.
    let test = async { tokio::time::timeout(std::time::Duration::from_secs(30), test).await };
    runtime.unwrap().block_on(test).unwrap()
}

/// Bytes that differ from place to place.
fn pattern(length: usize, seed: usize) -> Vec<u8> {
    let byte = |at: usize| at.wrapping_mul(31).wrapping_add(seed) % 251;
    let byte = |at| byte(at).to_le_bytes()[0];
    (0..length).map(byte).collect()
}

/// Writes `bytes` in pieces, and ends the direction.
async fn write(mut end: impl AsyncWrite + Unpin, bytes: &[u8], piece: usize) {
    for piece in bytes.chunks(piece) {
        end.write_all(piece).await.unwrap();
    }
    end.shutdown().await.unwrap();
}

/// Reads to the end, `room` bytes at most at a time.
async fn read(mut end: impl AsyncRead + Unpin, room: usize) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = vec![0; room];
    loop {
        match end.read(&mut buffer).await.unwrap() {
            0 => return all,
            read => all.extend_from_slice(&buffer[..read]),
        }
    }
}

proptest! {
    #![proptest_config(crate::pieces::cases(64))]

    #[test]
    fn both_directions_arrive_whole_whatever_the_pieces(
        version in 0..2_usize,
        pipe in prop_oneof![1..40_usize, 1000..200_000_usize],
        up in 0..60_000_usize,
        down in 0..60_000_usize,
        piece in 1..70_000_usize,
        room in prop_oneof![1..50_usize, 1000..70_000_usize],
    ) {
        run(async {
            let (server, client) = connect(&CONFIGS[version], pipe).await;
            // Through one byte at a time it would only take long.
            let (up, down) = if pipe < 40 || room < 50 { (up % 3000, down % 3000) } else { (up, down) };
            let (sent_up, sent_down) = (pattern(up, 1), pattern(down, 2));
            let (server_read, server_write) = split(server);
            let (client_read, client_write) = split(client);
            let ((), got_up, (), got_down) = join!(
                write(client_write, &sent_up, piece),
                read(server_read, room),
                write(server_write, &sent_down, piece),
                read(client_read, room),
            );
            assert!(got_up == sent_up);
            assert!(got_down == sent_down);
        });
    }
}

#[test]
fn nothing_is_kept_of_bytes_that_have_passed() {
    run(async {
        for configs in CONFIGS.iter() {
            let (mut server, mut client) = connect(configs, 200_000).await;
            let sent = pattern(100_000, 3);
            client.write_all(&sent).await.unwrap();
            client.flush().await.unwrap();
            let mut got = vec![0; sent.len()];
            server.read_exact(&mut got).await.unwrap();
            server.write_all(&got).await.unwrap();
            server.flush().await.unwrap();
            client.read_exact(&mut got).await.unwrap();
            assert!(got == sent);
            let Session {
                received,
                plain,
                sealed,
                ..
            } = &server.session;
            let kept = [
                received.capacity(),
                plain.bytes.capacity(),
                sealed.bytes.capacity(),
            ];
            assert_eq!(kept, [0; 3]);
        }
    });
}

#[test]
fn an_end_is_told_from_a_stream_that_was_cut() {
    run(async {
        for configs in CONFIGS.iter() {
            let (mut server, mut client) = connect(configs, 10_000).await;
            client.write_all(b"last").await.unwrap();
            client.shutdown().await.unwrap();
            let mut got = Vec::new();
            server.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, b"last");
            // The other direction goes on after it.
            server.write_all(b"answer").await.unwrap();
            server.shutdown().await.unwrap();
            got.clear();
            client.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, b"answer");

            let (mut server, mut client) = connect(configs, 10_000).await;
            client.write_all(b"last").await.unwrap();
            client.flush().await.unwrap();
            let (stream, _) = client.into_inner();
            drop(stream);
            got.clear();
            let error = server.read_to_end(&mut got).await.unwrap_err();
            assert_eq!(
                (error.kind(), &got[..]),
                (io::ErrorKind::UnexpectedEof, &b"last"[..])
            );
        }
    });
}

/// A client that is driven by hand, flight by flight.
struct Client {
    tls: ClientConnection,
    stream: DuplexStream,
}

impl Client {
    fn new(config: &Arc<ClientConfig>, stream: DuplexStream) -> Self {
        let name = ServerName::try_from(NAME).unwrap();
        let tls = ClientConnection::new(config.clone(), name).unwrap();
        Self { tls, stream }
    }

    /// All that it has to say now, at once.
    fn flight(&mut self) -> Vec<u8> {
        let mut flight = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut flight).unwrap();
        }
        flight
    }

    async fn send(&mut self) {
        let flight = self.flight();
        self.stream.write_all(&flight).await.unwrap();
    }

    async fn hear(&mut self) {
        let mut buffer = vec![0; 20_000];
        let read = self.stream.read(&mut buffer).await.unwrap();
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            self.tls.read_tls(&mut rest).unwrap();
        }
        self.tls.process_new_packets().unwrap();
    }

    /// The plain bytes that came, once there are any.
    async fn read(&mut self) -> Vec<u8> {
        let mut buffer = vec![0; 1000];
        loop {
            match self.tls.reader().read(&mut buffer) {
                Ok(read) => return buffer[..read].to_vec(),
                Err(_) => self.hear().await,
            }
        }
    }

    async fn handshake(&mut self, last: &[u8]) {
        self.send().await;
        while self.tls.is_handshaking() {
            self.hear().await;
            if !self.tls.is_handshaking() {
                self.tls.writer().write_all(last).unwrap();
            }
            self.send().await;
        }
    }
}

#[test]
fn data_that_comes_with_the_end_of_the_handshake_is_heard_and_answered() {
    run(async {
        // TLS 1.2 ends with the server's word, so that only 1.3 has this.
        let (server, client) = &CONFIGS[0];
        let (near, far) = duplex(200_000);
        let mut client = Client::new(client, far);
        let (server, ()) = join!(accept(near, server), client.handshake(b"at once"));
        let mut server = server.unwrap();
        let mut got = [0; 7];
        server.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"at once");
        server.write_all(b"heard").await.unwrap();
        assert_eq!(client.read().await, b"heard");
        // The session ticket came before it, or the client would have refused the record.
        assert!(client.tls.tls13_tickets_received() > 0);
    });
}

#[test]
fn keys_are_changed_when_the_client_asks() {
    run(async {
        let (server, client) = &CONFIGS[0];
        let (near, far) = duplex(200_000);
        let mut client = Client::new(client, far);
        let (server, ()) = join!(accept(near, server), client.handshake(b""));
        let mut server = server.unwrap();
        for round in 0..3 {
            client.tls.refresh_traffic_keys().unwrap();
            let text = format!("round {round}");
            client.tls.writer().write_all(text.as_bytes()).unwrap();
            client.send().await;
            let mut got = [0; 7];
            server.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, text.as_bytes());
            server.write_all(&got).await.unwrap();
            assert_eq!(client.read().await, text.as_bytes());
        }
    });
}

#[test]
fn garbage_is_an_error_and_the_client_is_told() {
    run(async {
        let (server, _) = &CONFIGS[0];
        let (near, mut far) = duplex(10_000);
        far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let error = accept(near, server).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let mut told = Vec::new();
        far.read_to_end(&mut told).await.unwrap();
        // A fatal alert (RFC 8446 §6).
        assert_eq!(told.first(), Some(&21));

        // Behind the handshake too.
        for (server, client) in CONFIGS.iter() {
            let (near, far) = duplex(200_000);
            let mut client = Client::new(client, far);
            let (server, ()) = join!(accept(near, server), client.handshake(b""));
            let mut server = server.unwrap();
            client.stream.write_all(&[23, 3, 3, 0, 20]).await.unwrap();
            client.stream.write_all(&[7; 20]).await.unwrap();
            let error = server.read(&mut [0; 10]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            let again = server.read(&mut [0; 10]).await.unwrap_err();
            assert_eq!(again.kind(), io::ErrorKind::InvalidData);
            let mut buffer = vec![0; 20_000];
            let mut refused = false;
            while !refused {
                let read = client.stream.read(&mut buffer).await.unwrap();
                let mut rest = &buffer[..read];
                assert!(!rest.is_empty());
                while !rest.is_empty() {
                    client.tls.read_tls(&mut rest).unwrap();
                }
                refused = client.tls.process_new_packets().is_err();
            }
        }
    });
}

#[test]
fn a_hello_has_a_limit() {
    run(async {
        let (server, _) = &CONFIGS[0];
        let (near, mut far) = duplex(200_000);
        // A ClientHello of 60,000 bytes that never ends: records of a handshake message.
        let mut records = Vec::new();
        for first in [true, false, false, false] {
            records.extend_from_slice(&[22, 3, 1, 0x3f, 0xff]);
            let mut body = vec![0; 0x3fff];
            if first {
                body[..4].copy_from_slice(&[1, 0, 0xea, 0x60]);
            }
            records.extend_from_slice(&body);
        }
        records.truncate(50_000);
        far.write_all(&records).await.unwrap();
        let error = accept(near, server).await.unwrap_err();
        assert_ne!(error.kind(), io::ErrorKind::UnexpectedEof);
    });
}
