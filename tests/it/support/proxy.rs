//! Helper: a proxy before the only broker, which can hold everything up, can have the broker answer as one that is fenced, and
//! can delay the answers to members that join a group.

use evenkeel::testing::{TestKafka, required};
use std::collections::HashMap;
use std::io::{Read, Result, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

const METADATA: i16 = 3;
const FIND_COORDINATOR: i16 = 10;
const JOIN_GROUP: i16 = 11;
const COORDINATOR_NOT_AVAILABLE: i16 = 15;
const JOIN_DELAY: Duration = Duration::from_millis(500);

/// What passes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Passes {
    Everything,
    /// Connections stay open and are accepted, and nothing answers.
    Nothing,
    /// Metadata is without brokers, and there is no coordinator.
    NoBrokers,
    /// Everything, but answers to requests to join a group half a second late.
    SlowJoins,
}

/// Forwards connections to the broker. It ends with the process.
pub(crate) struct BrokerProxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    broker: OnceLock<SocketAddr>,
    passes: Mutex<Passes>,
    changed: Condvar,
    /// The requests to join a group.
    joins: AtomicUsize,
}

/// API key and version of the requests of a connection that wait for their answers, by correlation id.
type Requests = Arc<Mutex<HashMap<[u8; 4], (i16, i16)>>>;

impl BrokerProxy {
    /// Listens on a free port, before the broker does, which has to know the port.
    fn new() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            broker: OnceLock::new(),
            passes: Mutex::new(Passes::Everything),
            changed: Condvar::new(),
            joins: AtomicUsize::new(0),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A connection that fails is made anew by the client.
                let _ = accepting.forward(client);
            }
        });
        Ok(Self { port, shared })
    }

    /// A Kafka that clients reach through a proxy only. None if none can be started here.
    pub(crate) async fn before_kafka() -> Option<(Self, TestKafka)> {
        let proxy = Self::new().expect("a free port");
        let advertised = format!("PLAINTEXT://{}", proxy.address());
        let settings = [
            ("advertised.listeners", &*advertised),
            ("inter.broker.listener.name", "PLAINTEXT"),
        ];
        let kafka = required(TestKafka::start_with(&settings).await)?;
        proxy.forward_to(kafka.brokers());
        Some((proxy, kafka))
    }

    /// Where clients find the broker.
    pub(crate) fn address(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }

    /// Where the broker is.
    fn forward_to(&self, broker: &str) {
        let broker = broker.parse().expect("an address");
        self.shared.broker.set(broker).expect("the only broker");
    }

    pub(crate) fn let_pass(&self, passes: Passes) {
        *self.shared.passes() = passes;
        self.shared.changed.notify_all();
    }

    /// How many requests to join a group it has forwarded.
    pub(crate) fn joins(&self) -> usize {
        self.shared.joins.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn passes(&self) -> MutexGuard<'_, Passes> {
        self.passes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something passes; what does.
    fn wait(&self) -> Passes {
        let is_closed = |passes: &mut Passes| *passes == Passes::Nothing;
        let waited = self.changed.wait_while(self.passes(), is_closed);
        *waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// Forwards a connection by two threads.
    fn forward(self: &Arc<Self>, client: TcpStream) -> Result<()> {
        let Some(broker) = self.broker.get() else {
            return Ok(());
        };
        let broker = TcpStream::connect(broker)?;
        let requests = Requests::default();
        let (from, to) = (client.try_clone()?, broker.try_clone()?);
        let (shared, noted) = (Arc::clone(self), Arc::clone(&requests));
        thread::spawn(move || {
            pump(from, to, |frame| {
                shared.wait();
                if note(&noted, &frame) == Some(JOIN_GROUP) {
                    shared.joins.fetch_add(1, Ordering::Relaxed);
                }
                frame
            })
        });
        let shared = Arc::clone(self);
        thread::spawn(move || {
            pump(broker, client, |frame| {
                let request = frame
                    .first_chunk()
                    .and_then(|id| lock(&requests).remove(id));
                match (shared.wait(), request) {
                    (Passes::NoBrokers, Some((METADATA, version))) => {
                        without_brokers(&frame, version)
                    }
                    (Passes::NoBrokers, Some((FIND_COORDINATOR, version))) => {
                        without_coordinator(&frame, version)
                    }
                    (Passes::SlowJoins, Some((JOIN_GROUP, _))) => {
                        thread::sleep(JOIN_DELAY);
                        frame
                    }
                    _ => frame,
                }
            })
        });
        Ok(())
    }
}

fn lock(requests: &Requests) -> MutexGuard<'_, HashMap<[u8; 4], (i16, i16)>> {
    requests.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Passes frames on until either end closes, then closes both.
fn pump(mut from: TcpStream, mut to: TcpStream, mut pass: impl FnMut(Vec<u8>) -> Vec<u8>) {
    let mut next = || -> Result<()> {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        from.read_exact(&mut frame)?;
        let frame = pass(frame);
        to.write_all(&[&(frame.len() as u32).to_be_bytes(), &frame[..]].concat())
    };
    while next().is_ok() {}
    // One that is closed already needs no more.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// Remembers a request whose answer may be changed or delayed; its API key.
fn note(requests: &Requests, frame: &[u8]) -> Option<i16> {
    let number = |at: usize| Some(i16::from_be_bytes(*frame.get(at..)?.first_chunk()?));
    let (key, version) = (number(0)?, number(2)?);
    let id = frame.get(4..)?.first_chunk()?;
    if matches!(key, METADATA | FIND_COORDINATOR | JOIN_GROUP) {
        lock(requests).insert(*id, (key, version));
    }
    Some(key)
}

/// An answer to a request for metadata with its list of brokers emptied. Names are shorter than 127 bytes, and brokers fewer, so
/// that each length is one byte in the newer encoding.
fn without_brokers(frame: &[u8], version: i16) -> Vec<u8> {
    let is_compact = version >= 9;
    // The correlation id, tagged fields and the throttle time.
    let list = 4 + usize::from(is_compact) + if version >= 3 { 4 } else { 0 };
    let mut at = list;
    let skip_text = |at: &mut usize| match is_compact {
        true => *at += usize::from(frame[*at]).max(1),
        false => {
            let length = i16::from_be_bytes([frame[*at], frame[*at + 1]]);
            *at += 2 + usize::try_from(length).unwrap_or(0);
        }
    };
    let brokers = match is_compact {
        true => usize::from(frame[at]) - 1,
        false => {
            u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]) as usize
        }
    };
    at += if is_compact { 1 } else { 4 };
    for _ in 0..brokers {
        at += 4;
        skip_text(&mut at);
        at += 4;
        if version >= 1 {
            skip_text(&mut at);
        }
        at += usize::from(is_compact);
    }
    let none: &[u8] = if is_compact { &[1] } else { &[0; 4] };
    [&frame[..list], none, &frame[at..]].concat()
}

/// An answer that there is no coordinator, up to the last version of the older encoding, which librdkafka uses.
fn without_coordinator(frame: &[u8], version: i16) -> Vec<u8> {
    assert!(version < 3, "version {version} is not known here");
    let (node, host, port) = (
        (-1_i32).to_be_bytes(),
        0_i16.to_be_bytes(),
        (-1_i32).to_be_bytes(),
    );
    let code = COORDINATOR_NOT_AVAILABLE.to_be_bytes();
    let message = (-1_i16).to_be_bytes();
    let (throttle, message): (&[u8], &[u8]) = match version {
        0 => (&[], &[]),
        _ => (&[0; 4], &message),
    };
    [&frame[..4], throttle, &code, message, &node, &host, &port].concat()
}
