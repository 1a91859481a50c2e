use crds::WebSocketRouteStatus;
use route_table::Resources;

use super::*;
use crate::compile::RouteStatus;
use crate::output::Report;

fn key(name: &str) -> RouteKey {
    RouteKey {
        namespace: "default".into(),
        name: name.into(),
    }
}

fn output(names: &[&str], generation: i64) -> Output {
    let report = Report {
        uid: "u".into(),
        status: RouteStatus {
            observed_generation: Some(generation),
            conditions: Vec::new(),
            claims: Vec::new(),
            findings: Vec::new(),
        },
    };
    let statuses = names.iter().map(|name| (key(name), report.clone()));
    Output {
        sequence: 1,
        resources: Arc::new(Resources::default()),
        statuses: Arc::new(statuses.collect()),
    }
}

fn observed(uid: &str, version: u64) -> Observed {
    Observed {
        uid: uid.into(),
        version,
        status: WebSocketRouteStatus::default(),
    }
}

fn compare(plan: &mut Plan, output: &Output, observed: &[(&str, Observed)]) -> Vec<String> {
    let observed = observed
        .iter()
        .map(|(name, observed)| (key(name), Arc::new(observed.clone())));
    plan.compare(
        output,
        &Deliveries::new(),
        &Fleet::default(),
        &observed.collect(),
    );
    plan.pending.keys().map(ToString::to_string).collect()
}

/// Writes everything that waits; the routes have `version` afterwards.
fn write_all(plan: &mut Plan, version: u64) -> Vec<String> {
    let mut written = Vec::new();
    while let Some((key, desired)) = plan.next() {
        written.push(key.name.to_string());
        plan.sent.insert(key, (desired, version));
    }
    written
}

#[test]
fn everything_is_written_once_in_a_term() {
    let mut plan = Plan::default();
    let both = [("a", observed("u", 1)), ("b", observed("u", 1))];
    let output = output(&["a", "b"], 1);
    assert_eq!(
        compare(&mut plan, &output, &both),
        ["default/a", "default/b"]
    );
    assert_eq!(write_all(&mut plan, 2), ["a", "b"]);
    assert!(compare(&mut plan, &output, &both).is_empty());
    let mut next_term = Plan::default();
    assert_eq!(compare(&mut next_term, &output, &both).len(), 2);
}

#[test]
fn what_changed_is_written_again() {
    let mut plan = Plan::default();
    let both = [("a", observed("u", 1)), ("b", observed("u", 1))];
    compare(&mut plan, &output(&["a", "b"], 1), &both);
    write_all(&mut plan, 2);
    assert_eq!(compare(&mut plan, &output(&["a", "b"], 2), &both).len(), 2);
}

#[test]
fn what_others_changed_of_ours_is_written_again_once() {
    let mut plan = Plan::default();
    let output = output(&["a"], 1);
    compare(&mut plan, &output, &[("a", observed("u", 1))]);
    write_all(&mut plan, 2);
    let later = [("a", observed("u", 3))];
    assert_eq!(compare(&mut plan, &output, &later), ["default/a"]);
    write_all(&mut plan, 4);
    assert!(compare(&mut plan, &output, &later).is_empty());
}

#[test]
fn another_route_of_the_name_is_left_alone() {
    let mut plan = Plan::default();
    let output = output(&["a", "b"], 1);
    assert!(compare(&mut plan, &output, &[("a", observed("other", 1))]).is_empty());
}

#[test]
fn every_route_gets_its_turn() {
    let mut plan = Plan::default();
    let all = ["a", "b", "c"].map(|name| (name, observed("u", 1)));
    let output = output(&["a", "b", "c"], 1);
    let mut turns = Vec::new();
    for _ in 0..4 {
        // Everything changes before every write.
        plan.sent.clear();
        compare(&mut plan, &output, &all);
        turns.extend(plan.next().map(|(key, _)| key.name.to_string()));
    }
    assert_eq!(turns, ["a", "b", "c", "a"]);
}
