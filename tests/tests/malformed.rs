//! Requests that are not a valid opening handshake are refused before any backend hears of them, and the proxy goes on
//! as if nothing had been. The requests are in `data/malformed.txt`.

use tests::backend::Backend;
use tests::malformed::{Case, Expected, cases};
use tests::raw::upgrade;
use tests::scene::{HOST, Scene};

/// What came of a request: its status, or the end of the connection.
async fn outcome(scene: &Scene, case: &Case) -> Expected {
    let mut connection = scene.raw().await;
    // The proxy may refuse while a long request is still on its way; the answer counts, not the write.
    let _ = connection.send(&case.bytes).await;
    let method = if case.bytes.starts_with(b"HEAD") {
        "HEAD"
    } else {
        "GET"
    };
    match connection.response(method).await {
        Ok(response) => {
            if response.status == 426 && case.name.contains("version") {
                let spoken = response.header("sec-websocket-version");
                assert_eq!(
                    spoken,
                    Some("13"),
                    "{}: the answer names the version that is spoken",
                    case.name
                );
            }
            Expected::Status(response.status)
        }
        Err(_) => Expected::Closed,
    }
}

#[tokio::test]
async fn malformed_requests_are_refused_and_reach_no_backend() {
    let backend = Backend::accepting();
    let scene = Scene::in_front_of(backend.address).await;
    let mut wrong = Vec::new();
    let mut expected = 0;
    for case in cases() {
        let name = &case.name;
        let outcome = outcome(&scene, &case).await;
        if !case.expected.contains(&outcome) {
            wrong.push(format!("{name}: not {:?} but {outcome:?}", case.expected));
        }
        // The good request after it is counted by the same backend, and so would be a connection that came late.
        let good = scene.ask(&upgrade(HOST, "/", "")).await;
        if good.status != 101 {
            wrong.push(format!(
                "{name}: a good request after it got {}",
                good.status
            ));
        }
        expected += 1;
        let seen = backend.connections();
        if seen != expected {
            wrong.push(format!(
                "{name}: the backend saw {seen} connections instead of {expected}"
            ));
            expected = seen;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    scene.gateway.assert_quiet_log();
}
