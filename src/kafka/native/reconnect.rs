//! Revives clients that have lost all brokers.
//!
//! A broker that its controller has fenced, for example after it was frozen for some seconds,
//! answers a metadata request without any brokers. librdkafka then forgets all brokers, and may
//! never connect again: such a client waits for ever, without an error, while a new one reaches the
//! brokers at once (confluentinc/librdkafka#5301, versions from 2.10).
//!
//! One thread of the process checks all watched clients. If a client has had no broker for ten
//! seconds while its bootstrap servers accept connections, its bootstrap servers are added again,
//! which is all that it lacks. It keeps its membership in its group, its positions and its buffered
//! records.
//!
//! Tries to revive one client follow each other after 5, 10 and then 15 s: librdkafka keeps every
//! added server for the client's lifetime, and a frozen broker accepts connections without
//! answering. Connections are tried outside of the table's lock, because they take up to two
//! seconds each and the drop of a client must not wait for them.

use crate::kafka::error::error_log;
use rdkafka::client::Client;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, bindings as sys};
use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::net::{TcpStream, ToSocketAddrs};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The interval of checks while no client is in trouble. Each check costs a metadata request.
const CHECK_EVERY: Duration = Duration::from_secs(10);
/// The interval of checks while connections fail or a client has no broker.
const CHECK_IN_TROUBLE_EVERY: Duration = Duration::from_secs(1);
/// A client without a broker for this long counts as cut off. An idle client may be connecting for
/// a moment.
const CUT_OFF_AFTER: Duration = Duration::from_secs(10);
/// The wait before the second try to revive a client. It doubles with each further try. A frozen
/// broker accepts connections, so that a try may fail, or the client may be cut off again a moment
/// later.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// The longest wait between two tries: the client stores each try for as long as it lives.
const TRY_AGAIN_AFTER_MAX: Duration = Duration::from_secs(15);
/// How long one bootstrap server may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

static CLIENTS: Mutex<Option<Clients>> = Mutex::new(None);

/// All watched clients of the process. The thread ends when the table is empty, and is started
/// again by the next client.
#[derive(Default)]
struct Clients {
    watched: HashMap<u64, Entry>,
    last_id: u64,
    has_thread: bool,
}

struct Entry {
    client: ClientHandle,
    /// The bootstrap servers. The next field is the client's name in the log.
    brokers: String,
    name: String,
    absence: BrokerAbsence,
    is_cut_off: Arc<AtomicBool>,
}

/// The time that a client has been without a broker, and the tries to revive it.
#[derive(Default)]
struct BrokerAbsence {
    since: Option<Instant>,
    tries: u32,
    try_at: Option<Instant>,
}

impl BrokerAbsence {
    /// Notes whether the client has a broker now.
    fn checked(&mut self, now: Instant, has_broker: bool) {
        match has_broker {
            true => *self = Self::default(),
            false => {
                self.since.get_or_insert(now);
            }
        }
    }

    fn is_cut_off(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now >= since + CUT_OFF_AFTER)
    }

    /// Whether a try to revive the client is due.
    fn is_try_due(&self, now: Instant) -> bool {
        self.is_cut_off(now) && self.try_at.is_none_or(|at| now >= at)
    }

    fn record_try(&mut self, now: Instant) {
        let doubled = TRY_AGAIN_AFTER.saturating_mul(1 << self.tries.min(16));
        self.try_at = Some(now + doubled.min(TRY_AGAIN_AFTER_MAX));
        self.tries += 1;
    }
}

/// A client's native handle. It is valid for as long as its entry is in the table, and used only
/// under the table's lock.
struct ClientHandle {
    client: NonNull<sys::rd_kafka_t>,
    /// A topic for metadata requests. Without one, a request covers all topics that the client
    /// knows.
    topic: Option<NonNull<sys::rd_kafka_topic_t>>,
}

// SAFETY: librdkafka's handles are internally locked. The calls made here may come from any thread.
unsafe impl Send for ClientHandle {}

/// A client is watched until this is dropped. Drop it before the client.
#[must_use = "the client is watched only until this is dropped"]
pub(crate) struct Watched {
    id: u64,
    is_cut_off: Arc<AtomicBool>,
}

impl Watched {
    /// Watches a client that was created with these bootstrap servers. A member of a group names a
    /// topic: a request for all topics might make a broker create a topic that was deleted.
    pub(crate) fn new<C: ClientContext>(
        client: &Client<C>,
        brokers: &str,
        topic: Option<&str>,
    ) -> Self {
        let is_cut_off = Arc::new(AtomicBool::new(false));
        let mut clients = lock();
        let clients = clients.get_or_insert_default();
        clients.last_id += 1;
        let id = clients.last_id;
        let native = ClientHandle::new(client, topic);
        let entry = Entry {
            name: native.name(),
            client: native,
            brokers: brokers.to_owned(),
            absence: BrokerAbsence::default(),
            is_cut_off: Arc::clone(&is_cut_off),
        };
        clients.watched.insert(id, entry);
        if !clients.has_thread {
            let spawned = std::thread::Builder::new()
                .name("evenkeel-revive".to_owned())
                .spawn(check_until_none_is_left);
            match spawned {
                Ok(_) => clients.has_thread = true,
                Err(error) => {
                    tracing::warn!(%error, "cannot start the thread that checks the clients' connections")
                }
            }
        }
        Self { id, is_cut_off }
    }

    /// Whether the client has had no broker for ten seconds.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.is_cut_off.load(Ordering::Relaxed)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Waits for a call into this client, which does not block.
        if let Some(clients) = &mut *lock() {
            clients.watched.remove(&self.id);
        }
    }
}

/// The result of a check of all clients.
enum CheckResult {
    AllConnected,
    SomeWithout,
    NoneLeft,
}

/// The thread: checks at an interval, and reports the end of an outage when all clients are
/// connected.
fn check_until_none_is_left() {
    let mut is_in_trouble = false;
    loop {
        wait_for_check(is_in_trouble);
        match check_all() {
            CheckResult::AllConnected => {
                is_in_trouble = false;
                error_log::all_connected();
            }
            CheckResult::SomeWithout => is_in_trouble = true,
            CheckResult::NoneLeft => return,
        }
    }
}

/// Waits until the next check is due, which is soon while a client is in trouble.
fn wait_for_check(is_in_trouble: bool) {
    let last = Instant::now();
    loop {
        std::thread::sleep(CHECK_IN_TROUBLE_EVERY);
        if is_in_trouble || error_log::has_recent_failure() || last.elapsed() >= CHECK_EVERY {
            return;
        }
    }
}

/// Checks every client once, and revives those that are cut off.
fn check_all() -> CheckResult {
    let mut cut_off = Vec::new();
    let checked = {
        let mut clients = lock();
        let Some(clients) = clients.as_mut() else {
            return CheckResult::NoneLeft;
        };
        if clients.watched.is_empty() {
            clients.has_thread = false;
            return CheckResult::NoneLeft;
        }
        let now = Instant::now();
        let mut checked = CheckResult::AllConnected;
        for (id, entry) in &mut clients.watched {
            let has_broker = entry.client.has_broker();
            entry.absence.checked(now, has_broker);
            if !has_broker {
                checked = CheckResult::SomeWithout;
            }
            let is_cut_off = entry.absence.is_cut_off(now);
            let was_cut_off = entry.is_cut_off.swap(is_cut_off, Ordering::Relaxed);
            if was_cut_off && !is_cut_off {
                tracing::info!(
                    client = entry.name,
                    "the client is connected to a broker again"
                );
            }
            if entry.absence.is_try_due(now) {
                cut_off.push((*id, entry.brokers.clone()));
            }
        }
        checked
    };
    // Without the lock: the drop of a client must not wait for this.
    let mut reachable = BTreeMap::new();
    for (id, brokers) in cut_off {
        let is_reachable = reachable
            .entry(brokers)
            .or_insert_with_key(|brokers| accepts_connections(brokers));
        if *is_reachable {
            add_servers_again(id);
        }
    }
    checked
}

/// Adds a client's bootstrap servers again, if it still exists.
fn add_servers_again(id: u64) {
    let mut clients = lock();
    let watched = clients.as_mut().map(|clients| &mut clients.watched);
    let Some(entry) = watched.and_then(|watched| watched.get_mut(&id)) else {
        return;
    };
    entry.absence.record_try(Instant::now());
    tracing::warn!(
        client = entry.name,
        brokers = entry.brokers,
        "the client has lost all brokers although its bootstrap servers accept connections; \
         adding them again"
    );
    entry.client.add_brokers(&entry.brokers);
}

impl ClientHandle {
    fn new<C: ClientContext>(client: &Client<C>, topic: Option<&str>) -> Self {
        // SAFETY: a client's handle is never null.
        let client = unsafe { NonNull::new_unchecked(client.native_ptr()) };
        let topic = topic.and_then(|topic| CString::new(topic).ok());
        let topic = topic.and_then(|topic| {
            // SAFETY: the client is alive, and the name is copied. Null settings mean the client's
            // own.
            NonNull::new(unsafe {
                sys::rd_kafka_topic_new(client.as_ptr(), topic.as_ptr(), ptr::null_mut())
            })
        });
        Self { client, topic }
    }

    fn name(&self) -> String {
        // SAFETY: the client is alive. The name lives as long as the client, and is copied.
        let name = unsafe { std::ffi::CStr::from_ptr(sys::rd_kafka_name(self.client.as_ptr())) };
        name.to_string_lossy().into_owned()
    }

    /// Whether the client has a connection to a broker. If not, makes it connect. Does not block.
    fn has_broker(&self) -> bool {
        let mut metadata = ptr::null();
        // SAFETY: the client is alive. With a timeout of 0 the call returns an error: one if there
        // is no broker to send the request to, another if it was sent. Metadata that is returned
        // nevertheless is freed.
        unsafe {
            let topic = self.topic.map_or(ptr::null_mut(), NonNull::as_ptr);
            let error = sys::rd_kafka_metadata(self.client.as_ptr(), 0, topic, &mut metadata, 0);
            if !metadata.is_null() {
                sys::rd_kafka_metadata_destroy(metadata);
            }
            error != RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT
        }
    }

    /// Adds bootstrap servers to those of the client. Does not block.
    fn add_brokers(&self, brokers: &str) {
        let Ok(brokers) = CString::new(brokers) else {
            return;
        };
        // SAFETY: the client is alive. The string is copied.
        unsafe { sys::rd_kafka_brokers_add(self.client.as_ptr(), brokers.as_ptr()) };
    }
}

impl Drop for ClientHandle {
    fn drop(&mut self) {
        if let Some(topic) = self.topic {
            // SAFETY: the handle is owned here, and its client is still alive.
            unsafe { sys::rd_kafka_topic_destroy(topic.as_ptr()) }
        }
    }
}

/// Whether one of the servers accepts a connection.
fn accepts_connections(brokers: &str) -> bool {
    let servers = brokers.split(',').filter_map(address);
    let mut addresses = servers.flat_map(|server| server.to_socket_addrs().into_iter().flatten());
    addresses.any(|address| TcpStream::connect_timeout(&address, CONNECT_WITHIN).is_ok())
}

/// Host and port of a server in librdkafka's notation: `host`, `host:port` or
/// `PROTOCOL://host:port`, IPv6 in brackets.
fn address(server: &str) -> Option<(String, u16)> {
    const DEFAULT_PORT: u16 = 9092;
    let server = server.trim();
    let server = server.split_once("://").map_or(server, |(_, rest)| rest);
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, port.parse().ok()?)
        }
        _ => (server, DEFAULT_PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// The table is consistent after each statement, so a panic elsewhere does not matter.
fn lock() -> MutexGuard<'static, Option<Clients>> {
    CLIENTS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds at which the servers are added again for a client that is checked each second.
    fn try_seconds(seconds: std::ops::Range<u64>, has_broker: impl Fn(u64) -> bool) -> Vec<u64> {
        let start = Instant::now();
        let mut absence = BrokerAbsence::default();
        let mut tries = Vec::new();
        for second in seconds {
            let now = start + Duration::from_secs(second);
            absence.checked(now, has_broker(second));
            if absence.is_try_due(now) {
                absence.record_try(now);
                tries.push(second);
            }
        }
        tries
    }

    #[test]
    fn a_client_without_brokers_is_retried_ever_less_often() {
        let tries = try_seconds(0..200, |_| false);
        assert_eq!(
            tries,
            [
                10, 15, 25, 40, 55, 70, 85, 100, 115, 130, 145, 160, 175, 190
            ]
        );
    }

    #[test]
    fn a_client_that_connects_within_the_time_is_left_alone() {
        assert_eq!(try_seconds(0..200, |second| second % 10 == 9), [0; 0]);
    }

    #[test]
    fn a_revived_client_starts_anew_when_cut_off_again() {
        assert_eq!(try_seconds(0..33, |second| second == 20), [10, 15, 31]);
    }

    #[test]
    fn servers_are_read_as_the_client_reads_them() {
        for (server, expected) in [
            ("localhost", Some(("localhost", 9092))),
            (" kafka:9093 ", Some(("kafka", 9093))),
            ("SASL_SSL://kafka:9093", Some(("kafka", 9093))),
            ("[::1]:9094", Some(("::1", 9094))),
            ("::1", Some(("::1", 9092))),
            ("kafka:port", None),
            ("", None),
        ] {
            let expected = expected.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(address(server), expected, "{server:?}");
        }
    }
}
