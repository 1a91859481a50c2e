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
    let keys = names.iter().map(|name| key(name)).collect::<Vec<_>>();
    refer_at(secrets, &keys, Instant::now())
}

fn refer_at(secrets: &mut Secrets, keys: &[ObjectKey], now: Instant) -> Vec<Read> {
    secrets.refer(&keys.iter().cloned().collect(), now)
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
    let now = Instant::now();
    let unread = [key("listed"), key("unlisted")];
    secrets.seen(&unread[0], version("1"));
    refer_at(&mut secrets, &unread, now);
    let waits = |secrets: &Secrets, at| secrets.unanswered(&unread, at);
    let until = |listed, due| Unanswered { listed, due };
    let due = now + WITHHELD;
    assert_eq!(waits(&secrets, now), until(true, Some(due)));
    secrets.failed(&unread[0], false);
    assert_eq!(waits(&secrets, now), until(true, Some(due)));
    assert_eq!(waits(&secrets, due), until(true, None));
    secrets.failed(&unread[0], true);
    assert_eq!(waits(&secrets, now), until(false, Some(due)));
    secrets.failed(&unread[1], true);
    assert_eq!(waits(&secrets, now), Unanswered::default());
    assert_eq!(secrets.unanswered(&[], now), Unanswered::default());
}

/// Until when a publish without this Secret waits.
fn due(secrets: &Secrets, key: &ObjectKey, now: Instant) -> Option<Instant> {
    secrets.unanswered(std::slice::from_ref(key), now).due
}

#[test]
fn each_secret_has_its_own_time_to_answer() {
    let mut secrets = Secrets::default();
    let start = Instant::now();
    let later = start + WITHHELD - WITHHELD / 10;
    let keys = [key("first"), key("second")];
    for key in &keys {
        secrets.seen(key, version("1"));
    }
    refer_at(&mut secrets, &keys[..1], start);
    refer_at(&mut secrets, &keys, later);
    assert_eq!(due(&secrets, &keys[0], later), Some(start + WITHHELD));
    let end = start + WITHHELD;
    assert_eq!(due(&secrets, &keys[0], end), None);
    assert_eq!(due(&secrets, &keys[1], end), Some(later + WITHHELD));
}

#[test]
fn ever_new_names_delay_publishes_once_a_minute_and_those_of_their_namespace_only() {
    let mut secrets = Secrets::default();
    let start = Instant::now();
    let end = start + WITHHELD;
    let [first, second, third, fourth] = ["1", "2", "3", "4"].map(key);
    let victim = ObjectKey {
        namespace: "victim".into(),
        name: "1".into(),
    };
    refer_at(&mut secrets, &[first], start);
    let soon = start + WITHHELD / 2;
    refer_at(&mut secrets, std::slice::from_ref(&second), soon);
    assert_eq!(due(&secrets, &second, soon), Some(end));
    refer_at(&mut secrets, &[third.clone(), victim.clone()], end);
    assert_eq!(due(&secrets, &third, end), None);
    assert_eq!(due(&secrets, &victim, end), Some(end + WITHHELD));
    secrets.seen(&third, version("1"));
    let shown = due(&secrets, &third, end);
    assert_eq!(shown, Some(end + WITHHELD), "somebody wrote it");
    let again = start + UNLISTED_DELAY_EVERY;
    refer_at(&mut secrets, std::slice::from_ref(&fourth), again);
    assert_eq!(due(&secrets, &fourth, again), Some(again + WITHHELD));
}

#[test]
fn an_epoch_waits_for_the_first_answers_about_listed_secrets_only() {
    let mut secrets = Secrets::default();
    let now = Instant::now();
    let keys = [key("listed"), key("unlisted")];
    secrets.seen(&keys[0], version("1"));
    let read = refer_at(&mut secrets, &keys, now).remove(0);
    assert_eq!(secrets.under_way(now), [(read.key.clone(), read.ticket)]);
    // Another version before the answer: the epoch waits for the first, and no longer.
    secrets.seen(&read.key, version("2"));
    let next = secrets.answered(&read.key).unwrap();
    assert!(!secrets.is_under_way(&read.key, read.ticket, now));
    assert_eq!(secrets.under_way(now), [(next.key.clone(), next.ticket)]);
    secrets.failed(&next.key, false);
    assert!(!secrets.is_under_way(&next.key, next.ticket, now));
    assert_eq!(secrets.under_way(now), [], "it may fail for ever");
}

#[test]
fn a_secret_that_was_late_once_is_waited_for_again_after_its_answer() {
    let mut secrets = Secrets::default();
    let start = Instant::now();
    secrets.seen(&key("a"), version("1"));
    refer_at(&mut secrets, &[key("a")], start);
    let late = start + WITHHELD;
    assert_eq!(secrets.under_way(late), []);
    secrets.failed(&key("a"), true);
    secrets.answered(&key("a"));
    secrets.seen(&key("a"), version("2"));
    assert_eq!(secrets.under_way(late).len(), 1);
    assert!(secrets.unanswered(&[key("a")], late).listed);
}
