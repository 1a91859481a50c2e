//! A real Kubernetes API server with its etcd, as child processes without root; no node, no pods.
//!
//! A test calls [`cluster::shared`] (one server for all tests of a file) or [`cluster::own`] (one that it may stop), makes
//! itself a namespace, and talks to it by [`kubectl`] as a person would. What needs the product as well takes a
//! [`release::Release`]: its roles, which are the chart's, a controller that never is admin, and dataplanes whose pods are objects only.
//!
//! There is no controller-manager: nobody finishes deleting a namespace, makes EndpointSlices or a default account.
//!
//! | part | what it holds |
//! |---|---|
//! | [`cluster`], [`namespace`] | what a test asks for |
//! | [`server`], [`credentials`] | the two processes; the authority, and who a client is |
//! | [`kubectl`], [`request`] | the two ways to talk to it |
//! | [`release`], [`controller`], [`dataplane`] | the product in that cluster |
//! | [`rights`], [`audit`] | what the controller may do, taken away and given back; what it was refused |
//! | [`installed`] | all of it ready, and what its routes say |
//! | [`site`], [`front`], [`line`](mod@line), [`traffic`], [`serving`] | an installation that serves while something is taken away from it |
//! | [`push`], [`stranger`], [`impostor`], [`token`], [`played`] | both sides of the push, played, and who they say they are |
//! | [`grants`] | the kind of Gateway API |
//! | [`names`] | what programs, chart and tests call the same, in one place |
//! | [`routes`] | the data file of good and bad routes |

pub mod audit;
pub mod cluster;
pub mod controller;
pub mod credentials;
pub mod dataplane;
pub mod front;
pub mod grants;
pub mod impostor;
pub mod installed;
pub mod kubectl;
pub mod line;
pub mod names;
pub mod namespace;
pub mod played;
pub mod push;
pub mod release;
pub mod request;
pub mod rights;
pub mod routes;
pub mod server;
pub mod serving;
pub mod site;
pub mod stranger;
pub mod token;
pub mod traffic;
