//! A call: leader? token? then a session of its own.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, ready};

use futures_util::stream::poll_fn;
use futures_util::{Stream, StreamExt};
use push::wire::push_server::Push;
use push::wire::{FromController, FromDataplane};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use super::Shared;
use super::connection::Progress;
use super::ended::Ended;
use super::flight::Flight;
use super::gate::Admission;
use super::limits::PARTS_AHEAD;
use super::refusal::Refusal;
use super::session::{Session, leads};
use super::turns::Room;
use crate::leader::Leadership;

/// The calls of one connection.
pub(super) struct Calls {
    pub(super) shared: Arc<Shared>,
    pub(super) peer: IpAddr,
    /// Taken by the stream.
    pub(super) admission: Mutex<Option<Admission>>,
    pub(super) progress: Arc<Progress>,
}

/// What a stream sends.
type Message = Result<FromController, Status>;

/// A message on its way to HTTP/2.
pub(super) struct Outgoing {
    pub(super) message: Message,
    /// What it takes of the memory, until its bytes are dropped.
    pub(super) room: Option<Room>,
}

#[tonic::async_trait]
impl Push for Calls {
    type ConnectStream = Pin<Box<dyn Stream<Item = Message> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<FromDataplane>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        self.progress.called.cancel();
        let begun = self.begin(request).await;
        if begun.is_err() && !self.progress.proven.is_cancelled() {
            // Who was refused has nothing more to say here, and others need the room.
            self.progress.over.cancel();
        }
        begun.map_err(|refusal| {
            self.shared.metrics.refused(&refusal);
            tracing::debug!(peer = %self.peer, reason = %refusal, "a call to the push server was refused");
            refusal.status()
        })
    }
}

impl Calls {
    /// Whether this replica leads comes first: dataplanes ask all replicas, and one review is enough.
    async fn begin(
        &self,
        request: Request<Streaming<FromDataplane>>,
    ) -> Result<Response<<Self as Push>::ConnectStream>, Refusal> {
        let shared = &self.shared;
        let fence = match shared.standing.now() {
            Leadership::Follower => return Err(Refusal::NotLeader),
            Leadership::Leader(fence) => fence,
        };
        let (metadata, _, inbound) = request.into_parts();
        let pod = shared.tokens.prove(&metadata, self.peer).await?;
        if !shared.arrivals.admit(&pod.uid) {
            return Err(Refusal::TooManyStreams);
        }
        let mut admission = self
            .admission
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut admission = admission.take().ok_or(Refusal::SecondStream)?;
        if !admission.prove() {
            return Err(Refusal::Evicted);
        }
        self.progress.proven.cancel();

        let (outbound, mut messages) = mpsc::channel(PARTS_AHEAD);
        let standing = shared.standing.clone();
        let term = fence.clone();
        let session = Session {
            shared: shared.clone(),
            pod,
            fence,
            inbound,
            outbound,
        };
        let over = self.progress.over.clone();
        shared.tasks.spawn(async move {
            let _over = over.drop_guard();
            let _admission = admission;
            session.run().await;
        });
        let flight = Flight::default();
        let carries = flight.clone();
        let messages = poll_fn(move |context| {
            let next = ready!(messages.poll_recv(context));
            Poll::Ready(next.map(|Outgoing { message, room }| {
                if let Some(room) = room {
                    carries.add(room);
                }
                message
            }))
        });
        // Asked again when HTTP/2 takes the message: one that waited while leadership was lost is not sent.
        let messages = messages.map(move |message| {
            if message.is_ok() && !leads(&standing, &term) {
                return Err(Ended::LeadershipLost.status());
            }
            message
        });
        let messages: <Self as Push>::ConnectStream = Box::pin(messages);
        let mut response = Response::new(messages);
        response.extensions_mut().insert(flight);
        Ok(response)
    }
}
