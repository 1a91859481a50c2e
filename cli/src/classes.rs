//! Routes of other classes -> what a person should know of them. Pure.
//!
//! They are ignored, which in a cluster is what a class is for. On files it is more often a slip, and nothing else would show it:
//! each is told once, and that there is no route of our class at all is a finding.

use std::collections::BTreeSet;

use controller::store::Snapshot;

use crate::quoting::may_quote;

/// The routes that are there and not served.
#[derive(Debug, Default)]
pub(crate) struct Others {
    told: BTreeSet<String>,
}

impl Others {
    /// A line for each that is new, or has another class than before.
    pub(crate) fn update(&mut self, snapshot: &Snapshot, ours: &str) -> Vec<String> {
        let others = snapshot
            .routes()
            .filter(|(_, route)| route.spec.class_name != ours);
        let lines = others.map(|(key, route)| {
            let class = &route.spec.class_name;
            let class = if may_quote(class) {
                class
            } else {
                "(left out)"
            };
            format!("WebSocketRoute {key}: ignored: of class {class}, and {ours} is served")
        });
        let told = std::mem::replace(&mut self.told, lines.collect());
        self.told.difference(&told).cloned().collect()
    }

    /// What is found when no route is of our class.
    pub(crate) fn nothing(&self, ours: &str, files: usize) -> String {
        format!(
            "no WebSocketRoute of class {ours}, so nothing is served (manifest files read: {files}, routes of other classes: {}); check --manifests, spec.className and --class",
            self.told.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use controller::store::{Object, Store, UnlistedSecrets};
    use crds::{WebSocketRoute, WebSocketRouteSpec};

    use super::*;

    fn route(name: &str, class: &str) -> Object {
        let spec = WebSocketRouteSpec {
            class_name: class.to_owned(),
            hostnames: Vec::new(),
            tls: None,
            rules: Vec::new(),
        };
        WebSocketRoute::new(name, spec).into()
    }

    #[test]
    fn a_route_of_another_class_is_told_once() {
        let mut store = Store::new(UnlistedSecrets::Absent);
        let mut others = Others::default();
        store.apply(route("a", "ours"));
        assert!(others.update(&store.snapshot(), "ours").is_empty());
        store.apply(route("b", "nginx"));
        store.apply(route("c", "two\nlines"));
        let lines = [
            "WebSocketRoute default/b: ignored: of class nginx, and ours is served",
            "WebSocketRoute default/c: ignored: of class (left out), and ours is served",
        ];
        assert_eq!(others.update(&store.snapshot(), "ours"), lines);
        assert!(others.update(&store.snapshot(), "ours").is_empty());
        store.apply(route("b", "ours"));
        assert!(others.update(&store.snapshot(), "ours").is_empty());
        store.apply(route("b", "nginx"));
        assert_eq!(others.update(&store.snapshot(), "ours"), lines[..1]);
        assert_eq!(
            others.nothing("ours", 3),
            "no WebSocketRoute of class ours, so nothing is served (manifest files read: 3, routes of other classes: 2); check --manifests, spec.className and --class"
        );
    }
}
