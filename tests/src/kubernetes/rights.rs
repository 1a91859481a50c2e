//! What the controller of an installation may do: asked of the API server, taken away, given back.

use serde_json::{Value, json};

use super::names::CONTROLLER_ACCOUNT;
use super::release::{Release, Scope};
use super::request::{Api, Patch};
use crate::wait;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// One verb on one resource, from one role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    pub verb: String,
    /// `group/resource`, with `/subresource` where there is one.
    pub what: String,
    /// The only objects that it is for; none if it is for all.
    pub names: Vec<String>,
    /// Where its role is; none if it holds in all namespaces.
    pub namespace: Option<String>,
}

/// A Role or `ClusterRole` of an installation.
pub struct Role {
    path: String,
    rules: Value,
    pub rights: Vec<Right>,
}

/// What the controller of a release asks the API server about itself.
pub struct Account {
    api: Api,
}

impl Account {
    pub async fn of(release: &Release) -> Self {
        let cluster = release.cluster();
        let access = cluster.account(&release.namespace.name, CONTROLLER_ACCOUNT);
        Self {
            api: Api::new(access.await),
        }
    }

    /// `what` is [`Right::what`]; `name` and `namespace` may be empty.
    pub async fn may(&self, verb: &str, what: &str, name: &str, namespace: &str) -> bool {
        let mut parts = what.split('/');
        let mut part = || parts.next().unwrap_or_default();
        let review = json!({ "spec": { "resourceAttributes": {
            "verb": verb,
            "group": part(),
            "resource": part(),
            "subresource": part(),
            "name": name,
            "namespace": namespace,
        } } });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let answer = self.api.create(path, &review).await;
        answer["status"]["allowed"]
            .as_bool()
            .expect("allowed or not")
    }

    /// Waits until it has this right, or has not: the API server follows its own roles a moment later.
    pub(super) async fn comes_to(&self, right: &Right, expected: bool) {
        let what = format!("{right:?} is {expected}");
        let name = right.names.first().map_or("", String::as_str);
        let namespace = right.namespace.as_deref().unwrap_or_default();
        wait::until(&what, async || {
            let may = self.may(&right.verb, &right.what, name, namespace).await;
            (may == expected).then_some(())
        })
        .await;
    }
}

/// All roles of this installation's controller.
pub async fn roles(release: &Release) -> Vec<Role> {
    let own = &release.namespace.name;
    // Its own namespace is its alone; the name of a role elsewhere begins with that of the installation.
    let mut roles = list(release, Some(own), "").await;
    let theirs = format!("{own}-");
    roles.extend(list(release, None, &theirs).await);
    if let Scope::Namespaces(watched) = &release.scope {
        for namespace in watched {
            roles.extend(list(release, Some(namespace), &theirs).await);
        }
    }
    roles
}

async fn list(release: &Release, namespace: Option<&str>, begin: &str) -> Vec<Role> {
    let collection = match namespace {
        Some(namespace) => format!("{RBAC}/namespaces/{namespace}/roles"),
        None => format!("{RBAC}/clusterroles"),
    };
    let (code, list) = release.cluster().api().get(&collection).await;
    assert!(code.is_success(), "GET {collection}: {code} {list}");
    let role = |role: &Value| {
        let name = role["metadata"]["name"].as_str()?;
        name.starts_with(begin).then(|| Role {
            path: format!("{collection}/{name}"),
            rules: role["rules"].clone(),
            rights: rights(&role["rules"], namespace),
        })
    };
    let items = list["items"].as_array().expect("roles");
    items.iter().filter_map(role).collect()
}

/// Every right of these rules, one by one.
fn rights(rules: &Value, namespace: Option<&str>) -> Vec<Right> {
    let texts = |list: &Value| -> Vec<String> {
        let list = list.as_array().into_iter().flatten();
        list.filter_map(|text| Some(text.as_str()?.to_owned()))
            .collect()
    };
    let mut rights = Vec::new();
    for rule in rules.as_array().expect("rules") {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in texts(&rule["verbs"]) {
                    rights.push(Right {
                        verb,
                        what: format!("{group}/{resource}"),
                        names: texts(&rule["resourceNames"]),
                        namespace: namespace.map(ToOwned::to_owned),
                    });
                }
            }
        }
    }
    rights
}

fn rule(right: &Right) -> Value {
    let (group, resource) = right.what.split_once('/').expect("a group and a resource");
    let mut rule = json!({ "apiGroups": [group], "resources": [resource], "verbs": [right.verb] });
    if !right.names.is_empty() {
        rule["resourceNames"] = json!(right.names);
    }
    rule
}

/// What [`give_back`] needs.
#[must_use]
pub struct Taken(Vec<Role>);

/// Takes rights from the controller, at least one, and waits until it does not have them. From here on the API server may
/// refuse it these and no others.
pub async fn take(release: &Release, gone: impl Fn(&Right) -> bool) -> Taken {
    let mut poorer = roles(release).await;
    poorer.retain(|role| role.rights.iter().any(&gone));
    assert!(!poorer.is_empty(), "there is no such right to take");
    let account = Account::of(release).await;
    for role in &poorer {
        let (taken, left): (Vec<_>, Vec<_>) = role.rights.iter().partition(|right| gone(right));
        release.takes(taken.iter().copied().cloned());
        let rules: Vec<_> = left.into_iter().map(rule).collect();
        write(release, role, &Value::Array(rules)).await;
        for right in taken {
            account.comes_to(right, false).await;
        }
    }
    Taken(poorer)
}

/// Gives back what was taken.
pub async fn give_back(release: &Release, taken: Taken) {
    for role in &taken.0 {
        write(release, role, &role.rules).await;
    }
}

async fn write(release: &Release, role: &Role, rules: &Value) {
    let patch = json!({ "rules": rules });
    let api = release.cluster().api();
    let (code, answer) = api.patch(&role.path, Patch::Merge, &patch).await;
    assert!(code.is_success(), "{}: {code} {answer}", role.path);
}
