use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[track_caller]
fn check(said: &[&str], version: Version, expected: Duration) {
    let limits = Limits {
        upstream_idle: 4 * SECOND,
        ..Limits::default()
    };
    let headers: HeaderMap = said
        .iter()
        .map(|value| (KEEP_ALIVE, HeaderValue::from_str(value).unwrap()))
        .collect();
    assert_eq!(keep_for(&headers, version, &limits), expected, "{said:?}");
}

#[test]
fn a_connection_waits_less_than_the_backend_says_that_it_waits() {
    check(&[], Version::HTTP_11, 4 * SECOND);
    check(&["timeout=5"], Version::HTTP_11, 4 * SECOND);
    check(&["timeout=60, max=100"], Version::HTTP_11, 4 * SECOND);
    check(&["max=100, Timeout=\"3\""], Version::HTTP_11, 2 * SECOND);
    check(&["timeout=1"], Version::HTTP_11, Duration::ZERO);
    check(&["timeout=0"], Version::HTTP_11, Duration::ZERO);
    check(&["timeout=soon"], Version::HTTP_11, 4 * SECOND);
    check(&["timeout=60"], Version::HTTP_10, Duration::ZERO);
}

#[test]
fn only_what_is_idempotent_and_has_no_body_may_be_sent_twice() {
    for (method, body, expected) in [
        ("GET", "", true),
        ("HEAD", "", true),
        ("OPTIONS", "", true),
        ("DELETE", "", true),
        ("PUT", "", true),
        ("POST", "", false),
        ("PATCH", "", false),
        ("REPORT", "", false),
        ("GET", "a body", false),
        ("PUT", "a body", false),
    ] {
        let body = if body.is_empty() { empty() } else { full(body) };
        let (upload, body) = Upload::watch(body, None);
        let request = Request::builder()
            .method(method)
            .uri("/path?query")
            .header("x-field", "kept")
            .body(body)
            .unwrap();
        let copy = repeatable(&request, &upload);
        assert_eq!(copy.is_some(), expected, "{method}");
        if let Some(copy) = copy {
            assert_eq!(copy.uri(), request.uri());
            assert_eq!(copy.headers(), request.headers());
        }
    }
}
