//! Brings clients back that have lost every broker.
//!
//! A broker that its controller has fenced, as one is that stood still for some seconds, answers a metadata request with no
//! brokers at all. librdkafka then forgets all that it knows, and may never connect again: such a client waits for ever, without a
//! word, while a new one reaches the brokers at once (confluentinc/librdkafka#5301, versions from 2.10).
//!
//! One thread of the process looks at all watched clients. A client that has had no broker for two looks, while its bootstrap servers
//! accept connections, is given its bootstrap servers once more, which is all that it lacks: its place in its group, its positions and
//! its buffered records stay what they are.

use rdkafka::ClientContext;
use rdkafka::bindings as sys;
use rdkafka::client::Client;
use rdkafka::types::RDKafkaRespErr;
use std::collections::HashMap;
use std::ffi::CString;
use std::net::{TcpStream, ToSocketAddrs};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often clients are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Looks in a row without a broker after which a client counts as cut off. One may fail because an idle client is connecting.
const LOOKS_MAX: u32 = 2;
/// Looks between two tries to bring a client back: the client remembers each try for as long as it lives.
const LOOKS_BETWEEN_TRIES: u32 = 3;
/// How long one bootstrap server may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

static CLIENTS: Mutex<Option<Clients>> = Mutex::new(None);

#[derive(Default)]
struct Clients {
    watched: HashMap<u64, Entry>,
    last_id: u64,
    has_thread: bool,
}

struct Entry {
    client: Native,
    /// The bootstrap servers, and the name under which the client logs.
    brokers: String,
    name: String,
    looks_without: u32,
    /// Looks that are still to be waited for before the next try.
    looks_to_try: u32,
    is_cut_off: Arc<AtomicBool>,
}

/// A client's native handle. It is valid for as long as its entry is in the table, and used only under the table's lock.
struct Native {
    client: NonNull<sys::rd_kafka_t>,
    /// A topic to ask brokers about; without one they are asked about all that the client knows.
    topic: Option<NonNull<sys::rd_kafka_topic_t>>,
}

// SAFETY: librdkafka's handles are internally locked; the calls made here may come from any thread.
unsafe impl Send for Native {}

/// A client is watched until this is dropped, which has to be before the client is.
pub(crate) struct Watched {
    id: u64,
    is_cut_off: Arc<AtomicBool>,
}

impl Watched {
    /// Watches a client that was made with these bootstrap servers. A member of a group names a topic: asked about everything, a
    /// broker might create a topic that was deleted.
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
        let native = Native::new(client, topic);
        let entry = Entry {
            name: native.name(),
            client: native,
            brokers: brokers.to_owned(),
            looks_without: 0,
            looks_to_try: 0,
            is_cut_off: Arc::clone(&is_cut_off),
        };
        clients.watched.insert(id, entry);
        if !clients.has_thread {
            let spawned = std::thread::Builder::new()
                .name("evenkeel-revive".to_owned())
                .spawn(|| while look_at_all() {});
            match spawned {
                Ok(_) => clients.has_thread = true,
                Err(error) => tracing::warn!(%error, "no thread that looks after the clients"),
            }
        }
        Self { id, is_cut_off }
    }

    /// Whether the client has had no broker for some looks.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.is_cut_off.load(Ordering::Relaxed)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Waits for a call into this client, which itself waits for nothing.
        if let Some(clients) = &mut *lock() {
            clients.watched.remove(&self.id);
        }
    }
}

/// Waits, then looks at every client once; false when there is none left, and the thread ends.
fn look_at_all() -> bool {
    std::thread::sleep(LOOK_EVERY);
    let mut cut_off = Vec::new();
    {
        let mut clients = lock();
        let Some(clients) = clients.as_mut() else {
            return false;
        };
        if clients.watched.is_empty() {
            clients.has_thread = false;
            return false;
        }
        for (id, entry) in &mut clients.watched {
            entry.looks_to_try = entry.looks_to_try.saturating_sub(1);
            entry.looks_without = match entry.client.has_broker() {
                true => 0,
                false => entry.looks_without.saturating_add(1),
            };
            let is_cut_off = entry.looks_without >= LOOKS_MAX;
            let was_cut_off = entry.is_cut_off.swap(is_cut_off, Ordering::Relaxed);
            if was_cut_off && !is_cut_off {
                tracing::info!(client = entry.name, "the client reaches a broker again");
            }
            if is_cut_off && entry.looks_to_try == 0 {
                cut_off.push((*id, entry.brokers.clone()));
            }
        }
    }
    for (id, brokers) in cut_off {
        // Not under the lock: whoever gives a client back must not wait for it.
        if accepts_connections(&brokers) {
            revive(id);
        }
    }
    true
}

/// Gives a client its bootstrap servers again, if it is still there.
fn revive(id: u64) {
    let mut clients = lock();
    let watched = clients.as_mut().map(|clients| &mut clients.watched);
    let Some(entry) = watched.and_then(|watched| watched.get_mut(&id)) else {
        return;
    };
    entry.looks_to_try = LOOKS_BETWEEN_TRIES;
    tracing::warn!(
        client = entry.name,
        brokers = entry.brokers,
        "the client knows no broker any more, although its bootstrap servers accept connections; it is given them again"
    );
    entry.client.add_brokers(&entry.brokers);
}

impl Native {
    fn new<C: ClientContext>(client: &Client<C>, topic: Option<&str>) -> Self {
        // SAFETY: a client's handle is never null.
        let client = unsafe { NonNull::new_unchecked(client.native_ptr()) };
        let topic = topic.and_then(|topic| CString::new(topic).ok());
        let topic = topic.and_then(|topic| {
            // SAFETY: the client is alive, and the name is copied; null settings mean the client's own.
            NonNull::new(unsafe {
                sys::rd_kafka_topic_new(client.as_ptr(), topic.as_ptr(), ptr::null_mut())
            })
        });
        Self { client, topic }
    }

    fn name(&self) -> String {
        // SAFETY: the client is alive; the name lives as long as it does, and is copied.
        let name = unsafe { std::ffi::CStr::from_ptr(sys::rd_kafka_name(self.client.as_ptr())) };
        name.to_string_lossy().into_owned()
    }

    /// Whether the client has a connection to a broker. Without one it is told to make one. Waits for nothing.
    fn has_broker(&self) -> bool {
        let mut metadata = ptr::null();
        // SAFETY: the client is alive. With no time to wait the call gives no answer but an error: one if there is no broker to send
        // the request to, another if it was sent. Metadata that comes all the same is given back.
        unsafe {
            let topic = self.topic.map_or(ptr::null_mut(), NonNull::as_ptr);
            let error = sys::rd_kafka_metadata(self.client.as_ptr(), 0, topic, &mut metadata, 0);
            if !metadata.is_null() {
                sys::rd_kafka_metadata_destroy(metadata);
            }
            error != RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT
        }
    }

    fn add_brokers(&self, brokers: &str) {
        let Ok(brokers) = CString::new(brokers) else {
            return;
        };
        // SAFETY: the client is alive; the string is copied.
        unsafe { sys::rd_kafka_brokers_add(self.client.as_ptr(), brokers.as_ptr()) };
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        if let Some(topic) = self.topic {
            // SAFETY: the handle is ours, and its client is still alive.
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

/// Host and port of a server as librdkafka takes it: `host`, `host:port` or `PROTOCOL://host:port`, IPv6 in brackets.
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

/// The table is whole after each statement, so a panic elsewhere does not matter.
fn lock() -> MutexGuard<'static, Option<Clients>> {
    CLIENTS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

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
