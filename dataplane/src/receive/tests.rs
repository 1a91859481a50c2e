use std::net::SocketAddr;
use std::sync::mpsc;

use futures_util::poll;
use push::EncodedSet;
use push::wire::from_dataplane::Message;
use route_table::{Backend, BackendKey, Endpoint, EndpointState, Resources};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::task::spawn_blocking;

use super::*;

fn key() -> BackendKey {
    BackendKey {
        namespace: "default".into(),
        service: "chat".into(),
        port: 80.try_into().unwrap(),
    }
}

/// One backend with an endpoint at this port.
fn set(port: u16) -> EncodedSet {
    let backend = Backend {
        endpoints: vec![Endpoint {
            address: SocketAddr::from(([10, 0, 0, 1], port)),
            state: EndpointState::Ready,
        }],
    };
    let resources = Resources {
        backends: [(key(), Arc::new(backend))].into(),
        ..Resources::default()
    };
    EncodedSet::encode(&resources, &EncodedSet::empty()).0
}

fn receiver() -> Receiver {
    Receiver {
        config: Receive {
            controller: "127.0.0.1:1".parse().unwrap(),
            ca_file: PathBuf::new(),
            token_file: PathBuf::new(),
            pod: "p".into(),
        },
        held: Held::default(),
        followed: None,
        tables: watch::channel(Arc::new(RouteTable::empty())).0,
        link: link().0,
    }
}

/// Bytes go over a socket and come back.
async fn relay() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut near = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (mut far, _) = listener.accept().await.unwrap();
    near.write_all(b"ping").await.unwrap();
    let mut bytes = [0; 4];
    far.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"ping");
}

#[test]
fn sockets_are_relayed_while_an_update_is_applied() {
    // One worker, and one thread for what takes long.
    let mut runtime = Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(1).build();
    runtime.unwrap().block_on(async {
        let (release, busy) = mpsc::sync_channel::<()>(1);
        let occupied = spawn_blocking(move || busy.recv());
        let mut receiver = receiver();
        let tables = receiver.tables.subscribe();
        for port in [1, 2] {
            let update = set(port).full().next().unwrap();
            let mut answering = Box::pin(receiver.answer(update));
            if port == 1 {
                // As if it took long: the worker is free meanwhile, and the table that is there is served.
                assert!(poll!(&mut answering).is_pending());
                relay().await;
                assert_eq!(tables.borrow().generation(), 0);
                release.send(()).unwrap();
            }
            let answer = answering.await.unwrap();
            // What is acknowledged is served, in the order in which it came.
            assert!(matches!(answer, Some(Message::Ack(_))), "{answer:?}");
            let table = tables.borrow().clone();
            assert_eq!(
                table.backend(&key()).unwrap().endpoints[0].address.port(),
                port
            );
        }
        occupied.await.unwrap().unwrap();
        assert_eq!(receiver.held.version(), set(2).version());
    });
}
