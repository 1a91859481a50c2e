//! What of an update is on its way to a dataplane takes room as long as its bytes are in memory.
//!
//! HTTP/2 takes a whole part, asks for the next one, and only then waits for its peer. So neither that question nor an answer says
//! that the bytes before are gone. The room of a part therefore goes with its bytes, and is given back where they are dropped: when
//! the last of them went to the socket, or with the stream.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use tonic::body::Body;

use super::turns::Room;

/// The rooms of messages that were asked for, on their way to the frame that carries them. Travels in the extensions of the response.
#[derive(Debug, Clone, Default)]
pub(super) struct Flight(Arc<Mutex<Vec<Room>>>);

/// A frame with the rooms that it takes.
struct Laden {
    bytes: Bytes,
    _rooms: Vec<Room>,
}

impl AsRef<[u8]> for Laden {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Flight {
    /// The next frame carries a message that takes this room.
    pub(super) fn add(&self, room: Room) {
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.push(room);
    }

    fn load(&self, bytes: Bytes) -> Bytes {
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rooms = mem::take(&mut *rooms);
        if rooms.is_empty() {
            return bytes;
        }
        Bytes::from_owner(Laden {
            bytes,
            _rooms: rooms,
        })
    }
}

/// The response, with rooms in its frames if it is one that has some.
pub(super) fn laden(mut response: http::Response<Body>) -> http::Response<Body> {
    let Some(flight) = response.extensions_mut().remove::<Flight>() else {
        return response;
    };
    response.map(|body| {
        Body::new(body.map_frame(move |frame| frame.map_data(|bytes| flight.load(bytes))))
    })
}
