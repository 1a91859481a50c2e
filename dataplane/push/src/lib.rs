//! The push: the protocol between the controller that holds the Lease and every dataplane.
//!
//! One stream, dialled by the dataplane: Hello, Welcome, then updates, each answered by an Ack or a Nack. The sender turns
//! `Resources` into an [`EncodedSet`] and, for each dataplane, into the updates that lead from what it holds to that set
//! (`encode`, `delta`). The receiver applies updates to what it [`Held`], whole or not at all, and gets `Resources` for
//! `RouteTable::build` (`apply`, `decode`). Both sides name a set by digests over the bytes as sent (`digest`), and the [`Fence`]
//! says whose word is newer. No sockets, no time, no Kubernetes: the server is in `controller`, the client in `dataplane`.
//!
//! Private keys leave through `encode` alone. Encoded bodies with keys are wiped when dropped, but what gRPC, HTTP/2 and TLS
//! copy into their own buffers on the way cannot be.

mod apply;
mod closed;
mod decode;
mod delta;
mod digest;
mod encode;
mod fence;
mod filters;
mod fit;
mod greeting;
mod key;
mod matches;
mod redact;
#[cfg(test)]
mod samples;
mod updates;
mod verdict;

pub use apply::{Applied, Held, Progress, Refused};
pub use delta::{EncodedSet, LeftOut, OverLimit, SetLimits};
pub use digest::{Digest, Digests, Version};
pub use fence::{Fence, FenceVerdict};
pub use greeting::{BadHello, Greeting};
pub use key::parse_key;
pub use updates::Updates;
pub use verdict::{BadAnswer, Verdict, ack, nack};

use tonic::transport::Channel;

/// The messages as they travel, generated from `proto/push.proto`.
pub mod wire {
    #![allow(
        clippy::all,
        clippy::pedantic,
        clippy::allow_attributes_without_reason,
        unused_qualifications,
        unreachable_pub,
        reason = "generated code"
    )]
    tonic::include_proto!("ws_ingress.push.v1");
}

/// The version of the protocol is the name of its package: another one is another service, and both can be offered.
pub const PROTOCOL: &str = wire::push_server::SERVICE_NAME;

/// The name in the controller's server certificate, whatever address it is dialled by: the CA is the controller's own, and signs
/// nothing else.
pub const SERVER_NAME: &str = "controller.ws-ingress.internal";

/// The audience of the `ServiceAccount` token that a dataplane shows; a token for the API server is worth nothing here.
pub const TOKEN_AUDIENCE: &str = "ws-ingress-controller";

/// The message of the UNAVAILABLE with which every controller but the Lease holder answers.
pub const NOT_THE_LEADER: &str = "not the leader";

/// What this build enforces beyond the first version of the protocol, for `Hello.features` and `Resource.requires`.
///
/// A feature stands for a field whose absence would admit more than was asked. Its name says what a dataplane that never heard
/// of it must close: `route/...` answers the route with 503, anything else refuses the handshakes of its hostnames.
pub const FEATURES: &[&str] = &[
    matches::HEADERS,
    matches::QUERY_PARAMS,
    matches::SUBPROTOCOLS,
    ALLOWED_ORIGINS,
    FILTERS,
    PROXY_PROTOCOL,
];

/// Origins that a rule takes requests from.
pub(crate) const ALLOWED_ORIGINS: &str = "route/allowed-origins";

/// What a rule changes of requests and answers: an unchanged path or field may open more at a backend than was meant.
pub(crate) const FILTERS: &str = "route/filters";

/// What connections to a backend begin with: one that takes them without a PROXY header too would judge every client by the proxy's own
/// address, which it may trust.
pub(crate) const PROXY_PROTOCOL: &str = "route/proxy-protocol";

/// Most bytes of one message, both ways; gRPC's usual limit. A Hello of 40,000 digests fits.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// Bytes of resources after which the sender begins another part: what one stream buffers, far below [`MAX_MESSAGE_BYTES`]. One
/// resource that is larger is a part of its own.
pub const PART_BYTES: usize = 1 << 20;

/// Most bytes of one body: what etcd takes of one object, 1.5 MiB, so that no route that the API server holds is too large. 10,000
/// endpoints are under 300 KB here.
pub const MAX_BODY_BYTES: usize = 3 << 19;

/// The body of a resource that is too large to be sent. Nothing can be read from it (it is a tag that protobuf does not have), and
/// so it does what an unreadable body does: whoever has an accepted form of the resource serves that on.
pub const HOLD_BODY: &[u8] = b"\xff";

/// Most resources of a set: 20,000 routes, each with its own Service and certificate.
pub const MAX_RESOURCES: usize = 60_000;

/// Most bytes of a set: [`MAX_RESOURCES`] of 4 KB, a certificate chain with its key.
pub const MAX_SET_BYTES: usize = 256 << 20;

/// Most bytes of a key: its longest has two DNS names of 253 bytes, the kind and the port.
pub const MAX_KEY_BYTES: usize = 600;

/// Most features that one resource requires; a route uses each at most once, and there are not that many fields.
pub const MAX_REQUIRES: usize = 64;

/// Most bytes of a feature's name, a pod's name, a build or a Lease uid; what people read.
pub const MAX_TEXT_BYTES: usize = 256;

/// Most bytes of a reason in an answer; it ends up in a condition's message beside others.
pub const MAX_REASON_BYTES: usize = 512;

/// A client with the limits of this protocol.
pub fn client(channel: Channel) -> wire::push_client::PushClient<Channel> {
    wire::push_client::PushClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// A server with the limits of this protocol.
pub fn server<S: wire::push_server::Push>(service: S) -> wire::push_server::PushServer<S> {
    wire::push_server::PushServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// A peer's text, fit for a log or a condition: at most `max` bytes, control characters replaced.
fn clean(text: &str, max: usize) -> String {
    let mut cleaned = String::new();
    for c in text.chars() {
        if cleaned.len() + c.len_utf8() > max {
            break;
        }
        cleaned.push(if c.is_control() { ' ' } else { c });
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_is_the_service_of_the_package() {
        assert_eq!(PROTOCOL, "ws_ingress.push.v1.Push");
    }

    #[test]
    fn peers_text_is_bounded_and_has_no_control_characters() {
        assert_eq!(clean("a\nb\u{1b}[31m", 64), "a b [31m");
        assert_eq!(clean("ééé", 5), "éé");
    }
}
