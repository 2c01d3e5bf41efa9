//! What an operator sees of an outbox.

use serde::Serialize;

/// What waits in an outbox, what does not get out of it, and who looks after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutboxStatus {
    /// Committed events that are not published yet; an estimate beyond 10,000.
    pub pending: u64,
    /// Age of the oldest of them in milliseconds.
    pub oldest_age_ms: Option<u64>,
    /// Keys that wait because their first event was refused, those that have waited longest first; at most 1,000.
    pub held: Vec<HeldKey>,
    /// The relays that are there, and how many of the slots each has.
    pub relays: Vec<RelayShare>,
    /// Slots that no relay has: nobody publishes their events.
    pub slots_free: u32,
    /// The oldest open transaction that has written to the outbox; what it wrote is not seen yet, and its keys wait.
    pub open_transaction: Option<OpenTransaction>,
}

/// A key that waits because its first event was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeldKey {
    /// The row of the refused event. Who deletes it gives the event up, and the key goes on.
    pub sequence: i64,
    /// The refused event's id.
    pub id: String,
    /// Its type.
    pub r#type: String,
    /// Where it was to go.
    pub topic: String,
    /// Its key, if that is text.
    pub key: Option<String>,
    /// When it was refused first, in milliseconds since the epoch.
    pub since_ms: i64,
    /// What the brokers or the client said last.
    pub reason: String,
    /// How many events wait, itself included.
    pub pending: u64,
}

/// A relay that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RelayShare {
    /// Its name: host, process, and a part by chance.
    pub relay: String,
    /// How many slots it has.
    pub slots: u32,
}

/// A transaction that has written to the outbox and goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OpenTransaction {
    /// The server process.
    pub pid: i32,
    /// What the client calls itself.
    pub application: String,
    /// What it is doing, for example `idle in transaction`.
    pub state: String,
    /// How long it has been open, in milliseconds.
    pub age_ms: u64,
}

impl RelayShare {
    pub(super) fn of((relay, slots): (String, i64)) -> Self {
        Self {
            relay,
            slots: u32::try_from(slots).unwrap_or(0),
        }
    }
}
