//! One file's text -> objects of the six kinds, or the fields that are wrong.
//!
//! Strict where the API types are lenient: an unknown field is an error here, because nothing else would ever show a misspelt
//! one. Names are those that the API server takes, and what the author did not write is filled in as it would: namespace `default`.
//! Kinds that ws-ingress does not read (a Deployment beside its Service) are ignored and named once.
//!
//! No error about a Secret repeats anything of it but well-known field names: a slip of indentation makes key bytes a field name
//! as easily as a value. An error about another object repeats a value only if it cannot be a key (`quoting`, `problem`).
//!
//! The file's text and the tree of a document are wiped when they are dropped, and `controller` wipes the Secret that comes out.
//! Not wiped are the parser's buffers and the JSON between tree and Secret, which live while the file is decoded.

use std::collections::BTreeSet;

use controller::store::{GRANT_API_VERSION, Object, ReferenceGrant};
use crds::{ExternalBackend, WebSocketRoute};
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::documents::{Document, split};
use super::name::Form;
use super::node::{Content, Node, Step, SyntaxError};
use super::problem::{
    Problem, Quoting, display, ignored_steps, is_well_known, tracked_steps, type_problem,
};
use crate::quoting::{clean, may_be_key, may_quote};

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    /// With the number of the document that each came from.
    pub(super) objects: Vec<(usize, Object)>,
    /// `apiVersion` and `kind` of what is not for us.
    pub(super) ignored: BTreeSet<String>,
}

/// The kinds that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    WebSocketRoute,
    ExternalBackend,
    Secret,
    Service,
    EndpointSlice,
    /// Gateway API's.
    ReferenceGrant,
    /// What `kubectl get -o yaml` wraps several objects in.
    List,
}

/// With every `apiVersion` that is read, and the one to write first.
const KINDS: [(Kind, &[&str], &str); 7] = [
    (
        Kind::WebSocketRoute,
        &["ws-ingress.dev/v1alpha1"],
        "WebSocketRoute",
    ),
    (
        Kind::ExternalBackend,
        &["ws-ingress.dev/v1alpha1"],
        "ExternalBackend",
    ),
    (Kind::Secret, &["v1"], "Secret"),
    (Kind::Service, &["v1"], "Service"),
    (
        Kind::EndpointSlice,
        &["discovery.k8s.io/v1"],
        "EndpointSlice",
    ),
    (
        Kind::ReferenceGrant,
        &[GRANT_API_VERSION, "gateway.networking.k8s.io/v1"],
        "ReferenceGrant",
    ),
    (Kind::List, &["v1"], "List"),
];

/// Decodes every document of a file, or says everything that is wrong with it.
pub(super) fn decode(text: &str) -> Result<Decoded, Vec<Problem>> {
    let quoting = if may_hold_key(text) {
        Quoting::Nothing
    } else {
        Quoting::Harmless
    };
    let mut decoded = Decoded::default();
    let mut problems = Vec::new();
    for document in split(text) {
        match Node::parse(document.text) {
            Ok(root) => {
                let mut reader = Reader {
                    document: &document,
                    quoting,
                    decoded: &mut decoded,
                    problems: &mut problems,
                };
                reader.object(&root, &mut Vec::new());
            }
            Err(error) => problems.push(syntax_problem(&document, &error, quoting)),
        }
    }
    if problems.is_empty() {
        Ok(decoded)
    } else {
        Err(problems)
    }
}

/// Whether any part of the file may be a private key. A document that does not parse may belong to a Secret above it, torn off
/// by a stray `---`, so the whole file is looked at. `LS0t` is `---` in base64, as every PEM block begins.
fn may_hold_key(text: &str) -> bool {
    ["Secret", "secret", "PRIVATE", "tls.key", "LS0t"]
        .iter()
        .any(|sign| text.contains(sign))
}

fn syntax_problem(document: &Document<'_>, error: &SyntaxError, quoting: Quoting) -> Problem {
    let what = if quoting == Quoting::Nothing || may_be_key(&error.message) {
        "not valid YAML (the reason is left out, because the file may hold a private key)"
            .to_owned()
    } else {
        clean(&error.message)
    };
    Problem {
        document: document.number,
        line: error.line.map(|line| document.first_line + line - 1),
        field: String::new(),
        what,
        mend: "mend the YAML at or shortly before this line".to_owned(),
    }
}

/// Reads one document; a `List` makes it go deeper.
struct Reader<'a> {
    document: &'a Document<'a>,
    quoting: Quoting,
    decoded: &'a mut Decoded,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    /// `node` is the document, or one entry of a list at `path`.
    fn object(&mut self, node: &Node, path: &mut Vec<Step>) {
        if !matches!(node.content, Content::Map(_)) {
            self.problem(
                node,
                path,
                "not a Kubernetes object",
                "begin it with apiVersion and kind",
            );
            return;
        }
        let mut missing = false;
        for field in ["apiVersion", "kind"] {
            if node.get(field).and_then(Node::text).is_none() {
                missing = true;
                path.push(Step::Key(field.to_owned()));
                self.problem(
                    node,
                    path,
                    "missing, or not text",
                    &format!("write {field}; {}", supported()),
                );
                path.pop();
            }
        }
        if missing {
            return;
        }
        let (Some(version), Some(kind)) = (
            node.get("apiVersion").and_then(Node::text),
            node.get("kind").and_then(Node::text),
        ) else {
            return;
        };
        match kind_of(version, kind) {
            Ok(Some(Kind::List)) => self.list(node, path),
            Ok(Some(kind)) => self.known(kind, node, path),
            Ok(None) => {
                self.decoded
                    .ignored
                    .insert(format!("{} {}", word(version), word(kind)));
            }
            Err((what, mend)) => self.problem(node, path, &what, &mend),
        }
    }

    fn list(&mut self, node: &Node, path: &mut Vec<Step>) {
        let Some(Content::List(items)) = node.get("items").map(|items| &items.content) else {
            self.problem(
                node,
                path,
                "a List without items",
                "write items, or the objects one a document",
            );
            return;
        };
        for (index, item) in items.iter().enumerate() {
            path.extend([Step::Key("items".to_owned()), Step::Index(index)]);
            self.object(item, path);
            path.truncate(path.len() - 2);
        }
    }

    fn known(&mut self, kind: Kind, node: &Node, path: &[Step]) {
        if !self.is_named(kind, node, path) {
            return;
        }
        let object = match kind {
            Kind::WebSocketRoute => self
                .typed::<WebSocketRoute>(kind, node, path)
                .map(Object::from),
            Kind::ExternalBackend => self
                .typed::<ExternalBackend>(kind, node, path)
                .map(Object::from),
            Kind::Service => self.typed::<Service>(kind, node, path).map(Object::from),
            Kind::EndpointSlice => self
                .typed::<EndpointSlice>(kind, node, path)
                .map(Object::from),
            Kind::Secret => self.typed::<Secret>(kind, node, path).map(Object::from),
            Kind::ReferenceGrant => self
                .typed::<ReferenceGrant>(kind, node, path)
                .map(Object::from),
            Kind::List => None,
        };
        self.decoded
            .objects
            .extend(object.map(|object| (self.document.number, object)));
    }

    /// Whether the object has a name, and it and the namespace are such as the API server takes.
    fn is_named(&mut self, kind: Kind, node: &Node, path: &[Step]) -> bool {
        let text = |key| node.get("metadata")?.get(key)?.text();
        let form = match kind {
            Kind::Service | Kind::ExternalBackend => Form::Label,
            Kind::WebSocketRoute
            | Kind::Secret
            | Kind::EndpointSlice
            | Kind::ReferenceGrant
            | Kind::List => Form::Subdomain,
        };
        let wrong = match (text("name"), text("namespace")) {
            (None | Some(""), _) => ("name", "missing, or not text", "give the object a name"),
            (Some(name), _) if !form.fits(name) => ("name", "not a name of an object", form.mend()),
            // An empty one is `default`; what is not text is told with the other types.
            (_, Some(namespace)) if !namespace.is_empty() && !Form::Label.fits(namespace) => {
                let mend = Form::Label.mend();
                ("namespace", "not a name of a namespace", mend)
            }
            _ => return true,
        };
        let (key, what, mend) = wrong;
        let steps = ["metadata", key].map(|key| Step::Key(key.to_owned()));
        let at = node.nearest(&steps);
        self.problem(at, &[path, &steps].concat(), what, mend);
        false
    }

    fn typed<T: DeserializeOwned>(&mut self, kind: Kind, node: &Node, path: &[Step]) -> Option<T> {
        let mut json = node.to_json();
        default_namespace(&mut json);
        let mut track = serde_path_to_error::Track::new();
        let deserializer = serde_path_to_error::Deserializer::new(json, &mut track);
        let mut unknown = Vec::new();
        let result =
            serde_ignored::deserialize(deserializer, |path| unknown.push(ignored_steps(&path)));
        // A field that the type does not know is all but always what makes another one missing: both are said.
        for steps in unknown {
            // Read above; a custom resource's type has no field for them.
            if matches!(&steps[..], [Step::Key(key)] if key == "apiVersion" || key == "kind") {
                continue;
            }
            let what = format!("a {} has no such field", name(kind));
            self.field_problem(
                kind,
                node,
                path,
                &steps,
                &what,
                "mend its spelling or its indentation, or remove it",
            );
        }
        match result {
            Ok(object) => Some(object),
            Err(error) => {
                let error: serde_json::Error = error;
                let steps = tracked_steps(&track.path());
                let found = node.nearest(&steps);
                let (what, mend) = type_problem(&error.to_string(), &steps, found, self.quoting);
                self.field_problem(kind, node, path, &steps, &what, mend);
                None
            }
        }
    }

    /// A problem with a field of an object of a known kind; a Secret's says nothing that is the author's.
    fn field_problem(
        &mut self,
        kind: Kind,
        object: &Node,
        path: &[Step],
        steps: &[Step],
        what: &str,
        mend: &str,
    ) {
        let at = object.nearest(steps);
        let secret = kind == Kind::Secret;
        let (steps, what, mend) = if secret {
            let known = steps.iter().take_while(|step| is_well_known(step)).count();
            let what = "an unknown field, or a value of the wrong type (left out, because this is a Secret)";
            (
                &steps[..known],
                what,
                "data holds base64, stringData holds text; check the indentation",
            )
        } else {
            (steps, what, mend)
        };
        let path: Vec<Step> = path.iter().chain(steps).cloned().collect();
        self.problem(at, &path, what, mend);
    }

    fn problem(&mut self, at: &Node, path: &[Step], what: &str, mend: &str) {
        self.problems.push(Problem {
            document: self.document.number,
            line: Some(self.document.first_line + at.line - 1),
            field: clean(&display(path)),
            what: clean(what),
            mend: mend.to_owned(),
        });
    }
}

fn name(kind: Kind) -> &'static str {
    KINDS
        .iter()
        .find(|(known, ..)| *known == kind)
        .map_or("", |(.., name)| name)
}

fn supported() -> String {
    let kinds = KINDS.iter().filter(|(kind, ..)| *kind != Kind::List);
    let kinds: Vec<_> = kinds
        .map(|(_, versions, kind)| format!("{kind} ({})", versions[0]))
        .collect();
    format!("what is read: {}", kinds.join(", "))
}

/// A version or a kind, which may be anything.
fn word(text: &str) -> &str {
    if may_quote(text) { text } else { "(left out)" }
}

/// `Ok(None)` for a kind of somebody else; an error for what was meant to be one of ours.
fn kind_of(version: &str, kind: &str) -> Result<Option<Kind>, (String, String)> {
    let group = |version: &str| {
        version
            .split_once('/')
            .map(|(group, _)| group.to_owned())
            .unwrap_or_default()
    };
    for (known, versions, known_kind) in KINDS {
        if versions.contains(&version) && kind == known_kind {
            return Ok(Some(known));
        }
    }
    for (known, versions, known_kind) in KINDS {
        let known_version = versions[0];
        let same_kind = kind.eq_ignore_ascii_case(known_kind);
        // Nobody else has a WebSocketRoute; a Service of another group (Knative's) is somebody else's.
        let ours =
            same_kind && (group(version) == group(known_version) || known == Kind::WebSocketRoute);
        if ours || (group(version) == crds::GROUP && known == Kind::WebSocketRoute) {
            let what = format!("unknown kind {} of {}", word(kind), word(version));
            return Err((
                what,
                format!("write apiVersion: {known_version} and kind: {known_kind}"),
            ));
        }
    }
    Ok(None)
}

/// What the API server does when an object is written.
fn default_namespace(object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    let namespace = metadata.entry("namespace").or_insert(Value::Null);
    if namespace.is_null() || namespace.as_str() == Some("") {
        *namespace = Value::from("default");
    }
}

#[cfg(test)]
mod keys;
#[cfg(test)]
mod tests;
