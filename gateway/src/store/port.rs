//! What a store does for the gateway.

use super::AcceptError;
use bytes::Bytes;
use evenkeel::event::OutgoingRecord;
use evenkeel::inbox::BoxFuture;
use std::time::Duration;
use tokio::time::Instant;

/// Events of one request, to be made durable together or not at all.
#[derive(Debug, Clone)]
pub struct AcceptRequest {
    /// The events, in the order of the request. At least one.
    pub events: Vec<AcceptedEvent>,
    /// The caller's `Idempotency-Key`, if it sent one.
    pub idempotency: Option<IdempotencyClaim>,
    /// The answer to the request, kept with the key so that a repetition gets the same. Empty
    /// without a key.
    pub answer: StoredAnswer,
    /// The time at which the caller stops waiting. A request that has not begun by then is not
    /// accepted.
    pub deadline: Option<Instant>,
}

/// An event of a request, encoded.
#[derive(Debug, Clone)]
pub struct AcceptedEvent {
    /// Its `source`.
    pub source: String,
    /// Its `id`.
    pub id: String,
    /// Its `type`.
    pub ty: String,
    /// The SHA-256 of its type, its key and its data, by which a repetition is told from a reuse
    /// of the id. Zeros for a store that keeps no identities.
    pub fingerprint: [u8; 32],
    /// The record to publish.
    pub record: OutgoingRecord,
}

/// An `Idempotency-Key` as used by one caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyClaim {
    /// The caller's name: keys of different callers are independent.
    pub principal: String,
    /// The key.
    pub key: String,
    /// The SHA-256 of method, path, content type and body.
    pub fingerprint: [u8; 32],
}

/// An answer as it is kept with an `Idempotency-Key`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredAnswer {
    /// HTTP status.
    pub status: u16,
    /// Headers that belong to the answer, such as `Location` and `traceparent`.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// How a request was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Accepted {
    /// The events are durable now.
    New,
    /// The same request was accepted before, with this answer. Nothing is published again.
    Repeated(StoredAnswer),
}

/// Where an accepted event is, as far as the store knows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventPlace {
    /// Its `source`.
    pub source: String,
    /// Its `id`.
    pub id: String,
    /// Its `type`.
    pub ty: String,
    /// The topic that it is, or will be, published to.
    pub topic: String,
    /// The record key.
    pub key: Option<Bytes>,
    /// When it was accepted, milliseconds since 1970.
    pub accepted_ms: i64,
    /// Whether it still waits in the outbox. False if the brokers have it, or had it.
    pub in_outbox: bool,
    /// Partition and offset, if the store knows them.
    pub position: Option<(i32, i64)>,
}

impl EventPlace {
    /// Creates the place of an event that the brokers have; see the fields for the rest.
    pub fn new(source: String, id: String, ty: String, topic: String, accepted_ms: i64) -> Self {
        Self {
            source,
            id,
            ty,
            topic,
            key: None,
            accepted_ms,
            in_outbox: false,
            position: None,
        }
    }
}

/// What waits in a store for the brokers. Admission decides by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Backlog {
    /// Accepted events that the brokers have not acknowledged.
    pub events: u64,
    /// The age of the oldest of them.
    pub oldest_age: Option<Duration>,
    /// Events acknowledged by the brokers since the store was opened by this process, for the
    /// measure of the drain rate.
    pub drained: u64,
}

/// Makes events durable. All methods are called from request tasks of a tokio runtime and must not
/// block its threads. A dropped future of [`accept`](Self::accept) leaves it open whether the
/// events were accepted: both are correct, and a repetition with the same key or ids finds out. One
/// that was polled is to be polled to its end or dropped: held meanwhile, its events count as the
/// backlog, by whose age posts are refused.
pub trait AcceptStore: Send + Sync + 'static {
    /// Makes the events of a request durable, all or none, in the order in which requests of one
    /// caller were made one after the other.
    ///
    /// An event whose `source` and `id` were accepted before is not published again: with the same
    /// fingerprint it counts as accepted, with another the request fails with
    /// [`AcceptError::Reused`]. A store that cannot know (see [`keeps_identities`]) publishes it
    /// again, and consumers recognise it by its id.
    ///
    /// [`keeps_identities`]: Self::keeps_identities
    ///
    /// # Errors
    /// See [`AcceptError`]. Nothing is accepted, but with [`AcceptError::Unknown`], and with an
    /// [`AcceptError::Rejected`] whose text names other events that were published: only a store
    /// that cannot take events back returns it.
    fn accept(&self, request: AcceptRequest) -> BoxFuture<'_, Result<Accepted, AcceptError>>;

    /// Where events with this id are, newest first; with a source, only that one.
    ///
    /// # Errors
    /// [`AcceptError::Unavailable`] if the store does not answer.
    fn find<'a>(
        &'a self,
        id: &'a str,
        source: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<EventPlace>, AcceptError>>;

    /// What waits. Cheap: a value that is refreshed in the background, at most a second old.
    fn backlog(&self) -> Backlog;

    /// Whether ids and `Idempotency-Key`s are kept, so that repetitions are recognised. Always the
    /// same.
    fn keeps_identities(&self) -> bool;

    /// Why the store accepts no event any more, if only a new process can. The server asks
    /// regularly, and ends the process with an error. Default: `None`.
    fn failed(&self) -> Option<String> {
        None
    }

    /// Its name for logs and metrics: `sqlite`, `postgres` or `brokers`.
    fn name(&self) -> &'static str;
}
