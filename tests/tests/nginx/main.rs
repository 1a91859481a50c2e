//! Real nginx and ws-ingress with the same backend: one list of client actions is played against both, and they differ only where
//! `docs/coming-from-nginx.md` says so, each difference with its reason; a row there that is not true any more fails too.

mod actions;
mod compare;
mod document;
mod heads;
mod recipe;
mod sides;
mod times;
mod tunnels;

use std::collections::BTreeSet;

use tests::backend::Backend;
use tests::recorder::Recorder;

use compare::differences;
use sides::Pair;

#[tokio::test]
async fn http_differs_only_where_the_document_says_so() {
    let backend = Recorder::start().await;
    let Some(pair) = Pair::start(backend.address, "60s").await else {
        return;
    };
    let mut rows = document::rows("Differences in HTTP");
    let mut wrong = Vec::new();
    let mut names = BTreeSet::new();
    for action in actions::all() {
        assert!(names.insert(action.name), "two actions: {}", action.name);
        let nginx = action.play(&pair.nginx, &backend).await;
        let ours = action.play(&pair.ours, &backend).await;
        if ours["seen"].contains("STRAY") {
            wrong.push(format!("{}: {}", action.name, ours["seen"]));
        }
        document::compare(
            &mut rows,
            action.name,
            differences(&nginx, &ours),
            &mut wrong,
        );
    }
    wrong.extend(
        rows.keys()
            .map(|name| format!("a row of no action: {name}")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    pair.gateway.assert_quiet_log();
}

#[tokio::test]
async fn sockets_differ_only_where_the_document_says_so_and_ours_lose_nothing() {
    let mut backend = Backend::played();
    let Some(pair) = Pair::start(backend.address, "60s").await else {
        return;
    };
    let mut rows = document::rows("Differences in sockets");
    let mut wrong = Vec::new();
    for (name, script) in tunnels::all() {
        let nginx = tunnels::play(&pair.nginx, &mut backend, &script).await;
        let ours = tunnels::play(&pair.ours, &mut backend, &script).await;
        let got = (ours["client got"].clone(), ours["backend got"].clone());
        if got != tunnels::delivered(&script) {
            wrong.push(format!("{name}: not everything was delivered: {got:?}"));
        }
        document::compare(&mut rows, name, differences(&nginx, &ours), &mut wrong);
    }
    let nginx = times::all(&pair.nginx, &mut backend).await;
    let ours = times::all(&pair.ours, &mut backend).await;
    for ((name, nginx), (_, ours)) in nginx.iter().zip(&ours) {
        document::compare(&mut rows, name, differences(nginx, ours), &mut wrong);
    }
    let Some(hasty) = Pair::start(backend.address, "1s").await else {
        return;
    };
    let nginx = times::silence(&hasty.nginx, &mut backend).await;
    let ours = times::silence(&hasty.ours, &mut backend).await;
    let name = "a socket that is silent for the read timeout";
    document::compare(&mut rows, name, differences(&nginx, &ours), &mut wrong);
    wrong.extend(
        rows.keys()
            .map(|name| format!("a row of no action: {name}")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
