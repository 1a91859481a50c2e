//! A name server over loopback, UDP and TCP, that says what a test wants: addresses with a TTL, nothing, failures, or not a word.
//!
//! Written by hand after RFC 1035 §4, so that it shares nothing with the product's resolver. It knows one question a message, A and
//! AAAA, and ignores EDNS, which a server may.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// Longest answer over UDP (RFC 1035 §4.2.1); a longer one is cut off, and the client comes back over TCP.
const MAX_UDP_BYTES: usize = 512;
/// Bytes of a header.
const HEADER: usize = 12;
const A: u16 = 1;
const AAAA: u16 = 28;

/// What is said of a name.
#[derive(Debug, Clone)]
pub enum Says {
    /// The addresses of the family that was asked for, with this TTL in seconds.
    Addresses(Vec<IpAddr>, u32),
    /// RCODE 3.
    NoSuchName,
    /// RCODE 2.
    Failure,
    /// Not a word, until it says something else and is asked again.
    Nothing,
    /// One thing when it is asked for A, another for AAAA.
    ByFamily(Box<Self>, Box<Self>),
}

#[derive(Default)]
struct Zone {
    says: HashMap<String, Says>,
    /// How often the addresses of the fourth version were asked for.
    asked: HashMap<String, u64>,
    asked_over_tcp: u64,
}

/// A running name server.
pub struct Dns {
    pub address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    _tasks: JoinSet<()>,
}

impl Dns {
    pub async fn start() -> Self {
        let (udp, tcp) = listen().await;
        let address = tcp.local_addr().expect("a bound listener");
        let zone = Arc::new(Mutex::new(Zone::default()));
        let mut tasks = JoinSet::new();
        tasks.spawn(over_udp(udp, Arc::clone(&zone)));
        tasks.spawn(over_tcp(tcp, Arc::clone(&zone)));
        Self {
            address,
            zone,
            _tasks: tasks,
        }
    }

    /// What it says of `name` from now on. Names that it was never told of do not exist.
    pub fn says(&self, name: &str, says: Says) {
        lock(&self.zone).says.insert(name.to_owned(), says);
    }

    /// [`Says::Addresses`].
    pub fn leads(&self, name: &str, addresses: &[&str], ttl: u32) {
        let addresses = addresses
            .iter()
            .map(|text| text.parse().expect("an address"));
        self.says(name, Says::Addresses(addresses.collect(), ttl));
    }

    /// Look-ups of `name` so far.
    pub fn asked(&self, name: &str) -> u64 {
        lock(&self.zone).asked.get(name).copied().unwrap_or(0)
    }

    /// Questions over TCP so far.
    pub fn asked_over_tcp(&self) -> u64 {
        lock(&self.zone).asked_over_tcp
    }
}

fn lock(zone: &Mutex<Zone>) -> MutexGuard<'_, Zone> {
    zone.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One port for both.
async fn listen() -> (UdpSocket, TcpListener) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = tcp.local_addr().expect("a bound listener");
        // Somebody else may have the port in UDP.
        if let Ok(udp) = UdpSocket::bind(address).await {
            return (udp, tcp);
        }
    }
}

async fn over_udp(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut question = [0; MAX_UDP_BYTES];
    while let Ok((length, peer)) = socket.recv_from(&mut question).await {
        let Some(mut answer) = answer(&question[..length], &zone) else {
            continue;
        };
        if answer.len() > MAX_UDP_BYTES {
            // TC, and no answers: header and question alone.
            answer[2] |= 0x02;
            answer[6..8].fill(0);
            answer.truncate(question_end(&answer).unwrap_or(HEADER));
        }
        let _nobody_waits = socket.send_to(&answer, peer).await;
    }
}

async fn over_tcp(listener: TcpListener, zone: Arc<Mutex<Zone>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let zone = Arc::clone(&zone);
        connections.spawn(async move {
            // A client that is gone has got what it wanted.
            let _ = serve(stream, &zone).await;
        });
    }
}

async fn serve(mut stream: TcpStream, zone: &Mutex<Zone>) -> io::Result<()> {
    loop {
        let length = stream.read_u16().await?;
        let mut question = vec![0; length.into()];
        stream.read_exact(&mut question).await?;
        lock(zone).asked_over_tcp += 1;
        if let Some(answer) = answer(&question, zone) {
            let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
            stream.write_u16(length).await?;
            stream.write_all(&answer).await?;
        }
    }
}

/// Where the first question ends.
fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        match *message.get(at)? {
            0 => return Some(at + 5),
            length => at += 1 + usize::from(length),
        }
    }
}

fn answer(question: &[u8], zone: &Mutex<Zone>) -> Option<Vec<u8>> {
    let end = question_end(question)?;
    let asked = question.get(HEADER..end)?;
    let family = u16::from_be_bytes([asked[asked.len() - 4], asked[asked.len() - 3]]);
    let name = name(&asked[..asked.len() - 4]);
    let mut zone = lock(zone);
    if family == A {
        *zone.asked.entry(name.clone()).or_insert(0) += 1;
    }
    let says = zone.says.get(&name).cloned().unwrap_or(Says::NoSuchName);
    drop(zone);
    let says = match says {
        Says::ByFamily(v4, _) if family == A => *v4,
        Says::ByFamily(_, v6) => *v6,
        of_both => of_both,
    };
    let (code, records) = match says {
        // Of a family there are no families.
        Says::Nothing | Says::ByFamily(..) => return None,
        Says::Failure => (2, Vec::new()),
        Says::NoSuchName => (3, Vec::new()),
        Says::Addresses(addresses, ttl) => {
            let records = addresses.iter().filter_map(|ip| record(*ip, family, ttl));
            (0, records.collect())
        }
    };
    let mut message = question[..2].to_vec();
    // QR, RD, RA; the code; one question; so many answers.
    message.extend([0x81, 0x80 | code, 0, 1]);
    message.extend(u16::try_from(records.len()).ok()?.to_be_bytes());
    message.extend([0; 4]);
    message.extend(asked);
    message.extend(records.concat());
    Some(message)
}

/// Labels without their lengths.
fn name(labels: &[u8]) -> String {
    let mut parts = Vec::new();
    let mut at = 0;
    while let Some(length @ 1..) = labels.get(at).copied() {
        let label = &labels[at + 1..=at + usize::from(length)];
        parts.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += 1 + usize::from(length);
    }
    parts.join(".")
}

fn record(address: IpAddr, family: u16, ttl: u32) -> Option<Vec<u8>> {
    let octets = match (address, family) {
        (IpAddr::V4(address), A) => address.octets().to_vec(),
        (IpAddr::V6(address), AAAA) => address.octets().to_vec(),
        (IpAddr::V4(_) | IpAddr::V6(_), _) => return None,
    };
    // A pointer to the question's name; the family; class IN.
    let mut record = vec![0xc0, 0x0c];
    record.extend(family.to_be_bytes());
    record.extend([0, 1]);
    record.extend(ttl.to_be_bytes());
    record.extend(u16::try_from(octets.len()).ok()?.to_be_bytes());
    record.extend(octets);
    Some(record)
}
