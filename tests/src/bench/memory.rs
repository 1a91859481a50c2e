//! What sockets cost in memory: a fresh proxy, thousands of sockets, nothing else. Every figure is the growth of PSS since before the
//! first of them, divided by their number. Memory of the kernel is not in it.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::sleep;

use super::account::tree_memory;
use super::loads::{OPENERS, Target, open_all, visit};
use super::socket::{Socket, Tickets};
use super::statistics::number;

/// Short connections before the first look, so that what a proxy makes once is not charged to sockets.
const VISITS_BEFORE: usize = 16;

/// Time between the last byte and a look at an open socket.
const SETTLING: Duration = Duration::from_secs(1);

/// Time between the last end and the look at what is kept.
const AFTER_CLOSE: Duration = Duration::from_secs(3);

/// The message on each socket.
const MESSAGE_BYTES: usize = 16 * 1024;

/// What the client reads at once; small, as it has thousands of these.
const CLIENT_READ_BYTES: usize = 1024;

/// Bytes a socket.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub idle_few: f64,
    pub idle_many: f64,
    pub after_message: f64,
    pub kept: f64,
}

impl Target {
    pub async fn memory(&self, few: u32, many: u32) -> anyhow::Result<Memory> {
        let dialer = self.dialer(Tickets::Ignore, CLIENT_READ_BYTES)?;
        for _ in 0..VISITS_BEFORE {
            visit(&dialer).await?;
        }
        let before = self.look(SETTLING).await?;
        let growth = async |wait, count| {
            let now = self.look(wait).await?;
            anyhow::Ok((now - before) / f64::from(count))
        };
        let open = async |count: u32| {
            let count = usize::try_from(count)?;
            let opened = open_all(&dialer, "/chat/echo", count).await;
            opened.with_context(|| format!("opening {count} more sockets"))
        };
        let mut sockets = open(few).await?;
        let idle_few = growth(SETTLING, few).await?;
        sockets.extend(open(many - few).await?);
        let idle_many = growth(SETTLING, many).await?;
        let sockets = exchange(sockets).await.context("a message on each")?;
        let after_message = growth(SETTLING, many).await?;
        close_all(sockets).await.context("closing all")?;
        let kept = growth(AFTER_CLOSE, many).await?;
        Ok(Memory {
            idle_few,
            idle_many,
            after_message,
            kept,
        })
    }

    /// PSS after this time, in bytes.
    async fn look(&self, wait: Duration) -> anyhow::Result<f64> {
        sleep(wait).await;
        Ok(number(tree_memory(self.watched.proxy)?))
    }
}

/// One message and its echo on each socket.
async fn exchange(sockets: Vec<Socket>) -> anyhow::Result<Vec<Socket>> {
    let payload = vec![b'm'; MESSAGE_BYTES];
    stream::iter(sockets)
        .map(async |mut socket| {
            socket.check_echo(&payload).await?;
            anyhow::Ok(socket)
        })
        .buffer_unordered(OPENERS)
        .try_collect()
        .await
}

async fn close_all(sockets: Vec<Socket>) -> anyhow::Result<()> {
    stream::iter(sockets)
        .map(Socket::close)
        .buffer_unordered(OPENERS)
        .try_collect()
        .await
}
