use super::*;

fn key(name: &str) -> ObjectKey {
    ObjectKey {
        namespace: "default".into(),
        name: name.into(),
    }
}

fn version(version: &str) -> SecretVersion {
    SecretVersion {
        uid: "u".into(),
        version: version.into(),
    }
}

fn refer(secrets: &mut Secrets, names: &[&str]) -> Vec<Read> {
    secrets.refer(&names.iter().map(|name| key(name)).collect())
}

/// Routes refer to this one Secret; the read that follows.
fn refer_to(secrets: &mut Secrets, name: &str) -> Read {
    let mut reads = refer(secrets, &[name]);
    assert_eq!(reads.len(), 1, "{reads:?}");
    reads.remove(0)
}

#[test]
fn only_referenced_secrets_are_read() {
    let mut secrets = Secrets::default();
    assert_eq!(secrets.seen(&key("a"), version("1")), None);
    assert_eq!(secrets.seen(&key("b"), version("1")), None);
    assert_eq!(refer_to(&mut secrets, "a").key, key("a"));
    assert_eq!(secrets.seen(&key("b"), version("2")), None);
    assert_eq!(refer_to(&mut secrets, "b").key, key("b"));
}

#[test]
fn each_version_is_read_once_and_one_request_runs_at_a_time() {
    let mut secrets = Secrets::default();
    secrets.seen(&key("a"), version("1"));
    refer(&mut secrets, &["a"]);
    let under_way = secrets.seen(&key("a"), version("2"));
    assert_eq!(under_way, None);
    let again = secrets.answered(&key("a"));
    assert!(again.is_some(), "it may have been for the old version");
    assert_eq!(secrets.answered(&key("a")), None);
    assert_eq!(secrets.seen(&key("a"), version("2")), None);
    assert!(secrets.seen(&key("a"), version("3")).is_some());
}

#[test]
fn what_the_watch_does_not_show_is_read_too_but_patiently() {
    let mut secrets = Secrets::default();
    let read = refer_to(&mut secrets, "a");
    assert_eq!(read.pace, Pace::Patient);
    let shown = secrets.seen(&key("a"), version("1")).unwrap();
    assert_eq!((shown.pace, shown.ticket), (Pace::Prompt, read.ticket));
    secrets.gone(&key("a"));
    assert_eq!(secrets.answered(&key("a")), None);
    assert_eq!(secrets.ask_unlisted().len(), 1);
    assert!(secrets.ask_unlisted().is_empty(), "a request is under way");
    secrets.answered(&key("a"));
    let shown = secrets.seen(&key("a"), version("1")).unwrap();
    assert_eq!(shown.pace, Pace::Prompt);
    secrets.answered(&key("a"));
    assert!(secrets.ask_unlisted().is_empty());
    assert!(secrets.gone(&key("a")).is_some());
}

#[test]
fn an_answer_to_an_earlier_chain_is_not_awaited() {
    let mut secrets = Secrets::default();
    let first = refer_to(&mut secrets, "a");
    assert!(secrets.awaits(&key("a"), first.ticket));
    refer(&mut secrets, &[]);
    assert_eq!(secrets.forget(), [key("a")]);
    assert!(!secrets.awaits(&key("a"), first.ticket));
    let second = refer_to(&mut secrets, "a");
    assert!(!secrets.awaits(&key("a"), first.ticket));
    assert!(secrets.awaits(&key("a"), second.ticket));
    secrets.answered(&key("a"));
    assert!(
        !secrets.awaits(&key("a"), second.ticket),
        "answered already"
    );
}

#[test]
fn a_failure_is_tried_again_under_the_same_ticket() {
    let mut secrets = Secrets::default();
    secrets.seen(&key("a"), version("1"));
    let first = refer_to(&mut secrets, "a");
    let (again, wait) = secrets.failed(&key("a"), false).unwrap();
    assert_eq!((again.ticket, again.pace), (first.ticket, Pace::Patient));
    assert!(wait <= RETRY[0]);
    assert_eq!(secrets.seen(&key("a"), version("2")), None, "one chain");
    assert!(secrets.answered(&key("a")).is_some());
    refer(&mut secrets, &[]);
    secrets.forget();
    assert_eq!(secrets.failed(&key("a"), false), None);
}

#[test]
fn what_routes_refer_to_again_before_it_was_forgotten_is_not_read_again() {
    let mut secrets = Secrets::default();
    refer(&mut secrets, &["a"]);
    secrets.answered(&key("a"));
    refer(&mut secrets, &["b"]);
    assert!(secrets.is_kept(&key("a")));
    assert!(refer(&mut secrets, &["a", "b"]).is_empty());
    assert!(secrets.forget().is_empty());
}

#[test]
fn a_publish_waits_for_what_is_neither_refused_nor_overdue() {
    let mut secrets = Secrets::default();
    let unread = [key("listed"), key("unlisted")];
    secrets.seen(&unread[0], version("1"));
    refer(&mut secrets, &["listed", "unlisted"]);
    let mut check = |change: &dyn Fn(&mut Secrets), listed, due| {
        change(&mut secrets);
        assert_eq!(secrets.unanswered(&unread), Unanswered { listed, due });
    };
    check(&|_| {}, true, true);
    check(&|secrets| _ = secrets.failed(&unread[0], false), true, true);
    check(&|secrets| secrets.give_up(&unread[1..]), true, true);
    check(
        &|secrets| _ = secrets.failed(&unread[0], true),
        false,
        false,
    );
    assert_eq!(secrets.unanswered(&[]), Unanswered::default());
}

#[test]
fn the_first_publish_waits_for_what_is_listed_even_if_it_is_overdue() {
    let mut secrets = Secrets::default();
    let unread = [key("a")];
    secrets.seen(&unread[0], version("1"));
    refer(&mut secrets, &["a"]);
    secrets.give_up(&unread);
    let (listed, due) = (true, false);
    assert_eq!(secrets.unanswered(&unread), Unanswered { listed, due });
}

#[test]
fn a_request_is_awaited_until_its_first_answer() {
    let mut secrets = Secrets::default();
    refer(&mut secrets, &["a", "b"]);
    secrets.answered(&key("a"));
    assert!(!secrets.none_awaited());
    secrets.failed(&key("b"), false);
    assert!(secrets.none_awaited(), "it may fail for ever");
    secrets.answered(&key("b"));
    assert!(secrets.none_awaited());
    secrets.seen(&key("b"), version("2"));
    assert!(!secrets.none_awaited());
    secrets.give_up(&[key("b")]);
    assert!(secrets.none_awaited());
}
