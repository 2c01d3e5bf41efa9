//! Parking in a running consumer: the parked sets of the assigned partitions, and who is told of them.
//!
//! Owns what workers, recovery, the committer and the thread that reads the retry topics share. Decides nothing: that is
//! [`Parking`]'s. A partition's set lives as long as its assignment.

mod begin;
pub(super) mod clean;
mod fetch;
pub(super) mod follow;
mod gap;
mod hand_out;
mod look;
mod steer;
pub(super) mod write;

pub(crate) use look::parked_records;
pub use look::{ParkedKey, parked_keys};
pub(super) use steer::Dropped;

use super::ledger::{Epoch, Position};
use super::settings::{ConsumerSettings, Keyless, Ordering};
use crate::kafka::queue::ForwardedQueue;
use crate::recovery::parked::Wait;
use crate::recovery::parking::{Parking, Ticket};
use rdkafka::consumer::DefaultConsumerContext;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Parked records that are handed to workers and not back yet, at most.
const LOADED_MAX: usize = 1024;

/// The retry partition of an assigned partition.
pub(crate) struct RetryPartition {
    pub(crate) topic: Arc<str>,
    /// What it is committed under.
    pub(crate) epoch: Epoch,
    state: Mutex<Parking>,
    /// How many keys wait, for those who ask all the time.
    keys: AtomicUsize,
    is_open: AtomicBool,
}

impl RetryPartition {
    pub(crate) fn new(topic: Arc<str>, epoch: Epoch) -> Self {
        Self {
            topic,
            epoch,
            // Whole it is only once it is known where it ends.
            state: Mutex::new(Parking::new(0, i64::MAX, &[], 0, false)),
            keys: AtomicUsize::new(0),
            is_open: AtomicBool::new(false),
        }
    }

    /// Whether the parked set is whole, so that records of the partition may be handled.
    pub(crate) fn is_open(&self) -> bool {
        // Whoever sees it open sees the keys that wait.
        self.is_open.load(Acquire)
    }

    fn set_open(&self) {
        self.is_open.store(true, Release);
    }

    /// Whether no key waits, so that nobody has to be asked.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.load(Relaxed) == 0
    }

    /// Whether a record has to be parked behind others of its key. If so it counts as on its way.
    pub(crate) fn joins(&self, name: Option<&[u8]>, origin: i64) -> bool {
        !self.is_empty() && name.is_some_and(|name| self.change(|state| state.joins(name, origin)))
    }

    /// The wait behind a parked record that is about to start; none when it is not its turn.
    pub(crate) fn start(&self, ticket: Ticket) -> Option<Wait> {
        self.state().start(ticket)
    }

    /// Keys and records that wait.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let state = self.state();
        (state.keys(), state.records())
    }

    /// Where the group stands in it.
    pub(crate) fn position(&self) -> Option<Position> {
        let standing = self.state().standing()?;
        Some(Position {
            epoch: self.epoch,
            watermark: Some(standing.watermark),
            next: Some(standing.next),
            unsettled: standing.unsettled,
            // Where it was read from follows the log, also where that was made anew.
            fell_back: true,
            oldest_received_at: None,
        })
    }

    /// Changes the set.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Parking) -> T) -> T {
        let mut state = self.state();
        let changed = change(&mut state);
        self.keys.store(state.keys(), Relaxed);
        changed
    }

    fn state(&self) -> MutexGuard<'_, Parking> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the thread that reads retry partitions, whose queue it is.
type Waker = Arc<ForwardedQueue<DefaultConsumerContext>>;

/// What the consumer's parts share of parking.
#[derive(Default)]
pub(crate) struct ParkingLot {
    /// Retry topics that exist.
    topics: Mutex<HashSet<String>>,
    loaded: AtomicUsize,
    /// Records that wait for their retry topic to be writable.
    unwritten: AtomicUsize,
    /// Committed offsets of owned retry partitions.
    committed: Mutex<HashMap<(Arc<str>, i32), i64>>,
    waker: Mutex<Option<Waker>>,
}

impl ParkingLot {
    /// Retry topics that are there.
    pub(crate) fn add_topics(&self, topics: HashMap<String, usize>) {
        self.topics().extend(topics.into_keys());
    }

    /// Whether a retry topic exists. Where it has too few partitions it is given more.
    pub(crate) fn exists(&self, topic: &str) -> bool {
        self.topics().contains(topic)
    }

    /// A retry partition was committed at `offset`; with none it is another member's now.
    pub(crate) fn set_committed(&self, topic: &Arc<str>, partition: i32, offset: Option<i64>) {
        let mut committed = self
            .committed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match offset {
            Some(offset) => drop(committed.insert((Arc::clone(topic), partition), offset)),
            None => drop(committed.remove(&(Arc::clone(topic), partition))),
        }
    }

    /// Owned retry partitions by their committed offsets.
    fn committed(&self) -> HashMap<(Arc<str>, i32), i64> {
        let committed = self
            .committed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        committed.clone()
    }

    /// Has the thread that hands out parked records look again.
    pub(crate) fn wake(&self) {
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        waker.iter().for_each(|waker| waker.wake());
    }

    /// A parked record left its worker.
    pub(crate) fn left(&self) {
        self.loaded.fetch_sub(1, Relaxed);
        self.wake();
    }

    /// How many parked records may be handed out now: beside them there has to be room for the others, by count and by bytes.
    fn room(&self, settings: &ConsumerSettings, held_bytes: usize) -> usize {
        let loaded = self.loaded.load(Relaxed);
        if loaded > 0 && held_bytes >= settings.in_flight_bytes_max {
            return 0;
        }
        let most = LOADED_MAX.min(settings.in_flight_records_max() / 2).max(1);
        most.saturating_sub(loaded)
    }

    fn set_waker(&self, waker: Option<Waker>) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = waker;
    }

    fn topics(&self) -> MutexGuard<'_, HashSet<String>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What orders a partition's records without a key, where they are ordered. A key of these bytes would only wait with them.
const KEYLESS: &[u8] = b"\0evenkeel: records without a key\0";

/// What orders a record of this key with others of its partition; none for one that is ordered with no other.
pub(crate) fn order_name<'a>(
    settings: &ConsumerSettings,
    key: Option<&'a [u8]>,
) -> Option<&'a [u8]> {
    match (settings.ordering, key) {
        (Ordering::Unordered, _) => None,
        (Ordering::Key, Some(key)) => Some(key),
        (Ordering::Key, None) if settings.keyless != Keyless::Partition => None,
        // An empty key is one, too.
        (Ordering::Key, None) => Some(KEYLESS),
        (Ordering::Partition, _) => Some(b""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_without_a_key_and_with_an_empty_one_do_not_wait_for_each_other() {
        let mut settings = ConsumerSettings::new("g", ["t"]);
        assert_eq!(order_name(&settings, None), None);
        settings.keyless = Keyless::Partition;
        let keyless = order_name(&settings, None);
        assert!(keyless.is_some() && keyless != order_name(&settings, Some(b"")));
        settings.ordering = Ordering::Partition;
        assert_eq!(
            order_name(&settings, None),
            order_name(&settings, Some(b"k"))
        );
    }

    #[test]
    fn parked_records_leave_room_for_the_others_by_count_and_by_bytes() {
        let (settings, lot) = (ConsumerSettings::new("g", ["t"]), ParkingLot::default());
        let most = lot.room(&settings, 0);
        assert!(most > 0 && most <= settings.in_flight_records_max() / 2);
        let full = settings.in_flight_bytes_max;
        assert_eq!(lot.room(&settings, full), most, "others hold all of it");
        lot.loaded.store(1, Relaxed);
        assert_eq!(lot.room(&settings, full - 1), most - 1);
        assert_eq!(lot.room(&settings, full), 0);
        lot.loaded.store(most + 1, Relaxed);
        assert_eq!(lot.room(&settings, 0), 0);
    }
}
