//! Who gets a slot and for how long, against rustls' own client over pipes.

use std::sync::Mutex;

use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::join;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::*;
use crate::tls::hello;

const NAME: &str = "chat.example.com";
const WAIT: Duration = Duration::from_secs(3);

fn slots(free: usize, queue: usize) -> Slots {
    let limits = Limits {
        tls_handshakes: free,
        tls_handshake_queue: queue,
        tls_handshake_wait: WAIT,
        ..Limits::default()
    };
    Slots::new(&limits, Arc::new(Metrics::new()))
}

/// A server that agrees on X25519 alone, and a client that has guessed it, or has guessed something else.
fn configs(
    guessed: bool,
    version: &'static SupportedProtocolVersion,
) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let issued = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let chain = vec![issued.cert.der().clone()];
    let mut roots = RootCertStore::empty();
    roots.add(chain[0].clone()).unwrap();
    let (mut server, mut client) = (default_provider(), default_provider());
    server.kx_groups = vec![kx_group::X25519];
    client.kx_groups = vec![kx_group::X25519, kx_group::SECP256R1];
    if !guessed {
        client.kx_groups.reverse();
    }
    let server = ServerConfig::builder_with_provider(Arc::new(server));
    let server = server.with_safe_default_protocol_versions().unwrap();
    let server = server.with_no_client_auth().with_single_cert(chain, key);
    let client = ClientConfig::builder_with_provider(Arc::new(client));
    let client = client.with_protocol_versions(&[version]).unwrap();
    let client = client.with_root_certificates(roots).with_no_client_auth();
    (Arc::new(server.unwrap()), Arc::new(client))
}

async fn serve(
    mut stream: DuplexStream,
    config: Arc<ServerConfig>,
    slots: &Slots,
) -> Result<Box<TlsSocket<DuplexStream>>, TlsError> {
    let hello = hello::read(&mut stream)
        .await
        .map_err(TlsError::Handshake)?;
    let mut socket = begin(stream, config, hello, slots).await?;
    complete(&mut socket, slots).await?;
    Ok(socket)
}

async fn connects(slots: &Slots, guessed: bool) -> Result<(), TlsError> {
    let (server, client) = configs(guessed, &TLS13);
    let (near, far) = duplex(64 * 1024);
    let name = ServerName::try_from(NAME).unwrap();
    let connecting = TlsConnector::from(client).connect(name, far);
    let (handshake, client) = join!(serve(near, server, slots), connecting);
    handshake.map(|_| {
        client.unwrap();
    })
}

/// What a client has to say now.
fn said(client: &mut ClientConnection) -> Vec<u8> {
    let mut said = Vec::new();
    client.write_tls(&mut said).unwrap();
    said
}

#[tokio::test]
async fn clients_that_fall_silent_hold_no_slot() {
    let slots = slots(1, 0);
    for guessed in [true, false] {
        let (server, client) = configs(guessed, &TLS13);
        let name = ServerName::try_from(NAME).unwrap();
        let hello = said(&mut ClientConnection::new(client, name).unwrap());
        let mut silent = Vec::new();
        for sent in [0, hello.len() / 2, hello.len()] {
            let (near, mut far) = duplex(64 * 1024);
            far.write_all(&hello[..sent]).await.unwrap();
            let mut handshake = Box::pin(serve(near, server.clone(), &slots));
            if sent == hello.len() {
                // Until it has answered, and waits.
                tokio::select! {
                    ended = &mut handshake => panic!("{:?}", ended.map(|_| ())),
                    read = far.read_u8() => assert_eq!(read.unwrap(), 22),
                }
            } else {
                assert!(futures_util::poll!(&mut handshake).is_pending());
            }
            silent.push((handshake, far));
        }
        connects(&slots, true).await.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_is_asked_for_another_hello_is_served_too() {
    connects(&slots(1, 0), false).await.unwrap();
}

#[tokio::test]
async fn another_hello_and_the_key_exchange_of_tls12_need_slots_of_their_own() {
    for (guessed, version) in [(false, &TLS13), (true, &TLS12)] {
        let slots = slots(1, 0);
        let (server, config) = configs(guessed, version);
        let name = ServerName::try_from(NAME).unwrap();
        let mut client = ClientConnection::new(config, name).unwrap();
        let (near, mut far) = duplex(64 * 1024);
        far.write_all(&said(&mut client)).await.unwrap();
        let mut serving = Box::pin(serve(near, server, &slots));
        let mut answer = [0; 4096];
        let length = tokio::select! {
            _ = &mut serving => panic!("the client has not answered"),
            read = far.read(&mut answer) => read.unwrap(),
        };
        client.read_tls(&mut &answer[..length]).unwrap();
        client.process_new_packets().unwrap();
        let _held = slots.take().await.unwrap();
        far.write_all(&said(&mut client)).await.unwrap();
        drop(far);
        assert_shed(&serving.await.map(|_| ()), Shed::QueueFull);
    }
}

#[tokio::test]
async fn a_message_in_the_smallest_of_parts_is_not_kept_for_ever() {
    let slots = slots(1, 0);
    let (server, config) = configs(true, &TLS12);
    let name = ServerName::try_from(NAME).unwrap();
    let mut client = ClientConnection::new(config, name).unwrap();
    let (near, mut far) = duplex(1_000_000);
    far.write_all(&said(&mut client)).await.unwrap();
    let mut serving = Box::pin(serve(near, server, &slots));
    tokio::select! {
        _ = &mut serving => panic!("the client has not answered"),
        read = far.read_u8() => assert_eq!(read.unwrap(), 22),
    }
    // A ClientKeyExchange of 60,000 bytes, the half of it, a byte a record.
    let head = [22, 3, 3, 0, 4, 16, 0, 0xea, 0x60];
    let parts = [22, 3, 3, 0, 1, 7].repeat(30_000);
    far.write_all(&[&head[..], &parts].concat()).await.unwrap();
    let refused = serving.await.map(|_| ()).unwrap_err();
    assert!(matches!(refused, TlsError::Handshake(_)), "{refused:?}");
}

#[track_caller]
fn assert_shed(served: &Result<(), TlsError>, expected: Shed) {
    assert!(
        matches!(served, Err(TlsError::Shed(shed)) if *shed == expected),
        "{served:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_place_in_the_queue_or_waits_for_too_long_is_let_go() {
    let slots = slots(1, 1);
    let held = slots.take().await.unwrap();
    let mut waiting = Box::pin(slots.take());
    assert!(futures_util::poll!(&mut waiting).is_pending());
    assert_shed(&connects(&slots, true).await, Shed::QueueFull);
    drop(held);
    drop(waiting.await.unwrap());

    let _held = slots.take().await.unwrap();
    for _ in 0..2 {
        let began = Instant::now();
        assert_shed(&connects(&slots, true).await, Shed::TooLate);
        assert_eq!(began.elapsed(), WAIT);
    }
}

/// One thread, as in a pod with one core.
#[test]
fn who_has_something_to_read_goes_first() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let (reads, is_reading) = tokio::sync::oneshot::channel();
    let seen = order.clone();
    let tasks = tokio_util::task::TaskTracker::new();
    let relay = async move {
        let mut near = tokio::net::UnixStream::from_std(near).unwrap();
        reads.send(()).unwrap();
        near.read_u8().await.unwrap();
        seen.lock().unwrap().push("relay");
    };
    let seen = order.clone();
    let newcomer = async move {
        let slots = slots(1, 0);
        is_reading.await.unwrap();
        std::io::Write::write_all(&mut &far, b"m").unwrap();
        let _slot = slots.take().await.unwrap();
        seen.lock().unwrap().push("newcomer");
    };
    let relay = tasks.spawn_on(relay, runtime.handle());
    let newcomer = tasks.spawn_on(newcomer, runtime.handle());
    runtime
        .block_on(async { tokio::try_join!(relay, newcomer) })
        .unwrap();
    assert_eq!(*order.lock().unwrap(), ["relay", "newcomer"]);
}
