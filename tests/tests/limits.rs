//! The limits of a head, one byte or field on either side of each: of a request, before any backend hears of it, and of a backend's
//! answer. (How long a head may take is tested beside the code, in `dataplane/src/connection/tests.rs`, where a test can shorten it.)

use tests::backend::{Backend, SWITCHING};
use tests::manifests::Rule;
use tests::raw::{Response, upgrade};
use tests::scene::{HOST, SERVICE, Scene};

/// `dataplane::Limits`: `head_bytes`, `head_fields`, `target_bytes`.
const HEAD_BYTES: usize = 32 * 1024;
const HEAD_FIELDS: usize = 128;
const TARGET_BYTES: usize = 8 * 1024;

async fn scene(backend: &Backend) -> Scene {
    let rules = [Rule::to(SERVICE).forward()];
    Scene::with_rules(&rules, &[(SERVICE, &[backend.address])]).await
}

/// The same limit for an upgrade and for ordinary HTTP: a request below it reaches the backend, and one above it is refused with this
/// status and reaches none.
async fn check(status: u16, below: [String; 2], above: [String; 2]) {
    let backend = Backend::accepting();
    let scene = scene(&backend).await;
    for request in above {
        let refused = scene.ask(&request).await;
        assert_eq!(refused.status, status);
        assert_eq!(backend.connections(), 0, "{status}");
    }
    for request in below {
        let before = backend.connections();
        let taken = scene.ask(&request).await;
        assert_ne!(taken.status, status);
        assert_eq!(backend.connections(), before + 1, "{status}");
    }
    scene.gateway.assert_quiet_log();
}

/// An upgrade and an ordinary request with this path and these fields.
fn both(path: &str, more: &str) -> [String; 2] {
    let ordinary = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{more}\r\n");
    [upgrade(HOST, path, more), ordinary]
}

#[tokio::test]
async fn a_target_that_is_too_long_is_414() {
    let path = |bytes: usize| format!("/{}", "a".repeat(bytes - 1));
    check(
        414,
        both(&path(TARGET_BYTES), ""),
        both(&path(TARGET_BYTES + 1), ""),
    )
    .await;
}

#[tokio::test]
async fn a_query_counts_as_part_of_the_target() {
    let path = |bytes: usize| format!("/?{}", "a".repeat(bytes - 2));
    check(
        414,
        both(&path(TARGET_BYTES), ""),
        both(&path(TARGET_BYTES + 1), ""),
    )
    .await;
}

#[tokio::test]
async fn fields_that_are_too_long_together_are_431() {
    // What stands beside them in the head takes less than 300 bytes.
    let fields = |bytes: usize| {
        let field = |index| format!("X-{index}: {}\r\n", "a".repeat(bytes / 4));
        (0..4).map(field).collect::<Vec<_>>().concat()
    };
    check(
        431,
        both("/", &fields(HEAD_BYTES - 400)),
        both("/", &fields(HEAD_BYTES)),
    )
    .await;
}

#[tokio::test]
async fn too_many_fields_are_431() {
    let fields = |count: usize| {
        (0..count)
            .map(|index| format!("X-{index}: a\r\n"))
            .collect::<Vec<_>>()
            .concat()
    };
    // An upgrade has five fields of its own, an ordinary request one.
    let [most, _] = both("/", &fields(HEAD_FIELDS - 5));
    let [too_many, _] = both("/", &fields(HEAD_FIELDS - 4));
    let [_, ordinary] = both("/", &fields(HEAD_FIELDS - 1));
    let [_, too_many_too] = both("/", &fields(HEAD_FIELDS));
    check(431, [most, ordinary], [too_many, too_many_too]).await;
}

/// What a client gets when a backend answers an upgrade, and an ordinary request, with these fields beside the least.
async fn answers_with(fields: &str) -> [Response; 2] {
    let more = format!("\r\n{fields}\r\n");
    let upgraded = Backend::answering(&SWITCHING.replace("\r\n\r\n", &more));
    let ordinary = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{fields}\r\n");
    let answered = Backend::answering(&ordinary);
    let [upgrade, ordinary] = both("/", "");
    [
        scene(&upgraded).await.ask(&upgrade).await,
        scene(&answered).await.ask(&ordinary).await,
    ]
}

#[tokio::test]
async fn an_answer_whose_head_is_too_long_is_502() {
    let field = |bytes: usize| format!("X-Long: {}\r\n", "a".repeat(bytes));
    let taken = answers_with(&field(HEAD_BYTES - 400)).await;
    assert_eq!(taken.map(|answer| answer.status), [101, 200]);
    let refused = answers_with(&field(HEAD_BYTES * 2)).await;
    assert_eq!(refused.map(|answer| answer.status), [502, 502]);
}

#[tokio::test]
async fn an_answer_with_too_many_fields_is_502() {
    // 64 is what the client of this test reads at most.
    let fields = |count: usize| {
        (0..count)
            .map(|index| format!("X-{index}: a\r\n"))
            .collect::<Vec<_>>()
            .concat()
    };
    let taken = answers_with(&fields(50)).await;
    assert_eq!(taken.map(|answer| answer.status), [101, 200]);
    let refused = answers_with(&fields(HEAD_FIELDS)).await;
    assert_eq!(refused.map(|answer| answer.status), [502, 502]);
}
