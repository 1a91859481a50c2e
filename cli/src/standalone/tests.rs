//! Files to tables without a dataplane, and the examples, which are what people copy.

use std::path::Path;

use controller::compile::Reason;

use super::*;

fn compiler() -> (Compiler, watch::Receiver<Arc<RouteTable>>) {
    let (sender, tables) = watch::channel(Arc::new(RouteTable::empty()));
    (Compiler::new("ws-ingress".to_owned(), sender), tables)
}

fn examples() -> impl Iterator<Item = PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    // `demo` is a script, not manifests, and what is for a cluster alone has pods.
    let elsewhere = |path: &PathBuf| path.ends_with("demo") || path.ends_with("kubernetes");
    entries.filter(move |path| path.is_dir() && !elsewhere(path))
}

#[test]
fn every_example_is_valid_by_itself() {
    let mut count = 0;
    for example in examples() {
        let (first, _changes) = read(vec![example.clone()]).unwrap();
        assert_eq!(first.notices, [], "{}", example.display());
        let (mut compiler, tables) = compiler();
        compiler.take(first);
        let result = compile(
            &compiler.store.snapshot(),
            &compiler.config,
            Timestamp::now(),
        );
        let findings = result.statuses.values().flat_map(|status| &status.findings);
        // The certificate is the user's own and not part of the example.
        let unexpected: Vec<_> = findings
            .filter(|finding| finding.reason != Reason::CertificateNotFound)
            .collect();
        assert!(
            unexpected.is_empty(),
            "{}: {unexpected:?}",
            example.display()
        );
        assert!(
            !result.statuses.is_empty(),
            "{} has no route",
            example.display()
        );
        compiler.publish(Timestamp::now());
        assert_eq!(tables.borrow().generation(), 1);
        count += 1;
    }
    assert!(count >= 4, "only {count} examples were found");
}

#[test]
fn an_object_that_is_gone_from_the_files_leaves_the_table() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("route.yaml");
    std::fs::write(&file, "apiVersion: ws-ingress.dev/v1alpha1\nkind: WebSocketRoute\nmetadata: { name: a }\nspec: { hostnames: [a.example.com], tls: { mode: None }, rules: [{ backendRefs: [{ name: a, port: 80 }] }] }\n").unwrap();
    let objects = |path: &Path| read(vec![path.to_owned()]).unwrap().0;
    let (mut compiler, tables) = compiler();
    let name = route_table::Hostname::parse("a.example.com").unwrap();
    assert!(compiler.take(objects(folder.path())));
    compiler.publish(Timestamp::now());
    assert!(tables.borrow().host(&name).is_some());
    assert!(!compiler.take(objects(folder.path())));
    std::fs::remove_file(&file).unwrap();
    assert!(compiler.take(objects(folder.path())));
    compiler.publish(Timestamp::now());
    assert!(tables.borrow().host(&name).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_time_in_the_past_is_reached_at_once_and_none_never() {
    let soon = Duration::from_secs(1);
    assert!(
        tokio::time::timeout(soon, reached(Some(Timestamp::UNIX_EPOCH)))
            .await
            .is_ok()
    );
    assert!(tokio::time::timeout(soon, reached(None)).await.is_err());
}
