//! How the records of one topic are batched, and what becomes of a batch that the brokers refuse whole.
//!
//! Brokers accept or refuse a batch as a whole, so a refusal says nothing about a single record of it. The route closes
//! when a batch is refused: nothing more of the topic is handed to a client until everything under way is settled. Then
//! the refused records are sent one by one, in their order, and the route opens again. By that no record passes another
//! of its key. A record whose key was overtaken before the route closed is refused to its caller instead.
//!
//! Knows no client. [`super::client`] sends, [`super::reports`] reports.

use super::delivery::Delivery;
use super::error::Failure;
use bytes::Bytes;
use rdkafka::message::OwnedHeaders;
use rdkafka::types::RDKafkaErrorCode as Code;
use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{MutexGuard as Turn, Notify};

/// Smaller batches than this are not worth a producer of their own.
const BATCH_BYTES_MIN: usize = 4096;
/// How long an answer about the topic's limit is believed.
const LIMIT_KEPT: Duration = Duration::from_secs(10);

/// How a record is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// In batches as large as the client's settings allow.
    Batched,
    /// In batches of at most so many bytes.
    Smaller(usize),
    /// In a batch of its own.
    Alone,
}

impl Way {
    /// The way for a topic that takes batches of up to `limit` bytes, from a client that makes them up to `batch_max`.
    pub(super) fn within(limit: usize, batch_max: usize) -> Self {
        if limit >= batch_max {
            return Self::Batched;
        }
        match limit.checked_ilog2().map(|log| 1 << log) {
            Some(bytes) if bytes >= BATCH_BYTES_MIN => Self::Smaller(bytes),
            _ => Self::Alone,
        }
    }
}

/// Why a record cannot be handed over now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shut {
    /// Refused records are sent first.
    Closed,
    /// Several records would be under way, and how large a batch the topic takes is not known.
    Unproven,
}

/// A record whose batch was refused.
pub(super) struct Resend {
    pub(super) delivery: Arc<Delivery>,
    pub(super) partition: i32,
    pub(super) key: Option<Bytes>,
    pub(super) value: Option<Bytes>,
    pub(super) headers: Option<OwnedHeaders>,
    pub(super) timestamp_ms: Option<i64>,
    /// What the brokers said to its batch.
    pub(super) code: Code,
}

/// The records of one topic on their way.
pub(super) struct Route {
    state: AtomicUsize,
    /// Records handed over and not settled.
    under_way: AtomicUsize,
    waiting: AtomicUsize,
    /// Held by the one whose turn it is among those who wait.
    turn: tokio::sync::Mutex<()>,
    opened: Notify,
    closing: Mutex<Closing>,
}

/// The states of a route; every larger number is a [`Way::Smaller`].
const UNPROVEN: usize = 0;
const CLOSED: usize = 1;
const BATCHED: usize = 2;
const ALONE: usize = 3;

fn state_of(way: Way) -> usize {
    match way {
        Way::Batched => BATCHED,
        Way::Smaller(bytes) => bytes,
        Way::Alone => ALONE,
    }
}

/// What is known while a route is closed, and about the limit.
#[derive(Default)]
struct Closing {
    /// The state to return to.
    next: usize,
    refused: Vec<Resend>,
    /// The last record of each key that was written since.
    written: HashMap<(i32, Bytes), u64>,
    /// A batch was refused for its size.
    is_too_large: bool,
    /// A refused record was taken alone.
    is_company: bool,
    /// What the limit was, and when.
    limit: Option<(Instant, Way)>,
    /// The limit is not shown, and batches were refused for their size.
    is_alone_at_worst: bool,
}

/// A place at the front of those who wait.
pub(super) struct Queued<'a> {
    route: &'a Route,
    _turn: Turn<'a, ()>,
    _waiting: Waiting<'a>,
}

/// Counts one who waits, also when its future is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Route {
    /// A route of a client that batches, or of one that sends each record alone anyway.
    pub(super) fn new(batches: bool) -> Self {
        Self {
            state: AtomicUsize::new(if batches { UNPROVEN } else { BATCHED }),
            under_way: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            turn: tokio::sync::Mutex::new(()),
            opened: Notify::new(),
            closing: Mutex::default(),
        }
    }

    /// Takes a record on, unless others wait or the route is shut.
    pub(super) fn enter(&self) -> Option<Way> {
        if self.waiting.load(SeqCst) > 0 {
            return None;
        }
        self.try_enter().ok()
    }

    /// Waits for one's turn, first come, first served.
    pub(super) async fn queue(&self) -> Queued<'_> {
        self.waiting.fetch_add(1, SeqCst);
        let waiting = Waiting(&self.waiting);
        Queued {
            route: self,
            _turn: self.turn.lock().await,
            _waiting: waiting,
        }
    }

    fn try_enter(&self) -> Result<Way, Shut> {
        // Counted before the state is read: who closes the route reads the count afterwards.
        let others = self.under_way.fetch_add(1, SeqCst);
        let shut = match self.state.load(SeqCst) {
            BATCHED => return Ok(Way::Batched),
            ALONE => return Ok(Way::Alone),
            // One record at a time is never in company.
            UNPROVEN if others == 0 => return Ok(Way::Batched),
            UNPROVEN => Shut::Unproven,
            CLOSED => Shut::Closed,
            bytes => return Ok(Way::Smaller(bytes)),
        };
        self.under_way.fetch_sub(1, SeqCst);
        Err(shut)
    }

    /// A record is settled; whether [`Self::take_refused`] is to be called.
    pub(super) fn leave(&self) -> bool {
        self.under_way.fetch_sub(1, SeqCst) == 1 && self.state.load(SeqCst) == CLOSED
    }

    /// Keeps a record whose batch was refused, and closes the route. It stays under way until [`Self::leave`].
    pub(super) fn refuse(&self, record: Resend, is_too_large: bool) {
        let mut closing = self.closing();
        self.close(&mut closing);
        closing.is_too_large |= is_too_large;
        closing.refused.push(record);
    }

    /// A record was written.
    pub(super) fn written(&self, partition: i32, key: Option<&[u8]>, sequence: u64) {
        if self.state.load(SeqCst) != CLOSED {
            return;
        }
        let Some(key) = key else { return };
        let mut closing = self.closing();
        let place = (partition, Bytes::copy_from_slice(key));
        let last = closing.written.entry(place).or_default();
        *last = sequence.max(*last);
    }

    /// A refused record was taken alone.
    pub(super) fn passed_alone(&self) {
        if self.state.load(SeqCst) == CLOSED {
            self.closing().is_company = true;
        }
    }

    /// The refused records once nothing else is under way, in their order, and whether each is overtaken by a later one of
    /// its key. They count as under way. With none of them the route opens.
    pub(super) fn take_refused(&self) -> Vec<(Resend, bool)> {
        let mut closing = self.closing();
        if self.state.load(SeqCst) != CLOSED || self.under_way.load(SeqCst) > 0 {
            return Vec::new();
        }
        if closing.refused.is_empty() {
            self.open(&mut closing);
            return Vec::new();
        }
        let mut refused = std::mem::take(&mut closing.refused);
        refused.sort_by_key(|record| record.delivery.sequence);
        self.under_way.fetch_add(refused.len(), SeqCst);
        let written = std::mem::take(&mut closing.written);
        drop(closing);
        let overtaken = |record: &Resend| {
            let key = record.key.clone()?;
            let last = written.get(&(record.partition, key))?;
            Some(*last > record.delivery.sequence)
        };
        let judged = refused.into_iter().map(|record| {
            let is_overtaken = overtaken(&record).unwrap_or(false);
            (record, is_overtaken)
        });
        judged.collect()
    }

    /// What the topic takes; none where the brokers do not show it. Returns whether [`Self::take_refused`] is to be called.
    pub(super) fn learn(&self, way: Option<Way>) -> bool {
        let mut closing = self.closing();
        closing.limit = way.map(|way| (Instant::now(), way));
        if self.state.load(SeqCst) != UNPROVEN {
            return false;
        }
        let unshown = if closing.is_alone_at_worst {
            Way::Alone
        } else {
            Way::Batched
        };
        let way = way.unwrap_or(unshown);
        if way == Way::Batched {
            self.state.store(BATCHED, SeqCst);
            self.opened.notify_waiters();
            return false;
        }
        // Another client sends it from now on. What is under way through this one goes first.
        self.close(&mut closing);
        closing.next = state_of(way);
        true
    }

    fn close(&self, closing: &mut Closing) {
        let state = self.state.swap(CLOSED, SeqCst);
        if state != CLOSED {
            closing.next = state;
        }
    }

    fn open(&self, closing: &mut Closing) {
        let is_limit_wrong = closing.is_too_large && closing.is_company;
        closing.is_alone_at_worst |= is_limit_wrong;
        closing.is_too_large = false;
        closing.is_company = false;
        closing.written.clear();
        let next = match closing.limit {
            Some((at, way)) if is_limit_wrong && at.elapsed() < LIMIT_KEPT => state_of(way),
            _ if is_limit_wrong => UNPROVEN,
            _ => closing.next,
        };
        self.state.store(next, SeqCst);
        self.opened.notify_waiters();
    }

    fn closing(&self) -> MutexGuard<'_, Closing> {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queued<'_> {
    /// Takes the record on as soon as the route is open. Returns [`Shut::Unproven`] at once.
    pub(super) async fn enter(&self) -> Option<Way> {
        loop {
            let opened = self.route.opened.notified();
            match self.route.try_enter() {
                Ok(way) => return Some(way),
                Err(Shut::Unproven) => return None,
                Err(Shut::Closed) => opened.await,
            }
        }
    }
}

/// Whether the brokers refuse a batch of several records so for the sake of one of them.
pub(super) fn is_of_batch(code: Code) -> bool {
    is_of_size(code)
        || matches!(
            code,
            Code::InvalidRecord | Code::InvalidTimestamp | Code::InvalidDifferentRecord
        )
}

/// Whether the brokers refuse something so for its size.
pub(super) fn is_of_size(code: Code) -> bool {
    matches!(
        code,
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize
    )
}

/// Of a record that would be written behind a later one of its key.
pub(super) fn overtaken() -> Failure {
    Failure::Refused(
        "the brokers refused the batch that it was in, and a later record of its key is on the log already; \
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
        assert_eq!(Way::within(1_048_588, MAX), Way::Batched);
        assert_eq!(Way::within(MAX, MAX), Way::Batched);
        assert_eq!(Way::within(999_999, MAX), Way::Smaller(524_288));
        assert_eq!(Way::within(20_000, MAX), Way::Smaller(16_384));
        assert_eq!(Way::within(4_095, MAX), Way::Alone);
        assert_eq!(Way::within(0, MAX), Way::Alone);
    }
}
