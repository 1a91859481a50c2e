//! From a proven 101 to the relay: the client's stream is taken back from hyper, and nothing of HTTP stays in memory with it.

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use route_table::{RouteKey, Timeouts};
use tokio::time::timeout;
use tracing::Instrument as _;

use crate::balance::Place;
use crate::connection::Connection;
use crate::lingering::Lingering;
use crate::relay::{self, Relay};
use crate::run::Shared;
use crate::tls::ServerStream;
use crate::upstream::Upgraded;

/// Starts the relay in a task of its own; the connection's seat and the endpoint's place are held until it has ended.
pub(crate) fn start(
    connection: &Connection,
    upgrading: OnUpgrade,
    upgraded: Upgraded,
    place: Place,
    timeouts: Timeouts,
    key: RouteKey,
) {
    let (shared, seat) = (connection.shared.clone(), connection.seat.clone());
    let relaying = async move {
        let Some((downstream, early)) = take_stream(upgrading, &shared).await else {
            return;
        };
        let limits = &shared.config.limits;
        let (registered, signal) = shared.relays.register(key);
        let ended = relay::run(Relay {
            downstream,
            upstream: upgraded.stream,
            to_upstream: early,
            to_downstream: upgraded.leftover,
            limits: relay::Limits {
                read: timeouts.read,
                send: timeouts.send,
                half_close: limits.half_close,
                close_linger: limits.close_linger,
            },
            frames_are_known: upgraded.agreed.frames_are_known,
            signal,
        })
        .await;
        tracing::debug!(cause = ended.label(), "relay ended");
        shared.metrics.relay_ended(ended);
        registered.end(ended);
        drop((seat, place));
    };
    // The end of a relay is logged under the id of its handshake.
    connection.shared.tasks.spawn(relaying.in_current_span());
}

/// Takes the client's stream back from hyper once the 101 is written, with the bytes that came early.
async fn take_stream(upgrading: OnUpgrade, shared: &Shared) -> Option<(ServerStream, Bytes)> {
    match timeout(shared.config.limits.head, upgrading).await {
        Ok(Ok(upgraded)) => {
            let parts = upgraded.downcast::<TokioIo<Lingering>>().ok()?;
            Some((parts.io.into_inner().into_inner(), parts.read_buf))
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "client left before the 101 was written");
            None
        }
        Err(_) => None,
    }
}
