//! The state of an outbox for operators.
//!
//! The types are serialised as the tool's JSON: fields are added, never renamed or removed. A
//! snapshot has no lock, so its numbers may belong to slightly different moments.

use serde::Serialize;

/// The state of an outbox: the waiting events, the held keys, and the relays. Returned by
/// [`OutboxStore::status`](super::OutboxStore::status).
///
/// Events of free slots are not published until a relay takes the slots. A held key needs its cause
/// removed, or its row deleted; other keys continue.
///
/// # Examples
/// ```no_run
/// # use evenkeel::outbox::{OutboxError, OutboxStore};
/// # async fn example(store: OutboxStore) -> Result<(), OutboxError> {
/// let status = store.status().await?;
/// for key in &status.held {
///     println!("{} of {} is refused: {}", key.id, key.topic, key.reason);
/// }
/// if status.slots_free > 0 {
///     println!("{} slots have no relay", status.slots_free);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OutboxStatus {
    /// Committed events that are not published yet. An estimate beyond 10,000.
    pub pending: u64,
    /// Age of the oldest of them in milliseconds; `None` if there are none.
    pub oldest_age_ms: Option<u64>,
    /// Keys that wait because their first event was refused, the longest wait first; at most 1,000.
    pub held: Vec<HeldKey>,
    /// The active relays, with the number of slots of each.
    pub relays: Vec<RelayShare>,
    /// Slots without a relay: their events are not published.
    pub slots_free: u32,
    /// The oldest open transaction that has written to the outbox. Its events are not visible yet,
    /// and its keys wait.
    pub open_transaction: Option<OpenTransaction>,
}

/// A key that waits because its first event was refused. The relay retries it, in the end every
/// minute by default, so it continues by itself once the cause is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HeldKey {
    /// The row of the refused event. If an operator deletes the row, the event is given up, and the
    /// key continues.
    pub sequence: i64,
    /// The refused event's id.
    pub id: String,
    /// The refused event's type.
    pub r#type: String,
    /// The topic of the refused event.
    pub topic: String,
    /// The key, if it is text.
    pub key: Option<String>,
    /// When it was refused first, in milliseconds since the epoch.
    pub since_ms: i64,
    /// The last error of the brokers or the client.
    pub reason: String,
    /// How many events of the key wait, including the refused one.
    pub pending: u64,
}

/// An active relay. It is listed until its last registration expires, also after a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RelayShare {
    /// Its name: host, process, and a random part.
    pub relay: String,
    /// The number of its slots.
    pub slots: u32,
}

/// An open transaction that has written to the outbox. While it is open, its events are not
/// published, and other transactions that publish on its keys wait. PostgreSQL only: in SQLite such
/// a transaction locks the whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OpenTransaction {
    /// The process id on the server.
    pub pid: i32,
    /// The application name of the client.
    pub application: String,
    /// Its state, for example `idle in transaction`.
    pub state: String,
    /// How long it has been open, in milliseconds.
    pub age_ms: u64,
}

impl RelayShare {
    /// A row of the stores' queries.
    pub(super) fn of((relay, slots): (String, i64)) -> Self {
        Self {
            relay,
            slots: u32::try_from(slots).unwrap_or(0),
        }
    }
}
