//! Handshakes that come in any pieces, records and order that a client may choose, and some that it may not.

use rustls::client::Resumption;
use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache};
use rustls::{CipherSuiteCommon, HandshakeKind, SupportedCipherSuite, Tls13CipherSuite};

use super::*;
use crate::pieces::{Pieces, Steps, cases};

/// A client that is driven by hand, against a server that reads and writes in pieces.
async fn meet<S: Transport>(
    near: S,
    server: &Arc<ServerConfig>,
    client: impl Future<Output = ()>,
) -> TlsSocket<S> {
    let accepting = async {
        let mut server = accept(near, server).await.unwrap();
        server.flush().await.unwrap();
        server
    };
    join!(accepting, client).0
}

/// Says something both ways.
async fn talk<S: Transport>(server: &mut TlsSocket<S>, client: &mut Client) {
    client.tls.writer().write_all(b"said").unwrap();
    client.send().await;
    let mut heard = [0; 4];
    server.read_exact(&mut heard).await.unwrap();
    server.write_all(&heard).await.unwrap();
    server.flush().await.unwrap();
    assert_eq!(client.read().await, b"said");
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn a_handshake_succeeds_wherever_its_bytes_are_cut(
        version in 0..2_usize,
        reads in prop::collection::vec(prop_oneof![0..30_usize, 0..3000_usize], 1..40),
        writes in prop::collection::vec(prop_oneof![0..30_usize, 0..3000_usize], 1..40),
    ) {
        let steps = |mut sizes: Vec<usize>| {
            sizes.push(7);
            Steps::new(sizes)
        };
        run(async {
            let (server, client) = &CONFIGS[version];
            let (near, far) = duplex(200_000);
            let mut client = Client::new(client, far);
            let near = Pieces::new(near, steps(reads), steps(writes));
            let mut server = meet(near, server, client.handshake(b"")).await;
            talk(&mut server, &mut client).await;
        });
    }
}

/// Cuts the handshake messages of a flight that stand in plain text into records of `size` bytes.
fn fragmented(flight: &[u8], size: usize) -> Vec<u8> {
    let mut rest = flight;
    let mut records = Vec::new();
    while let [kind, major, minor, high, low, more @ ..] = rest {
        // What follows a change of the cipher is sealed.
        if *kind != 22 {
            break;
        }
        let (body, after) = more.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        for piece in body.chunks(size) {
            let length = u16::try_from(piece.len()).unwrap();
            records.extend_from_slice(&[*kind, *major, *minor]);
            records.extend_from_slice(&length.to_be_bytes());
            records.extend_from_slice(piece);
        }
        rest = after;
    }
    [&records, rest].concat()
}

#[test]
fn messages_of_the_handshake_may_take_many_records() {
    run(async {
        for (server, client) in CONFIGS.iter() {
            for size in [1, 2, 3, 4, 5, 100, 1000] {
                for reads in [Steps::whole(), Steps::new(vec![1])] {
                    let (near, far) = duplex(200_000);
                    let mut client = Client::new(client, far);
                    let near = Pieces::new(near, reads, Steps::whole());
                    let shaking = async {
                        while client.tls.is_handshaking() {
                            let flight = fragmented(&client.flight(), size);
                            client.stream.write_all(&flight).await.unwrap();
                            client.hear().await;
                        }
                        client.send().await;
                    };
                    let mut server = meet(near, server, shaking).await;
                    talk(&mut server, &mut client).await;
                }
            }
        }
    });
}

#[test]
fn a_client_that_guessed_another_group_is_asked_again() {
    run(async {
        let capable = CryptoProvider {
            kx_groups: vec![aws_lc_rs::kx_group::SECP384R1],
            ..aws_lc_rs::default_provider()
        };
        let (server, client) = configs_with(capable, &version::TLS13);
        let mut client = ClientConfig::clone(&client);
        client.resumption = Resumption::disabled();
        let client = Arc::new(client);
        for size in [1, 1000] {
            let (near, far) = duplex(200_000);
            let mut client = Client::new(&client, far);
            let near = Pieces::new(near, Steps::new(vec![size]), Steps::whole());
            let mut server = meet(near, &server, client.handshake(b"")).await;
            let kind = client.tls.handshake_kind();
            assert_eq!(kind, Some(HandshakeKind::FullWithHelloRetryRequest));
            talk(&mut server, &mut client).await;
        }
    });
}

#[test]
fn a_handshake_that_breaks_off_anywhere_is_an_error() {
    run(async {
        for (server, client) in CONFIGS.iter() {
            let (_, far) = duplex(1);
            let hello = Client::new(client, far).flight();
            // Behind it too: the rest of the handshake is missing.
            for length in [0, 1, 4, 5, 6, 9, 50, hello.len() - 1, hello.len()] {
                let (near, mut far) = duplex(200_000);
                far.write_all(&hello[..length]).await.unwrap();
                far.shutdown().await.unwrap();
                let error = accept(near, server).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "after {length}");
            }
            let (near, mut far) = duplex(200_000);
            // No part of a message may be empty (RFC 8446 §5.1).
            far.write_all(&[22, 3, 1, 0, 0].repeat(1000)).await.unwrap();
            let error = accept(near, server).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    });
}

/// A client with a ticket that lets it send early data, and the server that it is from.
async fn client_with_early_data(tickets: &Arc<ServerSessionMemoryCache>) -> ClientConfig {
    let mut server = ServerConfig::clone(&CONFIGS[0].0);
    server.session_storage = tickets.clone();
    server.max_early_data_size = 16_384;
    let mut client = ClientConfig::clone(&CONFIGS[0].1);
    client.enable_early_data = true;
    client.resumption = Resumption::in_memory_sessions(8);
    let (near, far) = duplex(200_000);
    let mut first = Client::new(&Arc::new(client.clone()), far);
    let mut server = meet(near, &Arc::new(server), first.handshake(b"")).await;
    talk(&mut server, &mut first).await;
    client
}

#[test]
fn early_data_is_not_heard_and_what_follows_is() {
    run(async {
        let tickets = ServerSessionMemoryCache::new(8);
        // Whoever gave that ticket: a server that takes it, and one that does not know it.
        for (knows_ticket, kind) in [(true, HandshakeKind::Resumed), (false, HandshakeKind::Full)] {
            for reads in [Steps::whole(), Steps::new(vec![1000])] {
                let client = Arc::new(client_with_early_data(&tickets).await);
                let mut server = ServerConfig::clone(&CONFIGS[0].0);
                server.session_storage = if knows_ticket {
                    tickets.clone()
                } else {
                    Arc::new(NoServerSessionStorage {})
                };
                let (near, far) = duplex(200_000);
                let near = Pieces::new(near, reads, Steps::whole());
                let mut client = Client::new(&client, far);
                // A request's worth; rustls reads past 16 KiB at most, and counts a record anew each time that it looks at it.
                let early = pattern(1000, 1);
                let mut said = client.tls.early_data().unwrap();
                said.write_all(&early).unwrap();
                let mut server = meet(near, &Arc::new(server), client.handshake(b"")).await;
                assert_eq!(client.tls.handshake_kind(), Some(kind));
                assert!(!client.tls.is_early_data_accepted());
                talk(&mut server, &mut client).await;
            }
        }
    });
}

#[test]
fn data_may_come_with_the_last_word_of_a_resumed_handshake() {
    run(async {
        // In TLS 1.2 too, where a resumed handshake ends with the client.
        for (server, client) in CONFIGS.iter() {
            let mut client = ClientConfig::clone(client);
            client.resumption = Resumption::in_memory_sessions(8);
            let client = Arc::new(client);
            for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
                let (near, far) = duplex(200_000);
                let mut client = Client::new(&client, far);
                let last = if kind == HandshakeKind::Resumed {
                    &b"at once"[..]
                } else {
                    b""
                };
                let mut server = meet(near, server, client.handshake(last)).await;
                assert_eq!(client.tls.handshake_kind(), Some(kind));
                let mut heard = vec![0; last.len()];
                server.read_exact(&mut heard).await.unwrap();
                assert_eq!(heard, last);
                talk(&mut server, &mut client).await;
            }
        }
    });
}

#[test]
fn our_own_keys_are_changed_before_they_wear_out() {
    // As many records as a key may seal; really it is 2^24 (RFC 8446 §5.5).
    let worn_after = 10;
    let SupportedCipherSuite::Tls13(usual) = aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384
    else {
        panic!("a suite of TLS 1.3");
    };
    let suite = Box::leak(Box::new(Tls13CipherSuite {
        common: CipherSuiteCommon {
            suite: usual.common.suite,
            hash_provider: usual.common.hash_provider,
            confidentiality_limit: worn_after,
        },
        hkdf_provider: usual.hkdf_provider,
        aead_alg: usual.aead_alg,
        quic: None,
    }));
    let capable = CryptoProvider {
        cipher_suites: vec![SupportedCipherSuite::Tls13(suite)],
        ..aws_lc_rs::default_provider()
    };
    let configs = configs_with(capable, &version::TLS13);
    run(async {
        let (mut server, mut client) = connect(&configs, 4_000_000).await;
        for length in [1; 50].into_iter().chain([WRITE_BYTES; 50]) {
            let sent = pattern(length, length);
            server.write_all(&sent).await.unwrap();
            server.flush().await.unwrap();
            let mut heard = vec![0; length];
            client.read_exact(&mut heard).await.unwrap();
            assert!(heard == sent);
        }
    });
}

#[test]
fn a_client_hello_that_another_message_follows_is_refused() {
    run(async {
        for (server, client) in CONFIGS.iter() {
            let (near, far) = duplex(200_000);
            let mut client = Client::new(client, far);
            let mut flight = client.flight();
            flight.extend_from_slice(&[20, 0, 0, 0]);
            let length = u16::try_from(flight.len() - 5).unwrap();
            flight[3..5].copy_from_slice(&length.to_be_bytes());
            client.stream.write_all(&flight).await.unwrap();
            let error = accept(near, server).await.err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            let mut heard = Vec::new();
            client.stream.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard[0], 21);
        }
    });
}

#[test]
fn a_stranger_who_breaks_a_handshake_off_in_the_middle_of_a_message_is_told() {
    run(async {
        // In place of its ClientKeyExchange: its head, and then an alert, which nobody has sealed yet (RFC 5246 §7.4.7).
        let (server, client) = &CONFIGS[1];
        let (near, far) = duplex(200_000);
        let mut client = Client::new(client, far);
        client.send().await;
        let breaking = async {
            client.stream.read_u8().await.unwrap();
            let head = [22, 3, 3, 0, 4, 16, 0, 0, 33];
            let alert = [21, 3, 3, 0, 2, 1, 0];
            let sent = [&head[..], &alert].concat();
            client.stream.write_all(&sent).await.unwrap();
        };
        let (refused, ()) = join!(accept(near, server), breaking);
        assert_eq!(refused.err().unwrap().kind(), io::ErrorKind::InvalidData);
    });
}

#[test]
fn a_client_hello_may_be_longer_than_one_record() {
    run(async {
        for protocols in [1000_u16, 2500] {
            let (server, client) = &CONFIGS[0];
            let mut client = ClientConfig::clone(client);
            client.alpn_protocols = (0..protocols).map(|n| format!("p{n:06}").into()).collect();
            let mut server = ServerConfig::clone(server);
            server.alpn_protocols = vec![b"p000001".to_vec()];
            let (near, far) = duplex(200_000);
            let mut client = Client::new(&Arc::new(client), far);
            let mut server = meet(near, &Arc::new(server), client.handshake(b"")).await;
            talk(&mut server, &mut client).await;
        }
    });
}

#[test]
fn a_client_hello_that_is_too_long_is_refused_with_an_alert() {
    run(async {
        let (near, mut far) = duplex(200_000);
        // The head of a message of 60,000 bytes, and most of it.
        let message = [&[1, 0, 0xea, 0x60][..], &vec![0; 50_000]].concat();
        for piece in message.chunks(16_000) {
            let length = u16::try_from(piece.len()).unwrap().to_be_bytes();
            far.write_all(&[22, 3, 1]).await.unwrap();
            far.write_all(&length).await.unwrap();
            far.write_all(piece).await.unwrap();
        }
        let error = accept(near, &CONFIGS[0].0).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, [21, 3, 3, 0, 2, 2, 50]);
    });
}
