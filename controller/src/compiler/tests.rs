//! The whole loop, on a clock that stands still: a sleep lets the loop's own waits run, as far as it says.

mod world;

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::*;
use crate::secret_queue::SPACING;
use crate::secrets::WITHHELD;
use world::{LIMIT, Reply, World, api, route, slice, usual_compile};

#[tokio::test(start_paused = true)]
async fn a_route_that_goes_to_another_certificate_serves_the_first_until_the_second_was_read() {
    let api = api(&[("one", Reply::Good), ("two", Reply::Never)]);
    let chat = |secret| route("chat", &[secret]);
    let world = World::start(&api, &["one", "two"], vec![chat("one")]).await;
    world.becomes("chat: one=Serve").await;
    world.apply(chat("two")).await;
    sleep(WITHHELD / 3).await;
    // Another change meanwhile, which compiles again.
    world.apply(route("other", &["one"])).await;
    sleep(WITHHELD / 3).await;
    assert_eq!(api.requests(), ["one", "two"]);
    assert_eq!(world.now(), "chat: one=Serve");
    api.set("two", Reply::Good);
    world.becomes("chat: two=Serve, other: one=Serve").await;
    let published = world.published.lock().unwrap().clone();
    assert_eq!(
        published,
        ["chat: one=Serve", "chat: two=Serve, other: one=Serve"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_hiccup_of_the_api_server_is_waited_out() {
    let api = api(&[("one", Reply::Good), ("two", Reply::Status(503))]);
    let world = World::start(&api, &["one", "two"], vec![route("chat", &["one"])]).await;
    world.becomes("chat: one=Serve").await;
    world.apply(route("chat", &["two"])).await;
    sleep(WITHHELD / 6).await;
    api.set("two", Reply::Good);
    world.becomes("chat: two=Serve").await;
    let published = world.published.lock().unwrap().clone();
    assert_eq!(published, ["chat: one=Serve", "chat: two=Serve"]);
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_never_answers_delays_the_others_once_and_not_for_long() {
    let api = api(&[("one", Reply::Good), ("never", Reply::Never)]);
    let world = World::start(&api, &["one", "never"], vec![route("chat", &["one"])]).await;
    world.becomes("chat: one=Serve").await;
    let start = Instant::now();
    world.apply(route("chat", &["never"])).await;
    world.apply(route("other", &["one"])).await;
    world.becomes("chat: never=Hold, other: one=Serve").await;
    let waited = start.elapsed();
    assert!(waited >= WITHHELD && waited < WITHHELD * 2, "{waited:?}");
    let start = Instant::now();
    world.apply(route("third", &["one"])).await;
    world
        .becomes("chat: never=Hold, other: one=Serve, third: one=Serve")
        .await;
    assert!(start.elapsed() <= debounce::INTERVAL * 2);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_or_an_absence_is_published_at_once() {
    let api = api(&[("forbidden", Reply::Status(403))]);
    let start = Instant::now();
    let routes = vec![route("chat", &["forbidden"]), route("other", &["absent"])];
    let world = World::start(&api, &["forbidden"], routes).await;
    world
        .becomes("chat: forbidden=Hold, other: absent=Absent")
        .await;
    assert!(start.elapsed() < WITHHELD / 3);
}

#[tokio::test(start_paused = true)]
async fn the_first_publish_waits_for_listed_secrets_and_only_briefly_for_others() {
    let api = api(&[("listed", Reply::Status(500)), ("unlisted", Reply::Never)]);
    let routes = vec![route("chat", &["listed"]), route("other", &["unlisted"])];
    let world = World::start(&api, &["listed"], routes).await;
    sleep(FIRST_WITHHELD / 2).await;
    assert_eq!(world.now(), "");
    api.set("listed", Reply::Good);
    world
        .becomes("chat: listed=Serve, other: unlisted=Hold")
        .await;
    assert_eq!(world.published.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_listed_secret_that_fails_for_ever_does_not_keep_the_first_publish_back_for_ever() {
    let api = api(&[("one", Reply::Good), ("fails", Reply::Status(500))]);
    let routes = vec![route("chat", &["fails"]), route("other", &["one"])];
    let start = Instant::now();
    let world = World::start(&api, &["one", "fails"], routes).await;
    world.becomes("chat: fails=Hold, other: one=Serve").await;
    let waited = start.elapsed();
    assert!(
        waited >= FIRST_WITHHELD && waited < FIRST_WITHHELD + WITHHELD,
        "{waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_a_secret_keeps_the_first_publish_from_nobody() {
    for reply in [Reply::Giant, Reply::Garbled] {
        let api = api(&[("one", Reply::Good), ("bad", reply)]);
        let routes = vec![route("chat", &["bad"]), route("other", &["one"])];
        let start = Instant::now();
        let world = World::start(&api, &["one", "bad"], routes).await;
        world.becomes("chat: bad=Hold, other: one=Serve").await;
        assert!(start.elapsed() < WITHHELD / 3, "{reply:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_epoch_is_over_while_a_publish_is_withheld() {
    let api = api(&[("one", Reply::Good), ("two", Reply::Status(503))]);
    let world = World::start(&api, &["one", "two"], vec![route("chat", &["one"])]).await;
    world.becomes("chat: one=Serve").await;
    world.apply(route("chat", &["two"])).await;
    world.listed_again(1).await;
    world.is_over(1).await;
    assert_eq!(world.now(), "chat: two=Hold");
    world.apply(route("chat", &["one"])).await;
    world.becomes("chat: one=Serve").await;
    world.apply(route("chat", &["two"])).await;
    world.listed_again(2).await;
    sleep(WITHHELD / 6).await;
    api.set("two", Reply::Good);
    world.is_over(2).await;
    assert_eq!(world.now(), "chat: two=Serve");
}

#[tokio::test(start_paused = true)]
async fn names_that_are_read_again_hold_up_no_epoch() {
    let world = World::start(&api(&[]), &[], many_names("bad", 0..320)).await;
    sleep(REREAD / 2).await;
    assert!(world.outputs.borrow().is_some());
    sleep(REREAD / 2).await;
    world.listed_again(1).await;
    assert!(world.is_over(1).await < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn ever_new_names_do_not_hold_publishes_back_again_and_again() {
    let api = api(&[("one", Reply::Good)]);
    let world = World::start(&api, &["one"], vec![route("chat", &["one"])]).await;
    world.becomes("chat: one=Serve").await;
    for turn in 0..40 {
        for item in many_names("bad", turn * 64..(turn + 1) * 64) {
            world.apply(item).await;
        }
        sleep(WITHHELD / 10).await;
        if turn < 11 {
            continue;
        }
        world.apply(route(&format!("other-{turn}"), &["one"])).await;
        sleep(debounce::INTERVAL * 2).await;
        assert!(
            world.now().contains(&format!("other-{turn}: one=Serve")),
            "in turn {turn}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn names_that_nobody_answers_for_cut_no_other_secrets_time_short() {
    let replies = [
        ("one", Reply::Good),
        ("two", Reply::Never),
        ("bad", Reply::Never),
    ];
    let api = api(&replies);
    let world = World::start(&api, &["one", "two"], vec![route("chat", &["one"])]).await;
    world.becomes("chat: one=Serve").await;
    world.apply(route("other", &["bad"])).await;
    sleep(WITHHELD * 9 / 10).await;
    world.apply(route("chat", &["two"])).await;
    sleep(WITHHELD / 2).await;
    api.set("two", Reply::Good);
    world.becomes("chat: two=Serve, other: bad=Hold").await;
    let published = world.published.lock().unwrap().clone();
    assert_eq!(
        published,
        ["chat: one=Serve", "chat: two=Serve, other: bad=Hold"]
    );
}

/// Routes that refer to Secrets of these numbers, 64 each.
fn many_names(route_name: &str, numbers: std::ops::Range<usize>) -> Vec<Item> {
    let names = numbers.map(|number| format!("absent-{number}"));
    let names = names.collect::<Vec<_>>();
    let routes = names.chunks(64).enumerate().map(|(number, names)| {
        let names = names.iter().map(String::as_str).collect::<Vec<_>>();
        route(&format!("{route_name}-{number}"), &names)
    });
    routes.collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_published_is_not_read_again_when_a_route_comes_back_to_it() {
    let api = api(&[("one", Reply::Good), ("two", Reply::Never)]);
    let world = World::start(&api, &["one", "two"], vec![route("chat", &["one"])]).await;
    world.becomes("chat: one=Serve").await;
    world.apply(route("chat", &["two"])).await;
    sleep(WITHHELD / 3).await;
    world.apply(route("chat", &["one"])).await;
    world.apply(route("other", &["one"])).await;
    world.becomes("chat: one=Serve, other: one=Serve").await;
    assert_eq!(api.requests(), ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn references_that_come_and_go_leave_one_request_for_a_secret() {
    let api = api(&[("slow", Reply::Never)]);
    let world = World::start(&api, &["slow"], vec![route("other", &[])]).await;
    for turn in 0..20 {
        let secrets: &[&str] = if turn % 2 == 0 { &["slow"] } else { &[] };
        world.apply(route("chat", secrets)).await;
        sleep(debounce::INTERVAL * 2).await;
    }
    assert_eq!(api.requests().len(), 10);
    assert_eq!(api.most_under_way.load(Ordering::SeqCst), 1);
    world.apply(route("chat", &["slow"])).await;
    api.set("slow", Reply::Good);
    let waited = timeout(LIMIT, async {
        while !world.now().contains("chat: slow=Serve") {
            sleep(debounce::INTERVAL).await;
        }
    });
    assert!(waited.await.is_ok(), "{}", world.now());
}

#[tokio::test(start_paused = true)]
async fn names_of_secrets_that_do_not_exist_do_not_decide_how_much_is_asked() {
    let api = api(&[("one", Reply::Good)]);
    let world = World::start(&api, &["one"], vec![route("chat", &["one"])]).await;
    world.becomes("chat: one=Serve").await;
    let absent = |number: usize| format!("absent-{number}");
    for route_number in 0..32 {
        let names = (0..8).map(|number| absent(route_number * 8 + number));
        let names = names.collect::<Vec<_>>();
        let names = names.iter().map(String::as_str).collect::<Vec<_>>();
        world
            .apply(route(&format!("bad-{route_number}"), &names))
            .await;
    }
    let asked = || api.requests().len() - 1;
    sleep(Duration::from_secs(1)).await;
    assert!(
        (80..=101).contains(&asked()),
        "{} in the first second",
        asked()
    );
    sleep(SPACING * 256).await;
    assert_eq!(asked(), 256);
    assert_eq!(
        api.requests().into_iter().collect::<BTreeSet<_>>().len(),
        257
    );
    sleep(REREAD).await;
    assert_eq!(asked(), 512);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_panics_is_told_and_tried_again_and_disturbs_nothing() {
    let api = api(&[("one", Reply::Good), ("bad", Reply::Panics)]);
    let routes = vec![route("chat", &["bad"]), route("other", &["one"])];
    let world = World::start(&api, &["one", "bad"], routes).await;
    world.becomes("chat: bad=Hold, other: one=Serve").await;
    let warnings = world.health.warnings();
    assert!(
        warnings
            .iter()
            .any(|text| text.starts_with("Secret: 1 stale: ") && text.contains("panicked")),
        "{warnings:?}"
    );
    api.set("bad", Reply::Good);
    world.becomes("chat: bad=Serve, other: one=Serve").await;
    assert!(world.health.warnings().is_empty());
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_is_not_needed_any_more_is_not_told_to_be_read() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let api = api(&[("one", Reply::Good), ("bad", Reply::Status(403))]);
    let routes = vec![route("chat", &["one"]), route("other", &["bad"])];
    let world = World::start(&api, &["one", "bad"], routes).await;
    world.becomes("chat: one=Serve, other: bad=Hold").await;
    world.apply(route("other", &["one"])).await;
    world.becomes("chat: one=Serve, other: one=Serve").await;
    assert!(world.health.warnings().is_empty());
    let text = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(text.contains("cannot be read"), "{text}");
    assert!(!text.contains("read again"), "{text}");
}

#[tokio::test]
async fn the_runtime_goes_on_while_a_compile_runs() {
    let (begun, compile) = (Arc::new(Notify::new()), usual_compile());
    let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
    let (released, telling) = (Mutex::new(released), begun.clone());
    let slow: Compile = Arc::new(move |snapshot, now| {
        telling.notify_one();
        let waited = released
            .lock()
            .unwrap()
            .recv_timeout(Duration::from_secs(10));
        waited.expect("the runtime's only thread is free");
        compile(snapshot, now)
    });
    let world = World::start_with(&api(&[]), slow, &[], vec![]).await;
    begun.notified().await;
    release.send(()).unwrap();
    let mut outputs = world.outputs.clone();
    outputs.wait_for(Option::is_some).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_compile_that_panics_ends_the_compiler_with_it() {
    let breaks: Compile = Arc::new(|_, _| panic!("as the test wants it"));
    let mut world = World::start_with(&api(&[]), breaks, &[], vec![]).await;
    let ended = world.tasks.join_next().await.unwrap();
    assert!(ended.unwrap_err().is_panic());
}

#[tokio::test(start_paused = true)]
async fn only_services_that_routes_refer_to_are_compiled_for() {
    let api = api(&[("one", Reply::Good)]);
    let world = World::start(&api, &["one"], vec![route("chat", &["one"])]).await;
    world.becomes("chat: one=Serve").await;
    sleep(debounce::INTERVAL * 2).await;
    let before = world.compiles.load(Ordering::SeqCst);
    for number in 0..50 {
        world.apply(slice("other", number)).await;
        sleep(debounce::INTERVAL * 2).await;
    }
    assert_eq!(world.compiles.load(Ordering::SeqCst), before);
    world.apply(slice("chat", 1)).await;
    sleep(debounce::INTERVAL * 2).await;
    assert_eq!(world.compiles.load(Ordering::SeqCst), before + 1);
}
