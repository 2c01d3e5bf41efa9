//! The port: what a relay and an operator ask of an outbox's store.
//!
//! Owns the contract; `conformance.rs` holds it as executable statements. Every method may wait for the store and is cut off by
//! the relay where that takes too long, so each leaves the store sound when its future is dropped.

use super::OutboxError;
use super::status::{OpenTransaction, OutboxStatus};
use crate::event::OutgoingRecord;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The answer of a store.
pub(crate) type Answer<'a, T> = BoxFuture<'a, Result<T, OutboxError>>;

/// An outbox's table and its leases. Times are the store's own clock's, so that relays need not agree on theirs.
pub(crate) trait Store: Send + Sync + 'static {
    /// Notes that `relay` is there for the next `lease`, and says who else is and who has which slots.
    fn attend<'a>(&'a self, relay: &'a str, lease: Duration) -> Answer<'a, Standing>;

    /// Leases those of `slots` to `relay` that it has or nobody has, from now on for `lease`. Returns them.
    fn lease<'a>(
        &'a self,
        relay: &'a str,
        slots: &'a [i16],
        lease: Duration,
    ) -> Answer<'a, Vec<i16>>;

    /// Gives slots back that `relay` has; others are left alone.
    fn release<'a>(&'a self, relay: &'a str, slots: &'a [i16]) -> Answer<'a, ()>;

    /// Takes `relay` off the list of those who are there, and gives back whatever it has.
    fn leave<'a>(&'a self, relay: &'a str) -> Answer<'a, ()>;

    /// Reads committed rows in the order of their numbers. Of each key that is not left out, the rows are its first ones.
    fn read<'a>(&'a self, page: &'a Page) -> Answer<'a, ReadPage>;

    /// Deletes these rows, and none that has the number of one of them. Those that are gone already are no error.
    fn delete<'a>(&'a self, rows: &'a [RowId]) -> Answer<'a, ()>;

    /// Writes beside each of these rows why it cannot be published, and since when: the first time counts, the last reason.
    /// All of them in one statement, as there may be as many as a relay has read. Those that are gone already are no error.
    fn mark<'a>(&'a self, failures: &'a BTreeMap<RowId, String>) -> Answer<'a, ()>;

    /// Whether nothing waits but keys with a marked row, and rows of these topics.
    fn is_drained<'a>(&'a self, without_topics: &'a [String]) -> Answer<'a, bool>;

    /// How much waits, cheaply.
    fn backlog(&self) -> Answer<'_, Backlog>;

    /// The oldest transaction that has written to the outbox and is open for longer than `age`.
    fn open_transaction(&self, age: Duration) -> Answer<'_, Option<OpenTransaction>>;

    /// What an operator wants to know.
    fn status(&self) -> Answer<'_, OutboxStatus>;

    /// Returns when something may have been committed; may take for ever where the store cannot tell. Can be dropped at any time.
    fn committed(&self) -> BoxFuture<'_, ()>;
}

/// Who is there and who has what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The relays that are there, sorted; the asking one among them.
    pub(crate) relays: Vec<String>,
    /// The slots that somebody has.
    pub(crate) leases: Vec<Leased>,
}

/// A slot that a relay has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leased {
    pub(crate) slot: i16,
    pub(crate) owner: String,
    pub(crate) expires_in: Duration,
}

/// What a relay wants to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// Rows of these slots only.
    pub(crate) slots: Vec<i16>,
    /// No rows of these hashes.
    pub(crate) without_keys: Vec<i64>,
    /// No rows of these topics, unless they have one of the hashes of `yet_keys`.
    pub(crate) without_topics: Vec<String>,
    pub(crate) yet_keys: Vec<i64>,
    /// At most so many rows.
    pub(crate) rows_max: usize,
    /// At most so many bytes, but at least one row.
    pub(crate) bytes_max: usize,
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ReadPage {
    pub(crate) rows: Vec<StoredRow>,
    /// These are all rows that were asked for; no limit has cut any off.
    pub(crate) is_whole: bool,
}

impl ReadPage {
    /// A page of at most `rows_max` rows, where so many were found before the bytes were limited.
    pub(crate) fn of(rows: Vec<StoredRow>, found: i64, rows_max: usize) -> Self {
        Self {
            is_whole: rows.len() < rows_max && limit(rows.len()) == found,
            rows,
        }
    }
}

/// Which row it is: a number alone is not enough, as numbers come again after a failover to a server that did not have the last
/// ones, and after a backup was restored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RowId {
    /// Its number, by which rows are ordered.
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
    /// What it takes in memory, roughly.
    pub(crate) bytes: usize,
    /// The record, or why it cannot be read.
    pub(crate) record: Result<OutgoingRecord, String>,
}

/// How much waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    /// Committed rows; exact up to [`Backlog::EXACT_MAX`], then an estimate.
    pub(crate) pending: u64,
    /// Age of the first of them.
    pub(crate) oldest: Option<Duration>,
    /// Keys whose first row is marked.
    pub(crate) held_keys: u64,
}

impl Backlog {
    /// Up to here rows are counted.
    pub(crate) const EXACT_MAX: u64 = 10_000;
}

impl Backlog {
    /// The rows that wait, from those counted up to the limit and an estimate of all.
    pub(crate) fn pending(counted: i64, estimated: i64) -> u64 {
        let counted = count(counted);
        match counted > Self::EXACT_MAX {
            true => counted.max(count(estimated)),
            false => counted,
        }
    }
}

/// Milliseconds as the stores' statements take them.
pub(super) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A time that a store worked out; none below nothing.
pub(super) fn duration(milliseconds: i64) -> Duration {
    Duration::from_millis(count(milliseconds))
}

/// A number that a store counted.
pub(super) fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A limit as the stores' statements take it.
pub(super) fn limit(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The longest reason that is written beside a row.
const REASON_MAX: usize = 1_000;

/// A reason as a column can hold it.
pub(super) fn reason(failure: &str) -> String {
    failure
        .chars()
        .filter(|character| *character != '\0')
        .take(REASON_MAX)
        .collect()
}
