//! The trait of an outbox's store, for relays and operators.
//!
//! Owns the contract; `conformance.rs` holds it as executable cases. Every method may wait for the
//! store. The relay drops a call that takes too long, so each method must leave the store
//! consistent when its future is dropped.

use super::OutboxError;
use super::status::{OpenTransaction, OutboxStatus};
use crate::event::OutgoingRecord;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The answer of a store.
pub(crate) type Answer<'a, T> = BoxFuture<'a, Result<T, OutboxError>>;

/// An outbox's table and its leases. Called by the relay's task and by operators' commands. Times
/// are measured by the store's clock, so that the clocks of relays need not agree.
pub(crate) trait Store: Send + Sync + 'static {
    /// Registers `relay` for the next `lease`. Returns all registered relays and the leases of the
    /// slots. Those of others that end after [`latest_end`] are removed: the store's clock was set
    /// back since they were made.
    fn register<'a>(&'a self, relay: &'a str, lease: Duration) -> Answer<'a, RelaysAndLeases>;

    /// Leases those of `slots` to `relay` that it has or that are free, from now on for `lease`.
    /// Returns them.
    fn lease<'a>(
        &'a self,
        relay: &'a str,
        slots: &'a [i16],
        lease: Duration,
    ) -> Answer<'a, Vec<i16>>;

    /// Releases those of `slots` that `relay` has; others are not changed.
    fn release<'a>(&'a self, relay: &'a str, slots: &'a [i16]) -> Answer<'a, ()>;

    /// Removes `relay` from the registered relays, if it is one. Its slots stay leased.
    fn deregister<'a>(&'a self, relay: &'a str) -> Answer<'a, ()>;

    /// Removes `relay` from the registered relays, and releases all its slots, also if it is not
    /// registered any more.
    fn leave<'a>(&'a self, relay: &'a str) -> Answer<'a, ()>;

    /// Removes `relay` from the registered relays if another one is registered, and returns whether
    /// another one is. One atomic step: of relays that call it at the same time, the last one
    /// stays. It counts only registrations that have not expired. The slots of `relay` stay leased.
    /// If `relay` is not registered, the answer is the same and nothing changes.
    fn leave_to_another<'a>(&'a self, relay: &'a str) -> Answer<'a, bool>;

    /// Reads committed rows in the order of their numbers. For each key that is not excluded, it
    /// reads the first rows.
    fn read<'a>(&'a self, page: &'a Page) -> Answer<'a, ReadPage>;

    /// Deletes these rows, but no other row with the number of one of them. Rows that no longer
    /// exist are no error.
    fn delete<'a>(&'a self, rows: &'a [RowId]) -> Answer<'a, ()>;

    /// Writes beside each of these rows why it cannot be published, and since when: the first time
    /// is kept, and the last reason. One statement for all, because there may be as many as a relay
    /// has read. Rows that no longer exist are no error.
    fn mark<'a>(&'a self, failures: &'a BTreeMap<RowId, String>) -> Answer<'a, ()>;

    /// Whether nothing waits except for keys with a marked row, and rows of these topics.
    fn is_drained<'a>(&'a self, without_topics: &'a [String]) -> Answer<'a, bool>;

    /// The size of the backlog, computed cheaply.
    fn backlog(&self) -> Answer<'_, Backlog>;

    /// The oldest transaction that has written to the outbox and is open for longer than `age`.
    fn open_transaction(&self, age: Duration) -> Answer<'_, Option<OpenTransaction>>;

    /// The state of the outbox for operators.
    fn status(&self) -> Answer<'_, OutboxStatus>;

    /// Returns when a transaction may have been committed; never returns if the store cannot detect
    /// commits. The future may be dropped at any time.
    fn committed(&self) -> BoxFuture<'_, ()>;
}

/// The registered relays and the leases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RelaysAndLeases {
    /// The registered relays, sorted, including the caller.
    pub(crate) relays: Vec<String>,
    /// The leased slots.
    pub(crate) leases: Vec<SlotLease>,
}

/// A slot that a relay has leased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlotLease {
    pub(crate) slot: i16,
    pub(crate) owner: String,
    pub(crate) expires_in: Duration,
}

/// A request of a relay for rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// Rows of these slots only.
    pub(crate) slots: Vec<i16>,
    /// No rows of these hashes.
    pub(crate) without_keys: Vec<i64>,
    /// No rows of these topics, unless they have one of the hashes of `due_keys`.
    pub(crate) without_topics: Vec<String>,
    pub(crate) due_keys: Vec<i64>,
    /// Bounds the number of rows.
    pub(crate) rows_max: usize,
    /// Bounds the bytes of the rows, but one row is always read.
    pub(crate) bytes_max: usize,
}

/// The rows of a read.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ReadPage {
    pub(crate) rows: Vec<StoredRow>,
    /// All requested rows were read; no limit was reached.
    pub(crate) is_whole: bool,
}

impl ReadPage {
    /// A page of at most `rows_max` rows, if `found` rows were found before the limit of bytes was
    /// applied.
    pub(crate) fn of(rows: Vec<StoredRow>, found: i64, rows_max: usize) -> Self {
        Self {
            is_whole: rows.len() < rows_max && limit(rows.len()) == found,
            rows,
        }
    }
}

/// Identifies a row. A number alone is not enough: numbers are reused after a failover to a server
/// without the last rows, and after a backup was restored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RowId {
    /// The number, by which rows are ordered.
    pub(crate) sequence: i64,
    /// The id of its event.
    pub(crate) event: Arc<str>,
}

/// A row as it was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredRow {
    pub(crate) id: RowId,
    pub(crate) key_hash: i64,
    pub(crate) slot: i16,
    pub(crate) topic: String,
    /// Its approximate size in memory.
    pub(crate) bytes: usize,
    /// The record, or why it cannot be read.
    pub(crate) record: Result<OutgoingRecord, String>,
}

/// The size of the backlog.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    /// Committed rows; exact up to [`Backlog::EXACT_MAX`], then an estimate.
    pub(crate) pending: u64,
    /// Age of the oldest row.
    pub(crate) oldest: Option<Duration>,
    /// Keys whose first row is marked.
    pub(crate) held_keys: u64,
}

impl Backlog {
    /// The maximum number of rows that are counted.
    pub(crate) const EXACT_MAX: u64 = 10_000;
}

impl Backlog {
    /// The number of waiting rows, from those counted up to the limit and an estimate of all.
    pub(crate) fn pending(counted: i64, estimated: i64) -> u64 {
        let counted = count(counted);
        match counted > Self::EXACT_MAX {
            true => counted.max(count(estimated)),
            false => counted,
        }
    }
}

/// Milliseconds in the format of the stores' statements.
pub(super) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// So many of a relay's leases from now, the lease of another relay ends at the latest, also if its
/// settings differ.
const LEASES_MAX: u32 = 100;

/// The same for a relay with a short lease.
const LATEST_END_MIN: Duration = Duration::from_secs(3_600);

/// How long from now a lease or a registration may end, in milliseconds, as a relay with this lease
/// judges it. A later end would outlast its relay, if that was killed, by as much as the clock was
/// set back.
pub(super) fn latest_end(lease: Duration) -> i64 {
    milliseconds(lease.saturating_mul(LEASES_MAX).max(LATEST_END_MIN))
}

/// A duration that a store computed; a negative one is zero.
pub(super) fn duration(milliseconds: i64) -> Duration {
    Duration::from_millis(count(milliseconds))
}

/// A number that a store counted.
pub(super) fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A limit in the format of the stores' statements.
pub(super) fn limit(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Bounds the length of a reason that is written beside a row.
const REASON_MAX: usize = 1_000;

/// A reason that fits into its column.
pub(super) fn reason(failure: &str) -> String {
    failure
        .chars()
        .filter(|character| *character != '\0')
        .take(REASON_MAX)
        .collect()
}
