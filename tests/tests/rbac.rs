//! The roles of the chart are the least that works: without any one right of theirs, one verb on one resource, the
//! controller is refused just that, and says what does not work. That they are enough is looked at whenever a
//! [`Release`] ends, in every test.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};
use serde_json::json;
use tests::certificate::Authority;
use tests::kubernetes::audit::Refusal;
use tests::kubernetes::cluster::Cluster;
use tests::kubernetes::controller::Controller;
use tests::kubernetes::dataplane::Dataplane;
use tests::kubernetes::grants::{self, GRANTS};
use tests::kubernetes::installed::{ROUTES, cluster};
use tests::kubernetes::names::{AUTHORITY_CONFIG_MAP, AUTHORITY_KEY};
use tests::kubernetes::namespace::Namespace;
use tests::kubernetes::release::{Release, Scope};
use tests::kubernetes::rights::{Right, roles, take};
use tests::kubernetes::site::RECOVERY;
use tests::scene::{HOST, SECRET, SERVICE};
use tests::wait;
use tokio::sync::Semaphore;

/// Installations that are tried at a time, by all tests here together: each mostly waits.
const AT_A_TIME: usize = 8;
static TURNS: Semaphore = Semaphore::const_new(AT_A_TIME);

const SLICES: &str = "discovery.k8s.io/endpointslices";
const EVENTS: &str = "events.k8s.io/events";
const REVIEWS: &str = "authentication.k8s.io/tokenreviews";

/// What shows that a right of the roles in the namespace of the installation is missing: verb, resource, where it shows, and
/// in which words.
const OWN: &str = "
create coordination.k8s.io/leases /readyz warning: Lease: 403
get coordination.k8s.io/leases /readyz warning: Lease: 403
update coordination.k8s.io/leases /readyz warning: Lease: 403
create /secrets log writing the CA failed: 403
get /secrets log reading the Secret of the CA failed: 403
update /secrets log writing the CA failed: 403
create /configmaps log writing the CA failed: 403
get /configmaps log reading the ConfigMap of the CA failed: 403
update /configmaps log writing the CA failed: 403
list /services /readyz warning: Service of the dataplane: unknown
watch /services /readyz warning: Service of the dataplane: stale
list discovery.k8s.io/endpointslices /readyz warning: EndpointSlice of the dataplane: unknown
watch discovery.k8s.io/endpointslices /readyz warning: EndpointSlice of the dataplane: stale
create events.k8s.io/events log events cannot be written
";

/// The same of the others, for a watched namespace or the whole cluster. `{in}` names the namespace where there is one.
const WATCH: &str = "
create authentication.k8s.io/tokenreviews log tokens cannot be reviewed, dataplanes cannot connect
list rbac.authorization.k8s.io/clusterroles log whether another installation serves this class cannot be seen
list ws-ingress.dev/websocketroutes /readyz WebSocketRoute{in}: not listed yet: 403
watch ws-ingress.dev/websocketroutes /readyz warning: WebSocketRoute{in}: stale
list ws-ingress.dev/externalbackends /readyz ExternalBackend{in}: not listed yet: 403
watch ws-ingress.dev/externalbackends /readyz warning: ExternalBackend{in}: stale
patch ws-ingress.dev/websocketroutes/status /readyz warning: statuses: 403
list /services /readyz Service{in}: not listed yet: 403
watch /services /readyz warning: Service{in}: stale
list discovery.k8s.io/endpointslices /readyz EndpointSlice{in}: not listed yet: 403
watch discovery.k8s.io/endpointslices /readyz warning: EndpointSlice{in}: stale
get /secrets log cannot be read; what is known of it stays
list /secrets /readyz Secret{in}: not listed yet: 403
watch /secrets /readyz warning: Secret{in}: stale
list gateway.networking.k8s.io/referencegrants /readyz ReferenceGrant{in}: not listed yet: 403
watch gateway.networking.k8s.io/referencegrants /readyz warning: ReferenceGrant{in}: stale
create events.k8s.io/events log events cannot be written
";

/// What the controller watches: each has roles of its own.
#[derive(Clone, Copy)]
enum Watch {
    Cluster,
    Namespace,
}

/// An installation with a route, a certificate and whatever makes its controller need the right in question.
struct Scene {
    release: Release,
    /// Where the route is.
    namespace: Namespace,
}

impl Scene {
    async fn install(cluster: &Arc<Cluster>, watch: Watch) -> Self {
        let namespace = cluster.namespace().await;
        let scope = match watch {
            Watch::Cluster => Scope::Cluster,
            Watch::Namespace => Scope::Namespaces(vec![namespace.name.clone()]),
        };
        let release = Release::install(cluster, scope).await;
        Self { release, namespace }
    }

    /// A certificate, and a route that needs it.
    async fn fill(&self) {
        let issued = Authority::new().issue(&[HOST]);
        let secret = json!({
            "metadata": { "name": SECRET },
            "type": "kubernetes.io/tls",
            "stringData": { "tls.crt": issued.chain_pem, "tls.key": issued.key_pem },
        });
        let route = json!({
            "apiVersion": "ws-ingress.dev/v1alpha1",
            "kind": "WebSocketRoute",
            "metadata": { "name": "chat" },
            "spec": {
                "className": self.release.class(),
                "hostnames": [HOST],
                "tls": { "certificateRefs": [{ "name": SECRET }] },
                "rules": [{ "backendRefs": [{ "name": SERVICE, "port": 80 }] }],
            },
        });
        self.create(&self.namespace, "v1/secrets", &secret).await;
        self.create(&self.namespace, ROUTES, &route).await;
    }

    async fn create(&self, namespace: &Namespace, kind: &str, object: &serde_json::Value) {
        let api = namespace.cluster.api();
        api.create(&namespace.collection(kind), object).await;
    }

    /// What is only asked for when something else is wrong already. Returns what else to take.
    async fn provoke(&self, right: &Right) -> Option<&'static str> {
        let own = &self.release.namespace;
        match (&*right.verb, &*right.what) {
            ("update", "/secrets") => {
                let damaged = json!({ "metadata": { "name": "ws-ingress-push" } });
                self.create(own, "v1/secrets", &damaged).await;
            }
            ("update", "/configmaps") => {
                let former = json!({
                    "metadata": { "name": AUTHORITY_CONFIG_MAP },
                    "data": { AUTHORITY_KEY: "of a former installation" },
                });
                self.create(own, "v1/configmaps", &former).await;
            }
            // An event about the installation.
            ("create", EVENTS) if self.is_own(right) => return Some(SLICES),
            // One about an object.
            ("create", EVENTS) => {
                let undecodable = json!({
                    "apiVersion": "gateway.networking.k8s.io/v1beta1",
                    "kind": "ReferenceGrant",
                    "metadata": { "name": "undecodable" },
                    "spec": "none",
                });
                self.create(&self.namespace, GRANTS, &undecodable).await;
            }
            _ => {}
        }
        None
    }

    /// Whether this right is for the namespace of the installation.
    fn is_own(&self, right: &Right) -> bool {
        right.namespace.as_deref() == Some(&self.release.namespace.name)
    }

    /// Runs a controller without this right until it says so.
    async fn lacks(&self, right: &Right) {
        let also = self.provoke(right).await;
        let _taken = take(&self.release, |other| {
            let is_also = Some(&*other.what) == also && other.verb == "watch";
            other == right || (is_also && !self.is_own(other))
        })
        .await;
        let table = if self.is_own(right) { OWN } else { WATCH };
        let begin = format!("{} {} ", right.verb, right.what);
        let found = table.lines().find_map(|line| line.strip_prefix(&begin));
        assert!(found.is_some(), "nothing is known to need {right:?}");
        let symptom = found.and_then(|symptom| symptom.split_once(' '));
        let (shown, words) = symptom.expect("where, and words");
        let place = match &right.namespace {
            Some(namespace) => format!(" in namespace {namespace}"),
            None => String::new(),
        };
        let words = words.replace("{in}", &place);
        let refused = format!("cannot {} resource", right.verb);
        let tells = |line: &&str| line.contains(&words) && line.contains(&refused);

        let controller = Controller::start(&self.release, "controller-0", &[]).await;
        // Only a dataplane makes the controller ask who that is.
        let _dataplane = match &*right.what {
            REVIEWS => Some(Dataplane::start(&self.release, "dataplane-0", controller.push).await),
            _ => None,
        };
        let wanted = format!("without {begin}: {words:?} and {refused:?}");
        wait::until_limit(&wanted, RECOVERY, async || {
            let told = match shown {
                "log" => controller.log().all().join("\n"),
                _ => controller.readiness().await?.1,
            };
            told.lines().find(tells).map(drop)
        })
        .await;
        let refusals = self.release.refusals();
        let is_it = |refusal: &Refusal| refusal.verb == right.verb && refusal.what == right.what;
        assert!(refusals.iter().any(is_it), "{refusals:?}");
    }
}

/// Tries every right of one sort of installation.
async fn each_right_is_needed(watch: Watch) {
    let Some(cluster) = cluster().await else {
        return;
    };
    grants::define(&cluster).await;
    let every = roles(&Scene::install(&cluster, watch).await.release).await;
    let count = every.iter().map(|role| role.rights.len()).sum::<usize>();
    assert!(count > 20, "{count} rights");
    // Each in an installation of its own, which has its rights in the same order.
    stream::iter(0..count)
        .map(async |number| {
            let _turn = TURNS.acquire().await.expect("nobody closes it");
            let scene = Scene::install(&cluster, watch).await;
            scene.fill().await;
            let roles = roles(&scene.release).await;
            let mut rights = roles.iter().flat_map(|role| &role.rights);
            scene
                .lacks(rights.nth(number).expect("the same rights"))
                .await;
        })
        .buffer_unordered(AT_A_TIME)
        .for_each(async |()| ())
        .await;
}

#[tokio::test]
async fn a_controller_of_the_whole_cluster_needs_each_of_its_rights() {
    each_right_is_needed(Watch::Cluster).await;
}

#[tokio::test]
async fn a_controller_of_some_namespaces_needs_each_of_its_rights() {
    each_right_is_needed(Watch::Namespace).await;
}
