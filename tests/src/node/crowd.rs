//! Many open sockets, each of which knows the pods that hold it and what became of it. They never reconnect.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Dial, WebSocket, next};
use crate::wait::until_limit;

/// Time between two messages of one socket. Pacing, not waiting for anything.
const PACE: Duration = Duration::from_secs(1);

/// Longest way of a message there and back: with 300 sockets on a machine that starts pods at the same time.
const ECHO: Duration = Duration::from_secs(30);

/// Handshakes at a time while the crowd gathers.
const AT_ONCE: usize = 16;

/// What became of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    Talks,
    /// It was told so, with this code.
    Closed(u16),
    /// Anything else: what a browser calls 1006.
    Broke(String),
}

/// One socket.
struct Member {
    /// Address of the dataplane's pod, as the backend sees it.
    dataplane: String,
    /// Name of the backend's pod.
    backend: String,
    state: Arc<State>,
}

struct State {
    fate: Mutex<Fate>,
    echoes: AtomicU64,
}

/// All of them. They end with it.
pub struct Crowd {
    members: Vec<Member>,
    _tasks: JoinSet<()>,
}

impl Crowd {
    /// Opens this many sockets.
    pub async fn gather(dial: &Dial, count: usize) -> Self {
        let dial = dial.clone().path("/");
        let (mut opening, mut tasks) = (JoinSet::new(), JoinSet::new());
        let (mut members, mut missing) = (Vec::new(), count);
        while missing > 0 || !opening.is_empty() {
            if missing > 0 && opening.len() < AT_ONCE {
                let dial = dial.clone();
                opening.spawn(async move { open(&dial).await });
                missing -= 1;
            } else if let Some(opened) = opening.join_next().await {
                let (member, socket) = opened.expect("a socket that is taken");
                tasks.spawn(stay(socket, Arc::clone(&member.state)));
                members.push(member);
            }
        }
        Self {
            members,
            _tasks: tasks,
        }
    }

    /// Sockets that this pod of the dataplane holds.
    pub fn through(&self, address: &str) -> u64 {
        let members = self.members.iter();
        members.filter(|member| member.dataplane == address).count() as u64
    }

    /// Sockets whose dataplane or backend is among these must hear Close 1001, and all others nothing. How many were told.
    pub async fn only_these_were_told(&self, gone: &Gone) -> usize {
        let fates = self.only_these_ended(gone).await;
        let wrong: Vec<_> = fates
            .iter()
            .filter(|fate| **fate != Fate::Closed(1001))
            .collect();
        assert!(
            wrong.is_empty(),
            "{} of {} sockets ended otherwise: {wrong:?}; gone: {gone:?}",
            wrong.len(),
            fates.len()
        );
        fates.len()
    }

    /// Waits until the sockets whose dataplane or backend is among these have ended, and each of the others has heard an echo
    /// after that. How they ended.
    pub async fn only_these_ended(&self, gone: &Gone) -> Vec<Fate> {
        let (held, others): (Vec<_>, Vec<_>) = self
            .members
            .iter()
            .partition(|member| gone.held(&member.dataplane, &member.backend));
        until_limit(
            "every socket of a pod that is gone ends",
            ECHO,
            async || {
                let all = held.iter().all(|member| member.fate() != Fate::Talks);
                all.then_some(())
            },
        )
        .await;
        let before: Vec<_> = others.iter().map(|member| member.echoes()).collect();
        until_limit("every other socket talks on", ECHO, async || {
            let mut pairs = others.iter().zip(&before);
            let all = pairs
                .all(|(member, before)| member.echoes() > *before || member.fate() != Fate::Talks);
            all.then_some(())
        })
        .await;
        let ended: Vec<_> = others
            .iter()
            .filter(|member| member.fate() != Fate::Talks)
            .map(|member| {
                format!(
                    "{} -> {}: {:?}",
                    member.dataplane,
                    member.backend,
                    member.fate()
                )
            })
            .collect();
        assert!(
            ended.is_empty(),
            "{} of {} other sockets ended too; gone: {gone:?}\n{}",
            ended.len(),
            others.len(),
            ended.join("\n")
        );
        held.into_iter().map(Member::fate).collect()
    }
}

/// Pods that are no more.
#[derive(Debug, Default)]
pub struct Gone {
    /// Addresses.
    pub dataplanes: BTreeSet<String>,
    /// Names.
    pub backends: BTreeSet<String>,
}

impl Gone {
    fn held(&self, dataplane: &str, backend: &str) -> bool {
        self.dataplanes.contains(dataplane) || self.backends.contains(backend)
    }
}

impl Member {
    fn fate(&self) -> Fate {
        self.state.fate()
    }

    fn echoes(&self) -> u64 {
        self.state.echoes.load(Ordering::SeqCst)
    }
}

impl State {
    fn fate(&self) -> Fate {
        let fate = self.fate.lock().unwrap_or_else(PoisonError::into_inner);
        fate.clone()
    }
}

/// A socket, and who holds it: the backend's first message says so.
async fn open(dial: &Dial) -> (Member, WebSocket) {
    let mut socket = dial.connect().await;
    let hello = next(&mut socket).await;
    let hello: Value = serde_json::from_str(hello.to_text().expect("a text")).expect("JSON");
    let text = |field: &str| hello[field].as_str().expect("a text").to_owned();
    let member = Member {
        dataplane: text("peer"),
        backend: text("name"),
        state: Arc::new(State {
            fate: Mutex::new(Fate::Talks),
            echoes: AtomicU64::new(0),
        }),
    };
    (member, socket)
}

async fn stay(mut socket: WebSocket, state: Arc<State>) {
    let fate = exchange(&mut socket, &state.echoes).await;
    *state.fate.lock().unwrap_or_else(PoisonError::into_inner) = fate;
    // The rest of the closing handshake.
    while let Some(Ok(_)) = socket.next().await {}
}

/// Talks until the end, and says how that came. A message on its way does not keep it from reading.
async fn exchange(socket: &mut WebSocket, echoes: &AtomicU64) -> Fate {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0_u64;
    let mut underway: Option<(String, Instant)> = None;
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Close(Some(frame)))) => return Fate::Closed(frame.code.into()),
                Some(Ok(Message::Close(None))) => return Fate::Broke("a Close without a code".to_owned()),
                Some(Ok(Message::Text(text))) => match underway.take() {
                    Some((sent, _)) if sent == text.as_str() => {
                        echoes.fetch_add(1, Ordering::SeqCst);
                    }
                    sent => return Fate::Broke(format!("{text} came back for {sent:?}")),
                },
                Some(Ok(_)) => {}
                Some(Err(error)) => return Fate::Broke(error.to_string()),
                None => return Fate::Broke("the end without a Close".to_owned()),
            },
            _ = pace.tick() => match &underway {
                Some((_, since)) if since.elapsed() > ECHO => return Fate::Broke(format!("no echo within {ECHO:?}")),
                Some(_) => {}
                None => {
                    number += 1;
                    let text = format!("message {number}");
                    underway = Some((text.clone(), Instant::now()));
                    // What a failed write means, the next read says.
                    let _ = socket.send(Message::text(text)).await;
                }
            },
        }
    }
}
