//! `filters`: what backends and clients get in place of what was sent, and redirects that need no backend.

use tests::backend::{Backend, SWITCHING};
use tests::client::talk;
use tests::echo_process::EchoProcess;
use tests::manifests::Rule;
use tests::raw::{Request, upgrade};
use tests::scene::{HOST, PLAIN_HOST, SERVICE, Scene};

/// Each filter on a line of its own.
const REQUEST: &str = "{ type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: X-Env, value: beta }, { name: Origin, value: \"https://backend.example\" }], add: [{ name: X-Via, value: two }], remove: [Cookie, X-Debug] } }";
const RESPONSE: &str = "{ type: ResponseHeaderModifier, responseHeaderModifier: { set: [{ name: Server, value: chat }], add: [{ name: Set-Cookie, value: b=2 }], remove: [X-Powered-By] } }";
const REWRITE: &str = "{ type: URLRewrite, urlRewrite: { hostname: upstream.example.net, path: { type: ReplacePrefixMatch, replacePrefixMatch: /v2 } } }";

const TRUSTING: &[&str] = &["--trusted-proxy-cidr", "127.0.0.0/8"];

fn filters(listed: &[&str]) -> String {
    format!("filters: [{}]", listed.join(", "))
}

/// A rule for `/chat` with these filters.
fn chat(listed: &[&str]) -> Rule {
    Rule::to(SERVICE)
        .prefix("/chat")
        .forward()
        .with(&filters(listed))
}

async fn scene(rule: Rule, backend: &Backend) -> Scene {
    Scene::with_rules(&[rule], &[(SERVICE, &[backend.address])]).await
}

fn ordinary(target: &str, more: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n{more}\r\n")
}

/// What the backend sees of an upgrade and of an ordinary request.
async fn seen(scene: &Scene, backend: &mut Backend, target: &str, more: &str) -> [Request; 2] {
    let (_, _, upgraded) = scene.asked(backend, upgrade(HOST, target, more)).await;
    let (_, _, forwarded) = scene.asked(backend, ordinary(target, more)).await;
    [upgraded, forwarded]
}

#[tokio::test]
async fn the_backend_gets_the_target_the_host_and_the_fields_of_the_filters() {
    let mut backend = Backend::played();
    let scene = scene(chat(&[REQUEST, REWRITE]), &backend).await;
    let more = "X-Env: alpha\r\nX-ENV: gamma\r\nX_Env: delta\r\nX_Debug: 1\r\nX_Kept: k\r\nX-Via: one\r\nCookie: a=1\r\nx-debug: 1\r\nX-Kept: k\r\nOrigin: https://app.example.com\r\n";
    for request in seen(&scene, &mut backend, "/chat/a%20b//c?d=%2F&e", more).await {
        assert_eq!(request.target, "/v2/a%20b//c?d=%2F&e");
        for (name, values) in [
            ("host", &["upstream.example.net"][..]),
            ("x-forwarded-host", &[HOST]),
            ("x-env", &["beta"]),
            ("x-via", &["one", "two"]),
            ("cookie", &[]),
            ("x-debug", &[]),
            ("x-kept", &["k"]),
            // To a backend behind CGI these would be X-Env and X-Debug.
            ("x_env", &[]),
            ("x_debug", &[]),
            ("x_kept", &["k"]),
            // Judged as the client sent it, then what the backend wants to see.
            ("origin", &["https://backend.example"]),
        ] {
            assert_eq!(request.all(name), values, "{name}");
        }
    }
}

/// What a filter takes from the head of a message does not come back at its end.
#[tokio::test]
async fn trailers_of_fields_that_a_filter_sets_or_removes_do_not_pass() {
    let mut backend = Backend::played();
    let scene = scene(chat(&[REQUEST, RESPONSE]), &backend).await;
    let more = "Transfer-Encoding: chunked\r\nTE: trailers\r\nTrailer: X-Sum, X-Env, X_Env\r\nTrailer: x-debug\r\n";
    let body = "0\r\nX-Sum: 5\r\nX-Env: alpha\r\nX_Env: alpha\r\nX-Debug: 1\r\n\r\n";
    let asked = ordinary("/chat", more).replace("GET", "POST") + body;
    let (mut client, mut server, seen) = scene.asked(&mut backend, asked).await;
    assert_eq!(seen.all("trailer"), ["x-sum"]);
    let got = server.through("\r\n\r\n").await.expect("the body");
    assert_eq!(got, "0\r\nX-Sum: 5\r\n\r\n");

    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Server, X-Digest, X-Powered-By\r\n\r\n\
                  0\r\nX-Digest: 4\r\nServer: secret\r\nX-Powered-By: secret\r\n\r\n";
    server.send(answer).await.expect("the proxy listens");
    let head = client.through("\r\n\r\n").await.expect("a head");
    assert!(
        head.to_ascii_lowercase()
            .contains("\r\ntrailer: x-digest\r\n"),
        "{head}"
    );
    let got = client.through("\r\n\r\n").await.expect("a body");
    assert_eq!(got, "0\r\nX-Digest: 4\r\n\r\n");
}

#[tokio::test]
async fn a_rewritten_path_is_the_only_one_that_a_backend_sees() {
    let mut backend = Backend::played();
    let root = "{ type: URLRewrite, urlRewrite: { path: { type: ReplacePrefixMatch, replacePrefixMatch: \"\" } } }";
    let full = "{ type: URLRewrite, urlRewrite: { path: { type: ReplaceFullPath, replaceFullPath: /all } } }";
    let rules = [
        chat(&[root]),
        Rule::to(SERVICE)
            .exact("/exact")
            .forward()
            .with(&filters(&[full])),
    ];
    let scene = Scene::with_rules(&rules, &[(SERVICE, &[backend.address])]).await;
    for (asked, expected) in [
        ("/chat", "/"),
        ("/chat/", "/"),
        ("/chat?x", "/?x"),
        ("/chat/a/", "/a/"),
        ("/%63hat/%61/%2fx", "/a/%2Fx"),
        // Never the authority of a network-path reference.
        ("/chat//evil.example/a", "/evil.example/a"),
        ("/exact?x", "/all?x"),
        ("http://chat.example.com/chat/b", "/b"),
    ] {
        for request in seen(&scene, &mut backend, asked, "").await {
            assert_eq!(request.target, expected, "{asked}");
            assert_eq!(request.all("host"), [HOST], "the host is kept");
        }
    }
    // What no rule takes is rewritten into nothing, and dot segments do not come this far.
    let count = backend.connections();
    assert_eq!(scene.ask(&ordinary("/chatter", "")).await.status, 404);
    assert_eq!(scene.ask(&ordinary("/chat/../exact", "")).await.status, 400);
    assert_eq!(backend.connections(), count);
}

#[tokio::test]
async fn the_client_gets_the_fields_of_the_filters_on_every_answer_of_a_backend() {
    let fields = "Server: nginx\r\nX-Powered-By: PHP\r\nSet-Cookie: a=1\r\n";
    let refusal = format!("HTTP/1.1 401 Unauthorized\r\n{fields}Content-Length: 2\r\n\r\nno");
    let switching = SWITCHING.replace("\r\n\r\n", &format!("\r\n{fields}\r\n"));
    for (answer, request, status) in [
        (&switching, upgrade(HOST, "/chat", ""), 101),
        (&refusal, upgrade(HOST, "/chat", ""), 401),
        (&refusal, ordinary("/chat", ""), 401),
    ] {
        let backend = Backend::answering(answer);
        let scene = scene(chat(&[RESPONSE]), &backend).await;
        let response = scene.ask(&request).await;
        assert_eq!(response.status, status);
        let all = |name: &str| {
            let named = response
                .headers
                .iter()
                .filter(|(key, _)| key.eq_ignore_ascii_case(name));
            named.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(all("server"), ["chat"]);
        assert_eq!(all("set-cookie"), ["a=1", "b=2"]);
        assert!(all("x-powered-by").is_empty());
        // Answers of the proxy itself are its own.
        let own = scene.ask(&ordinary("/nothing", "")).await;
        assert_eq!((own.status, own.header("server")), (404, None));
    }
}

#[tokio::test]
async fn a_client_talks_through_all_of_them() {
    let echo = EchoProcess::start("echo").await;
    let rules = [chat(&[REQUEST, RESPONSE, REWRITE])];
    let scene = Scene::with_rules(&rules, &[(SERVICE, &[echo.address])]).await;
    let dial = scene.client().path("/chat/room?quiet");
    let (mut socket, response) = dial.try_connect().await.expect("an open socket");
    assert_eq!(response.headers()["server"], "chat");
    talk(&mut socket, "through filters").await;
}

/// A rule for `/old` that redirects.
fn redirect(what: &str) -> String {
    format!(
        "apiVersion: ws-ingress.dev/v1alpha1\nkind: WebSocketRoute\nmetadata: {{ name: chat }}\nspec:\n  hostnames: [{HOST}]\n  tls: {{ certificateRefs: [{{ name: chat-tls }}], plain: Serve }}\n  rules:\n  - matches: [{{ path: {{ value: /old }} }}]\n    filters: [{{ type: RequestRedirect, requestRedirect: {{ {what} }} }}]\n"
    )
}

#[tokio::test]
async fn a_redirect_answers_everything_and_needs_no_backend() {
    let backend = Backend::accepting();
    for (what, status, over_tls, plain) in [
        (
            "hostname: new.example.com, statusCode: 308",
            308,
            "https://new.example.com/old/a?b=c",
            "http://new.example.com/old/a?b=c",
        ),
        (
            "scheme: https, port: 8443, path: { type: ReplacePrefixMatch, replacePrefixMatch: /new/ }",
            302,
            "https://chat.example.com:8443/new/a?b=c",
            "https://chat.example.com:8443/new/a?b=c",
        ),
        (
            "path: { type: ReplaceFullPath, replaceFullPath: / }, statusCode: 303",
            303,
            "https://chat.example.com/?b=c",
            "http://chat.example.com/?b=c",
        ),
    ] {
        let scene = Scene::of_routes(
            &redirect(what),
            &[HOST],
            backend.address,
            &tests::gateway::Settings::default(),
        )
        .await;
        for request in [upgrade(HOST, "/old/a?b=c", ""), ordinary("/old/a?b=c", "")] {
            for (answer, location) in [
                (scene.ask(&request).await, over_tls),
                (scene.ask_plain(&request).await, plain),
            ] {
                assert_eq!(answer.status, status);
                assert_eq!(answer.header("location"), Some(location));
            }
        }
        assert_eq!(scene.ask(&ordinary("/other", "")).await.status, 404);
        scene.gateway.assert_quiet_log();
    }
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn behind_a_trusted_proxy_a_redirect_stays_where_the_client_asked() {
    let backend = Backend::accepting();
    let path = "path: { type: ReplaceFullPath, replaceFullPath: /new }";
    let told = "X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example.com\r\nX-Forwarded-Port: 8443\r\n";
    for (flags, what, location) in [
        (TRUSTING, path, "https://shop.example.com:8443/new"),
        (
            TRUSTING,
            "hostname: new.example.com",
            "https://new.example.com:8443/old",
        ),
        // A port of a scheme that the client did not ask with says nothing.
        (TRUSTING, "scheme: http", "http://shop.example.com/old"),
        (&[], path, "http://chat.example.com/new"),
    ] {
        let settings = tests::gateway::Settings::with(flags);
        let route = redirect(what);
        let scene = Scene::of_routes(&route, &[HOST], backend.address, &settings).await;
        for request in [upgrade(HOST, "/old", told), ordinary("/old", told)] {
            let answer = scene.ask_plain(&request).await;
            assert_eq!(answer.header("location"), Some(location), "{what}");
        }
    }
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn what_a_schema_would_refuse_standalone_refuses_too() {
    let backend = Backend::accepting();
    for (filter, expected) in [
        (
            "{ type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: X-A, value: \"a\\r\\nHost: evil\" }] } }",
            "filters[0].requestHeaderModifier.set[0].value",
        ),
        (
            "{ type: ResponseHeaderModifier, responseHeaderModifier: { remove: [Sec-WebSocket-Accept] } }",
            "filters[0].responseHeaderModifier.remove[0]",
        ),
        (
            "{ type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: x_forwarded_for, value: a }] } }",
            "filters[0].requestHeaderModifier.set[0].name",
        ),
    ] {
        let scene = scene(chat(&[filter]), &backend).await;
        let line = scene.gateway.log().with("UnsupportedValue").await;
        assert!(line.contains(expected), "{line}");
        let refused = scene.ask_plain(&upgrade(PLAIN_HOST, "/chat", "")).await;
        assert_eq!(refused.status, 503, "nothing of the route is served");
    }
    assert_eq!(backend.connections(), 0);
}
