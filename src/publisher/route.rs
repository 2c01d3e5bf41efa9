//! The batching of one topic's records, and the handling of batches that the brokers refuse as a
//! whole.
//!
//! Brokers accept or refuse a batch as a whole, so that a refusal does not show which record caused
//! it. The route closes when a batch is refused: no further record of the topic is passed to a
//! client until all records in flight are settled. Then the refused records are sent one by one, in
//! their order, and the route opens again. Thus no record overtakes another of its key. A record
//! whose key was overtaken before the route closed is refused to its caller instead.
//!
//! Does not know the client: [`super::producer`] sends and reports.
//!
//! # States
//! | state | admits | left by |
//! |---|---|---|
//! | limit unknown | one record at a time | `set_batch_limit`, with the topic's largest batch |
//! | batched, smaller, alone | every record, in that mode | a refused batch |
//! | closed | nothing | `take_refused`, when no record is in flight |
//!
//! A single record in flight needs no limit, because it shares its batch with no other. So a
//! service that awaits each publish never waits for a limit.
//!
//! # Why no record enters a closed route
//! `try_enter` counts the record before it reads the state. Closing sets the state before the count
//! is read. With sequentially consistent operations one of the two sees the other: either the
//! record sees the closed route and leaves again, or `take_refused` sees the record and waits for
//! it.

use super::error::Failure;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{MutexGuard as Turn, Notify};

/// Smaller batches than this are not worth a producer of their own.
const BATCH_BYTES_MIN: usize = 4096;
/// How long a known limit of the topic is used before it is looked up again.
const LIMIT_VALID_FOR: Duration = Duration::from_secs(10);

/// How a record is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendMode {
    /// In batches as large as the client's settings allow.
    Batched,
    /// In batches of at most so many bytes.
    Smaller(usize),
    /// Each record in a batch of its own.
    Alone,
}

impl SendMode {
    /// The mode for a topic that accepts batches of up to `limit` bytes, from a client that builds
    /// batches of up to `batch_max`.
    pub(super) fn for_limit(limit: usize, batch_max: usize) -> Self {
        if limit >= batch_max {
            return Self::Batched;
        }
        match limit.checked_ilog2().map(|log| 1 << log) {
            Some(bytes) if bytes >= BATCH_BYTES_MIN => Self::Smaller(bytes),
            _ => Self::Alone,
        }
    }
}

/// Why a record cannot be passed to a client now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotAdmitted {
    /// Refused records are sent first.
    Closed,
    /// Several records would be in flight, and the topic's limit of a batch is unknown.
    LimitUnknown,
}

/// The order of a record whose batch was refused. A trait, so that tests of the route need no
/// client.
pub(super) trait RefusedRecord {
    /// Its number in the order in which the publisher sends.
    fn sequence(&self) -> u64;
    /// The partition that the client assigned it to.
    fn partition(&self) -> i32;
    /// Its key. None if it has none, and thus no order.
    fn key(&self) -> Option<&Bytes>;
}

/// The records of one topic in flight. `R` is the kept form of a refused record.
pub(super) struct TopicRoute<R> {
    state: AtomicUsize,
    /// Records passed to a client and not settled.
    in_flight: AtomicUsize,
    waiting: AtomicUsize,
    /// Held by the first of the waiting callers.
    turn: tokio::sync::Mutex<()>,
    opened: Notify,
    closing: Mutex<ClosedState<R>>,
}

/// The states of a route. Every larger number is a [`SendMode::Smaller`].
const LIMIT_UNKNOWN: usize = 0;
const CLOSED: usize = 1;
const BATCHED: usize = 2;
const ALONE: usize = 3;

/// The number that stands for a mode. The bytes of [`SendMode::Smaller`] are above those of the
/// states, as they are at least [`BATCH_BYTES_MIN`].
fn state_of(mode: SendMode) -> usize {
    match mode {
        SendMode::Batched => BATCHED,
        SendMode::Smaller(bytes) => bytes,
        SendMode::Alone => ALONE,
    }
}

/// The state of a closed route, and the known limit of the topic.
struct ClosedState<R> {
    /// The state after it opens again.
    next: usize,
    refused: Vec<R>,
    /// The last record of each key that was written since the route closed.
    written: HashMap<(i32, Bytes), u64>,
    /// A batch was refused for its size.
    is_too_large: bool,
    /// A refused record was accepted alone.
    was_accepted_alone: bool,
    /// The limit, and when it was looked up.
    limit: Option<(Instant, SendMode)>,
    /// The brokers do not show the limit, and batches were refused for their size.
    falls_back_to_alone: bool,
}

impl<R> Default for ClosedState<R> {
    fn default() -> Self {
        Self {
            next: LIMIT_UNKNOWN,
            refused: Vec::new(),
            written: HashMap::new(),
            is_too_large: false,
            was_accepted_alone: false,
            limit: None,
            falls_back_to_alone: false,
        }
    }
}

/// The first place among the waiting callers.
pub(super) struct FirstInQueue<'a, R> {
    route: &'a TopicRoute<R>,
    _turn: Turn<'a, ()>,
    _waiting: Waiting<'a>,
}

/// Counts a waiting caller until it is dropped, so that a cancelled future is counted off too.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl<R: RefusedRecord> TopicRoute<R> {
    /// Creates the route of a client that batches, or of one that sends each record alone anyway.
    pub(super) fn new(batches: bool) -> Self {
        Self {
            state: AtomicUsize::new(if batches { LIMIT_UNKNOWN } else { BATCHED }),
            in_flight: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            turn: tokio::sync::Mutex::new(()),
            opened: Notify::new(),
            closing: Mutex::default(),
        }
    }

    /// Admits a record, unless others wait or the route admits none now.
    pub(super) fn enter(&self) -> Option<SendMode> {
        if self.waiting.load(SeqCst) > 0 {
            return None;
        }
        self.try_enter().ok()
    }

    /// Waits until the caller is first. First come, first served.
    pub(super) async fn queue(&self) -> FirstInQueue<'_, R> {
        self.waiting.fetch_add(1, SeqCst);
        let waiting = Waiting(&self.waiting);
        FirstInQueue {
            route: self,
            _turn: self.turn.lock().await,
            _waiting: waiting,
        }
    }

    /// Admits a record if the route is open. The count of records in flight is kept only then.
    fn try_enter(&self) -> Result<SendMode, NotAdmitted> {
        // Counted before the state is read: closing the route reads the count afterwards.
        let others = self.in_flight.fetch_add(1, SeqCst);
        let not_admitted = match self.state.load(SeqCst) {
            BATCHED => return Ok(SendMode::Batched),
            ALONE => return Ok(SendMode::Alone),
            // A single record in flight shares its batch with no other.
            LIMIT_UNKNOWN if others == 0 => return Ok(SendMode::Batched),
            LIMIT_UNKNOWN => NotAdmitted::LimitUnknown,
            CLOSED => NotAdmitted::Closed,
            bytes => return Ok(SendMode::Smaller(bytes)),
        };
        self.in_flight.fetch_sub(1, SeqCst);
        Err(not_admitted)
    }

    /// Notes that records are settled. Returns whether [`Self::take_refused`] must be called.
    pub(super) fn leave(&self, records: usize) -> bool {
        self.in_flight.fetch_sub(records, SeqCst) == records && self.is_closed()
    }

    /// Whether no record is admitted, so that each written one is noted by
    /// [`Self::record_written`].
    pub(super) fn is_closed(&self) -> bool {
        self.state.load(SeqCst) == CLOSED
    }

    /// Keeps a record whose batch was refused, and closes the route. It stays in flight until
    /// [`Self::leave`].
    pub(super) fn refuse(&self, record: R, is_too_large: bool) {
        let mut closing = self.closing();
        self.close(&mut closing);
        closing.is_too_large |= is_too_large;
        closing.refused.push(record);
    }

    /// Notes that a record was written.
    pub(super) fn record_written(&self, partition: i32, key: Option<&[u8]>, sequence: u64) {
        if !self.is_closed() {
            return;
        }
        let Some(key) = key else { return };
        let mut closing = self.closing();
        let place = (partition, Bytes::copy_from_slice(key));
        let last = closing.written.entry(place).or_default();
        *last = sequence.max(*last);
    }

    /// Notes that a refused record was accepted alone.
    pub(super) fn record_accepted_alone(&self) {
        if self.is_closed() {
            self.closing().was_accepted_alone = true;
        }
    }

    /// Returns the refused records in their order, once no other record is in flight, each with
    /// whether a later record of its key has overtaken it. They count as in flight. If there are
    /// none, the route opens.
    pub(super) fn take_refused(&self) -> Vec<(R, bool)> {
        let mut closing = self.closing();
        if !self.is_closed() || self.in_flight.load(SeqCst) > 0 {
            return Vec::new();
        }
        if closing.refused.is_empty() {
            self.open(&mut closing);
            return Vec::new();
        }
        let mut refused = std::mem::take(&mut closing.refused);
        refused.sort_by_key(R::sequence);
        self.in_flight.fetch_add(refused.len(), SeqCst);
        let written = std::mem::take(&mut closing.written);
        drop(closing);
        let overtaken = |record: &R| {
            let key = record.key()?.clone();
            let last = written.get(&(record.partition(), key))?;
            Some(*last > record.sequence())
        };
        let with_order = refused.into_iter().map(|record| {
            let is_overtaken = overtaken(&record).unwrap_or(false);
            (record, is_overtaken)
        });
        with_order.collect()
    }

    /// Notes the largest batch that the topic accepts. None if the brokers do not show it. Returns
    /// whether [`Self::take_refused`] must be called.
    pub(super) fn set_batch_limit(&self, mode: Option<SendMode>) -> bool {
        let mut closing = self.closing();
        closing.limit = mode.map(|mode| (Instant::now(), mode));
        if self.state.load(SeqCst) != LIMIT_UNKNOWN {
            return false;
        }
        let fallback = if closing.falls_back_to_alone {
            SendMode::Alone
        } else {
            SendMode::Batched
        };
        let mode = mode.unwrap_or(fallback);
        if mode == SendMode::Batched {
            self.state.store(BATCHED, SeqCst);
            self.opened.notify_waiters();
            return false;
        }
        // Another client sends the topic's records from now on. The records in flight through this
        // one come first.
        self.close(&mut closing);
        closing.next = state_of(mode);
        true
    }

    /// Closes the route, and remembers the state to which it opens again.
    fn close(&self, closing: &mut ClosedState<R>) {
        let state = self.state.swap(CLOSED, SeqCst);
        if state != CLOSED {
            closing.next = state;
        }
    }

    /// Opens the route again. If a record of a batch that was refused for its size was accepted
    /// alone, the known limit of the topic is wrong: it is looked up again, or a recent one is
    /// used.
    fn open(&self, closing: &mut ClosedState<R>) {
        let is_limit_wrong = closing.is_too_large && closing.was_accepted_alone;
        closing.falls_back_to_alone |= is_limit_wrong;
        closing.is_too_large = false;
        closing.was_accepted_alone = false;
        closing.written.clear();
        let next = match closing.limit {
            Some((at, mode)) if is_limit_wrong && at.elapsed() < LIMIT_VALID_FOR => state_of(mode),
            _ if is_limit_wrong => LIMIT_UNKNOWN,
            _ => closing.next,
        };
        self.state.store(next, SeqCst);
        self.opened.notify_waiters();
    }

    fn closing(&self) -> MutexGuard<'_, ClosedState<R>> {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: RefusedRecord> FirstInQueue<'_, R> {
    /// Admits the record as soon as the route is open. Returns none at once while the topic's limit
    /// is unknown.
    pub(super) async fn enter(&self) -> Option<SendMode> {
        loop {
            let opened = self.route.opened.notified();
            match self.route.try_enter() {
                Ok(mode) => return Some(mode),
                Err(NotAdmitted::LimitUnknown) => return None,
                Err(NotAdmitted::Closed) => opened.await,
            }
        }
    }
}

/// The failure of a record that would be written after a later one of its key.
pub(super) fn overtaken_failure() -> Failure {
    Failure::Refused(
        "the brokers refused the batch that it was in, and a later record of its key is on the \
         log already; \
         publish it again only if the order does not matter"
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_fit_into_what_the_topic_takes() {
        const MAX: usize = 1_000_000;
        assert_eq!(SendMode::for_limit(1_048_588, MAX), SendMode::Batched);
        assert_eq!(SendMode::for_limit(MAX, MAX), SendMode::Batched);
        assert_eq!(
            SendMode::for_limit(999_999, MAX),
            SendMode::Smaller(524_288)
        );
        assert_eq!(SendMode::for_limit(20_000, MAX), SendMode::Smaller(16_384));
        assert_eq!(SendMode::for_limit(4_095, MAX), SendMode::Alone);
        assert_eq!(SendMode::for_limit(0, MAX), SendMode::Alone);
    }
}
