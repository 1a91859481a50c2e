//! The system has no file left for one more connection: accepting pauses and says so once, what is open lives on, and who waited is served
//! once there are files again.

use std::fs;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tests::client::{WebSocket, talk};
use tests::echo_process::EchoProcess;
use tests::gateway::Gateway;
use tests::metrics::Metrics;
use tests::raw::{Connection, upgrade};
use tests::scene::{HOST, Scene};
use tests::wait;
use tokio::task::JoinSet;

/// Connections to the status address that were there before: a new one finds no file either. It takes 32.
const LOOKS: usize = 30;

/// Sockets that live through it.
const SOCKETS: usize = 5;

/// The gateway may have no file above this number from now on; those that it has stay.
fn limit_open_files(gateway: &Gateway, most: Option<u64>) {
    let limit = Rlimit {
        current: most,
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    let process = Pid::from_raw(gateway.id().cast_signed());
    prlimit(process, Resource::Nofile, limit).expect("a child's limit can be set");
}

fn open_files(gateway: &Gateway) -> usize {
    let folder = format!("/proc/{}/fd", gateway.id());
    fs::read_dir(folder).expect("a process").count()
}

async fn looks(gateway: &Gateway) -> Vec<Connection> {
    let before = open_files(gateway);
    let mut looks = Vec::new();
    for _ in 0..LOOKS {
        let look = Connection::plain(gateway.status).await;
        looks.push(look.expect("a status listener"));
    }
    wait::until("they are all accepted", async || {
        (open_files(gateway) >= before + LOOKS).then_some(())
    })
    .await;
    looks
}

/// Accepts that were refused so far, by a connection that is there already.
async fn refused(mut look: Connection) -> u64 {
    let request = "GET /metrics HTTP/1.1\r\nHost: status\r\n\r\n";
    look.send(request).await.expect("an open connection");
    let page = look.response("GET").await.expect("a page").text();
    Metrics::parse(&page).sum("ws_ingress_accept_errors_total", &[])
}

async fn all_talk(sockets: &mut [WebSocket]) {
    for socket in sockets {
        talk(socket, "still here").await;
    }
}

#[tokio::test]
async fn without_files_accepting_pauses_and_goes_on_when_there_are_some() {
    let echo = EchoProcess::start("echo").await;
    let scene = Scene::in_front_of(echo.address).await;
    let gateway = &scene.gateway;
    let mut sockets = Vec::new();
    for _ in 0..SOCKETS {
        sockets.push(scene.client().connect().await);
    }
    let mut looks = looks(gateway).await;

    limit_open_files(gateway, Some(3));
    let mut waiting = JoinSet::new();
    waiting.spawn(Connection::tls(gateway.https, HOST, scene.authority.root()));
    let mut plain = Connection::plain(gateway.http)
        .await
        .expect("a place in the kernel's queue");
    wait::until("several accepts were refused", async || {
        all_talk(&mut sockets).await;
        let look = looks.pop().expect("a look that is left");
        (refused(look).await >= 4).then_some(())
    })
    .await;
    let line = "the system refused a connection; accepting pauses";
    assert_eq!(gateway.log().count(line), 1);
    assert!(waiting.try_join_next().is_none());

    limit_open_files(gateway, getrlimit(Resource::Nofile).current);
    let served = waiting.join_all().await.pop().expect("one");
    let mut served = served.expect("a TLS handshake");
    served
        .send(upgrade(HOST, "/", ""))
        .await
        .expect("a request");
    assert_eq!(served.response("GET").await.expect("an answer").status, 101);
    plain
        .send("GET / HTTP/1.1\r\nHost: nobody.example.com\r\n\r\n")
        .await
        .expect("a request");
    plain.response("GET").await.expect("an answer");
    all_talk(&mut sockets).await;
    assert_eq!(gateway.log().count(line), 1);
}
