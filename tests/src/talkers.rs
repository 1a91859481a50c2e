//! Sockets that talk all the while something is changed around them, and must not notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Dial, WebSocket};
use crate::wait::{self, within};

/// Messages in flight, so that a change also falls between messages that are on their way.
const BATCH: u64 = 3;

/// Open sockets, each with a task that talks.
pub struct Talkers {
    tasks: JoinSet<()>,
    stop: Arc<AtomicBool>,
    messages: Arc<AtomicU64>,
}

impl Talkers {
    /// Opens `count` sockets and returns once they talk; each sends a few messages every `pace`.
    pub async fn start(dial: &Dial, count: u64, pace: Duration) -> Self {
        let mut talkers = Self {
            tasks: JoinSet::new(),
            stop: Arc::default(),
            messages: Arc::default(),
        };
        for _ in 0..count {
            let socket = dial.connect().await;
            let (stop, messages) = (Arc::clone(&talkers.stop), Arc::clone(&talkers.messages));
            talkers.tasks.spawn(talk(socket, pace, stop, messages));
        }
        let before = talkers.messages();
        wait::until("the sockets talk", async || {
            (talkers.messages() > before + BATCH * count).then_some(())
        })
        .await;
        talkers
    }

    /// Messages that came back so far.
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::SeqCst)
    }

    /// Panics when a socket has ended or has lost something.
    pub fn assert_all_talk(&mut self, during: &str) {
        if let Some(ended) = self.tasks.try_join_next() {
            panic!("a socket ended during {during}: {ended:?}");
        }
    }

    /// Ends them by a Close that is answered; how many messages came back in all.
    pub async fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a socket that talked to the end");
        }
        self.messages()
    }
}

/// Sends numbered messages of changing length and checks that each comes back, in order and unchanged, until told to
/// stop; then closes and sees the answer. Any other end panics.
async fn talk(
    mut socket: WebSocket,
    pace: Duration,
    stop: Arc<AtomicBool>,
    messages: Arc<AtomicU64>,
) {
    let mut pace = interval(pace);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        pace.tick().await;
        let batch: Vec<_> = (number..number + BATCH).map(numbered).collect();
        for message in &batch {
            let fed = socket.feed(message.clone()).await;
            fed.expect("an open socket takes a message");
        }
        let flushed = socket.flush().await;
        flushed.expect("an open socket takes a message");
        for message in batch {
            let back = within("an echo", socket.next()).await;
            let back = back.expect("no end").expect("no error");
            assert!(
                back == message,
                "message {number} came back as {} bytes",
                back.len()
            );
            number += 1;
            messages.fetch_add(1, Ordering::SeqCst);
        }
    }
    let closed = socket.close(None).await;
    closed.expect("an open socket takes a Close");
    let answer = within("the answer to a Close", socket.next()).await;
    assert!(matches!(answer, Some(Ok(Message::Close(_)))), "{answer:?}");
}

fn numbered(number: u64) -> Message {
    let length = usize::try_from(number * 37 % 2000).expect("below 2000");
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(8 + length, number.to_le_bytes()[0]);
    Message::binary(bytes)
}
