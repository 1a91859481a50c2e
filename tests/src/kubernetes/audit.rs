//! What the API server refused to accounts: its own record of every request that a `ServiceAccount` made.
//!
//! A controller with the rights of the chart is never refused anything; [`super::release::Release`] looks when a
//! test ends.

use serde_json::Value;

use super::server::Server;

/// Who asked for what, and the answer's code; no bodies. Only accounts are controllers.
pub(super) const POLICY: &str = r#"apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: Metadata
  userGroups: ["system:serviceaccounts"]
- level: None
"#;

/// A request that was answered with 403.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub verb: String,
    /// `group/resource`, with `/subresource` where there is one.
    pub what: String,
    /// Namespace and name, where there are such.
    pub place: String,
}

/// All that this account was refused so far.
pub(super) fn refusals(server: &Server, namespace: &str, account: &str) -> Vec<Refusal> {
    let user = format!("system:serviceaccount:{namespace}:{account}");
    let log = server.audit_log();
    let refused = log.lines().filter(|line| line.contains(&user));
    let refused = refused.filter_map(|line| refusal(line, &user));
    refused.collect()
}

fn refusal(line: &str, user: &str) -> Option<Refusal> {
    // The last line may not be complete yet.
    let event: Value = serde_json::from_str(line).ok()?;
    if event["responseStatus"]["code"] != 403 || event["user"]["username"] != user {
        return None;
    }
    let object = &event["objectRef"];
    let part = |name: &str| object[name].as_str().unwrap_or_default();
    let mut what = format!("{}/{}", part("apiGroup"), part("resource"));
    if let Some(subresource) = object["subresource"].as_str() {
        what = format!("{what}/{subresource}");
    }
    Some(Refusal {
        verb: event["verb"].as_str().unwrap_or_default().to_owned(),
        what,
        place: format!("{}/{}", part("namespace"), part("name")),
    })
}
