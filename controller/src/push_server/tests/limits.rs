//! What is over a limit disturbs nobody else.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use push::{OverLimit, SetLimits};
use route_table::{
    Backend, CertificateKey, CertificateResource, NonUpgrade, PathMatch, PrivateKey, ResourceKey,
    Resources, Route, RouteKey, Rule, Timeouts,
};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tonic::Code;

use super::super::Limits;
use super::negatives::refused;
use super::scene::{Dataplane, PATIENCE, Scene, backend_key, backends, limits, sent_keys, wait};

fn left_out(reason: &str, count: usize) -> String {
    format!(r#"push_left_out_resources{{reason="{reason}"}} {count}"#)
}

#[tokio::test]
async fn what_grew_too_large_is_served_on_as_it_was_and_named() {
    let scene = Scene::leader().await;
    let small = backends([("a", 1), ("large", 2)]);
    scene.publish(1, small.clone());
    let mut dataplane = scene.dataplane("uid-1").await;
    dataplane.welcome().await;
    dataplane.update().await;
    dataplane.ack().await;
    let mut resources = backends([("a", 2), ("large", 65_535)]);
    let large = resources.backends.get_mut(&backend_key("large")).unwrap();
    let mut endpoints = large.endpoints.clone();
    endpoints.extend(large.endpoints.iter().map(|endpoint| {
        let mut endpoint = *endpoint;
        endpoint.address.set_ip([10, 0, 0, 2].into());
        endpoint
    }));
    // About 18 bytes an endpoint: more than a body may have.
    *large = Backend { endpoints }.into();
    scene.publish(2, resources);
    dataplane.update().await;
    dataplane.ack().await;
    assert_eq!(
        *dataplane.held.resources(),
        backends([("a", 2), ("large", 2)])
    );
    wait(|| scene.deliveries.borrow()["uid-1"].sequence == 2).await;
    let delivery = scene.deliveries.borrow()["uid-1"].clone();
    let key = ResourceKey::Backend(backend_key("large"));
    let named = delivery.left_out.iter().collect::<Vec<_>>();
    assert_eq!(named, [(&key, &OverLimit::Body)]);
    scene.metric(&left_out("too_large", 1)).await;
    let warning = "push: 1 resources are over a limit; their routes are not Programmed";
    assert_eq!(scene.health.warnings(), [warning]);
    scene.publish(3, small.clone());
    dataplane.update().await;
    dataplane.ack().await;
    assert_eq!(*dataplane.held.resources(), small);
    wait(|| scene.deliveries.borrow()["uid-1"].left_out.is_empty()).await;
    scene.metric(&left_out("too_large", 0)).await;
    assert!(scene.health.warnings().is_empty());
}

#[tokio::test]
async fn one_namespace_that_fills_the_push_stops_nobody_else() {
    let scene = Scene::with(Limits {
        set: SetLimits {
            resources: 20,
            ..SetLimits::default()
        },
        ..limits()
    });
    let scene = scene.await.lead().await;
    let mut all = routes("modest", 5, 100..101);
    all.routes.extend(routes("greedy", 5, 0..20).routes);
    scene.publish(1, all.clone());
    let mut dataplane = scene.dataplane("uid-1").await;
    dataplane.welcome().await;
    dataplane.update().await;
    dataplane.ack().await;
    let kept = |dataplane: &Dataplane| dataplane.held.resources().routes.clone();
    let mut expected = all.routes.clone();
    let (youngest, _) = routes("greedy", 5, 19..20).routes.pop_first().unwrap();
    expected.remove(&youngest);
    assert_eq!(kept(&dataplane), expected);
    wait(|| !scene.deliveries.borrow().is_empty()).await;
    let missing = scene.deliveries.borrow()["uid-1"].left_out.clone();
    let named = missing.iter().collect::<Vec<_>>();
    let youngest = ResourceKey::Route(youngest);
    assert_eq!(named, [(&youngest, &OverLimit::Resources)]);
    scene.metric(&left_out("too_many_resources", 1)).await;
    assert_eq!(scene.health.warnings().len(), 1);
    // The others change as ever.
    all.routes.extend(routes("modest", 6, 100..101).routes);
    expected.extend(routes("modest", 6, 100..101).routes);
    scene.publish(2, all);
    let parts = dataplane.update().await;
    assert_eq!(sent_keys(&parts), ["route/modest/r100"]);
    assert_eq!(kept(&dataplane), expected);
}

/// Routes of a namespace, as old as their numbers say.
fn routes(namespace: &str, read_hours: u64, numbers: Range<i64>) -> Resources {
    let second = Duration::from_secs(1);
    let rule = Rule {
        name: "0".into(),
        matches: vec![PathMatch::prefix("/").unwrap().into()],
        non_upgrade: NonUpgrade::Reject,
        origins: route_table::OriginPolicy::default(),
        filters: Arc::default(),
        backends: Vec::new(),
        timeouts: Timeouts {
            connect: second,
            handshake: second,
            read: Duration::from_hours(read_hours),
            send: second,
        },
    };
    let route = |number| {
        let key = RouteKey {
            namespace: namespace.into(),
            name: format!("r{number}").into(),
        };
        let route = Route {
            created: Some(number),
            hostnames: Vec::new(),
            rules: vec![rule.clone()],
            closed: false,
        };
        (key, Arc::new(route))
    };
    Resources {
        routes: numbers.map(route).collect(),
        ..Resources::default()
    }
}

/// The value of a metric without labels.
fn gauge(scene: &Scene, name: &str) -> usize {
    let metrics = scene.metrics();
    let mut lines = metrics.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap().parse().unwrap()
}

/// Certificates of 600 KiB each.
pub(super) fn large_certificates(count: u8) -> Resources {
    let certificate = |index: u8| {
        let key = CertificateKey {
            namespace: "default".into(),
            secret: format!("s{index}").into(),
        };
        let chain = vec![vec![index; 600 << 10].into()];
        let certificate = CertificateResource::Serve {
            chain,
            key: PrivateKey::from_der(Vec::new()),
        };
        (key, Arc::new(certificate))
    };
    Resources {
        certificates: (0..count).map(certificate).collect(),
        ..Resources::default()
    }
}

#[tokio::test]
async fn a_part_takes_its_room_until_it_has_left() {
    let scene = Scene::with(Limits {
        queued_bytes: push::PART_BYTES,
        ..limits()
    });
    let scene = scene.await.lead().await;
    scene.publish(1, large_certificates(1));
    let mut reluctant = scene.reluctant_dataplane("uid-1").await;
    reluctant.welcome().await;
    let queued = || gauge(&scene, "push_queued_bytes");
    wait(|| queued() > 600 << 10).await;
    let mut next = scene.dataplane("uid-2").await;
    next.welcome().await;
    // The only part of the first was handed to HTTP/2, and nobody takes it.
    let turn = timeout(Duration::from_millis(300), next.part()).await;
    assert!(turn.is_err());
    assert!(queued() > 600 << 10);
    assert_eq!(gauge(&scene, "push_waiting_streams"), 1);
    reluctant.update().await;
    next.update().await;
    wait(|| queued() == 0).await;
}

#[tokio::test]
async fn a_pod_that_begins_stream_after_stream_is_refused() {
    let scene = Scene::leader().await;
    let token = scene.token("uid-1");
    let mut streams = Vec::new();
    let refusal = loop {
        match Dataplane::call(scene.channel().await, Some(&token)).await {
            Ok(stream) => streams.push(stream),
            Err(status) => break status,
        }
        assert!(streams.len() < 1000);
    };
    assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal}");
    assert!(streams.len() >= 10);
    scene.metric(&refused("too_many_streams")).await;
    let mut other = scene.dataplane("uid-2").await;
    other.welcome().await;
}

#[tokio::test]
async fn who_does_not_read_takes_bounded_memory_and_the_others_get_their_turn() {
    let room = 2 * push::MAX_BODY_BYTES;
    let scene = Scene::with(Limits {
        queued_bytes: room,
        ..limits()
    });
    let scene = scene.await.lead().await;
    // Far more together than a stream may send ahead.
    let resources = large_certificates(8);
    scene.publish(1, resources.clone());
    let mut dataplanes = Vec::new();
    for index in 0..3 {
        let mut dataplane = scene.dataplane(&format!("uid-{index}")).await;
        dataplane.welcome().await;
        dataplanes.push(dataplane);
    }
    // Nobody reads.
    let queued = || gauge(&scene, "push_queued_bytes");
    wait(|| gauge(&scene, "push_waiting_streams") >= 2 && queued() > room / 2).await;
    assert!(queued() <= room, "{}", queued());
    let reading = dataplanes.iter_mut().map(async |dataplane| {
        dataplane.update().await;
        dataplane.ack().await;
        assert_eq!(*dataplane.held.resources(), resources);
    });
    join_all(reading).await;
    wait(|| scene.deliveries.borrow().len() == 3).await;
    assert_eq!(gauge(&scene, "push_waiting_streams"), 0);
    assert_eq!(gauge(&scene, "push_queued_bytes"), 0);
}

#[tokio::test]
async fn so_many_dataplanes_say_at_a_time_what_they_hold() {
    let scene = Scene::with(Limits {
        greetings: 1,
        // Who gets a turn has to say something by then, and who gets none is told so.
        hello: Duration::from_secs(4),
        ..limits()
    });
    let scene = scene.await.lead().await;
    let other = push::EncodedSet::encode(&backends([("other", 1)]), &push::EncodedSet::empty());
    let mut held = push::Held::default();
    held.receive(other.0.full().next().unwrap()).unwrap();
    // What it holds is of no use yet, and kept for it alone.
    let mut first = scene.dial_with("uid-1", held).await;
    first.welcome().await;
    let mut second = scene.dataplane("uid-2").await;
    let status = second.end().await;
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    scene
        .metric(r#"push_streams_ended_total{cause="busy"} 1"#)
        .await;
    scene.publish(1, backends([("a", 1)]));
    assert!(first.update().await[0].base.is_some());
    first.ack().await;
    // Those that hold nothing, or what all hold, keep nobody waiting.
    let held = std::mem::take(&mut first.held);
    let mut again = scene.dial_with("uid-3", held).await;
    again.welcome().await;
    let mut third = scene.dataplane("uid-4").await;
    third.welcome().await;
    third.update().await;
}

#[tokio::test]
async fn one_address_has_room_for_so_many_strangers() {
    let scene = Scene::with(Limits {
        unproven_per_address: 2,
        ..limits()
    });
    let scene = scene.await.lead().await;
    // A dataplane that has proved itself does not count.
    let mut dataplane = scene.dataplane("uid-1").await;
    dataplane.welcome().await;
    let silent = [
        TcpStream::connect(scene.address).await.unwrap(),
        TcpStream::connect(scene.address).await.unwrap(),
    ];
    scene
        .try_channel(&scene.ca, push::SERVER_NAME)
        .await
        .unwrap_err();
    scene.metric(&refused("too_many_connections")).await;
    drop(silent);
    // Soon there is room again.
    enter(&scene).await;
}

/// Dials until the server lets us in.
async fn enter(scene: &Scene) {
    let entered = async {
        while scene
            .try_channel(&scene.ca, push::SERVER_NAME)
            .await
            .is_err()
        {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, entered).await.unwrap();
}

#[tokio::test]
async fn strangers_of_other_addresses_keep_no_dataplane_out() {
    let scene = Scene::with(Limits {
        unproven: 4,
        unproven_per_address: 3,
        ..limits()
    });
    let scene = scene.await.lead().await;
    let mut strangers = Vec::new();
    for last in [2, 2, 2, 3] {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, last], 0).into()).unwrap();
        strangers.push(socket.connect(scene.address).await.unwrap());
    }
    let mut dataplane = scene.dataplane("uid-1").await;
    dataplane.welcome().await;
    scene.metric(&refused("evicted")).await;
    // The oldest of the address that had most.
    let mut byte = [0];
    let ended = timeout(PATIENCE, strangers[0].read(&mut byte)).await;
    let ended = ended.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    // Nobody else had to go, then or for the next one.
    let mut next = scene.dataplane("uid-2").await;
    next.welcome().await;
    assert!(
        scene
            .metrics()
            .lines()
            .any(|line| line == refused("evicted"))
    );
}

#[tokio::test]
async fn who_was_refused_leaves_its_place() {
    let scene = Scene::with(Limits {
        unproven_per_address: 1,
        // Only the end of the connection makes room again.
        proof: Duration::from_hours(1),
        ..limits()
    });
    let scene = scene.await.lead().await;
    let channel = scene.channel().await;
    let call = Dataplane::call(channel.clone(), None).await;
    assert_eq!(call.err().unwrap().code(), Code::Unauthenticated);
    enter(&scene).await;
    drop(channel);
}
