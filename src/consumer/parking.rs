//! Parking in a running consumer: the parked sets of the assigned partitions, and who is told of them.
//!
//! Owns what workers, recovery, the committer and the thread that reads the retry topics share. Decides nothing: that is
//! [`Parking`]'s. A partition's set lives as long as its assignment.

mod begin;
pub(super) mod clean;
mod clock;
mod fetch;
pub(super) mod follow;
mod gap;
mod hand_out;
mod look;
mod lookup;
mod loss;
mod steer;
mod trouble;
pub(super) mod write;

pub(super) use clock::steady_ms;
pub(crate) use look::parked_records;
pub use look::{ParkedKey, parked_keys};
pub(super) use steer::Dropped;

use super::ledger::{Epoch, Position};
use super::metadata::Log;
use super::settings::{ConsumerSettings, Keyless, Ordering};
use crate::kafka::queue::ForwardedQueue;
use crate::recovery::parked::Wait;
use crate::recovery::parking::{Parking, Ticket};
use rdkafka::consumer::DefaultConsumerContext;
use std::collections::HashMap;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

/// Parked records that are handed to workers and not back yet, at most.
const LOADED_MAX: usize = 1024;

/// It is not known yet which keys wait, so that nothing of the partition may be handled.
const CLOSED: u8 = 0;
/// The parked set is whole.
const OPEN: u8 = 1;
/// The retry topic does not exist: nothing waits, and nothing can be parked.
const WITHOUT: u8 = 2;
/// The retry topic exists now, and did not when the partition was opened.
const APPEARED: u8 = 3;

/// The retry partition of an assigned partition.
pub(crate) struct RetryPartition {
    pub(crate) topic: Arc<str>,
    /// What it is committed under.
    pub(crate) epoch: Epoch,
    state: Mutex<Parking>,
    /// How many keys wait, for those who ask all the time.
    keys: AtomicUsize,
    gate: AtomicU8,
    /// Which log it is, as far as it is known.
    log: Mutex<Log>,
    /// Whether the log does not have what the group committed of it, so that it is read from its beginning.
    is_anew: AtomicBool,
    /// Whether the first entry is still to show that no other leader wrote behind what was committed.
    is_unproven: AtomicBool,
}

impl RetryPartition {
    pub(crate) fn new(topic: Arc<str>, epoch: Epoch) -> Self {
        Self {
            topic,
            epoch,
            // Whole it is only once it is known where it ends.
            state: Mutex::new(Parking::new(0, i64::MAX, &[], 0, false)),
            keys: AtomicUsize::new(0),
            gate: AtomicU8::new(CLOSED),
            log: Mutex::default(),
            is_anew: AtomicBool::new(false),
            is_unproven: AtomicBool::new(false),
        }
    }

    /// It is read of this log.
    fn reads(&self, log: Log) {
        self.is_unproven.store(log.leader_epoch.is_some(), Relaxed);
        *self.log() = log;
    }

    /// Whether an entry of this leader epoch, the first to come, leaves it open that others before it were not read: then this is
    /// the epoch of what was committed. It is asked once.
    fn doubt(&self, leader_epoch: Option<i32>) -> Option<i32> {
        let known = self.log().leader_epoch;
        let was_unproven = self.is_unproven.swap(false, Relaxed);
        known.filter(|_| was_unproven && leader_epoch > known)
    }

    /// The log does not have what the group committed of it.
    fn set_anew(&self) {
        self.is_anew.store(true, Relaxed);
    }

    fn is_anew(&self) -> bool {
        self.is_anew.load(Relaxed)
    }

    /// Entries of this leader epoch came.
    fn led_by(&self, leader_epoch: Option<i32>) {
        let mut log = self.log();
        log.leader_epoch = log.leader_epoch.max(leader_epoch);
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is known which keys wait, so that records of the partition may be handled.
    pub(crate) fn is_open(&self) -> bool {
        // Whoever sees it open sees the keys that wait.
        self.gate.load(Acquire) != CLOSED
    }

    /// Whether records can be parked there.
    pub(crate) fn can_park(&self) -> bool {
        self.gate.load(Acquire) == OPEN
    }

    /// Whether the partition has to begin anew, because its retry topic was not there when it was opened and is now.
    pub(crate) fn has_appeared(&self) -> bool {
        self.gate.load(Acquire) == APPEARED
    }

    fn set_gate(&self, gate: u8) {
        self.gate.store(gate, Release);
    }

    /// Whether no key waits, so that nobody has to be asked.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.load(Relaxed) == 0
    }

    /// Whether a record has to be parked behind others of its key. If so it counts as on its way.
    pub(crate) fn joins(&self, name: Option<&[u8]>, origin: i64) -> bool {
        !self.is_empty() && name.is_some_and(|name| self.change(|state| state.joins(name, origin)))
    }

    /// Whether all is settled, or waits for a later time, that was due by then.
    pub(crate) fn is_done_with(&self, due_by_ms: i64) -> bool {
        self.is_empty() || self.state().is_done_with(due_by_ms)
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
            log: *self.log(),
            is_whole: standing.is_whole,
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

/// Keys and records by retry partition.
type Waiting = HashMap<(Arc<str>, i32), (usize, usize)>;

/// What the consumer's parts share of parking.
#[derive(Default)]
pub(crate) struct ParkingLot {
    /// Whether retry topics have appeared since the last look.
    appeared: AtomicBool,
    losses: loss::Losses,
    loaded: AtomicUsize,
    /// Records that wait for their retry topic to be writable.
    unwritten: AtomicUsize,
    /// Committed offsets of owned retry partitions.
    committed: Mutex<HashMap<(Arc<str>, i32), i64>>,
    /// Keys and records that wait in owned retry partitions.
    waiting: Mutex<Waiting>,
    /// What of owned retry partitions may be deleted.
    bounds: Mutex<clean::AllBounds>,
    wakers: Mutex<Wakers>,
    /// Whether the thread that hands out parked records has been told to look, and has not looked since.
    is_told: AtomicBool,
}

/// Who is woken.
#[derive(Default)]
struct Wakers {
    reader: Option<Waker>,
    dispatcher: Option<mpsc::Sender<hand_out::Order>>,
    /// What the dispatcher waits for while it fetches.
    fetching: Option<Waker>,
}

impl ParkingLot {
    /// Whether retry topics have appeared since the last look, so that their partitions have to begin anew.
    pub(crate) fn take_appeared(&self) -> bool {
        self.appeared.load(Relaxed) && self.appeared.swap(false, Acquire)
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

    /// So many keys and records wait in a retry partition; with none it is another member's now.
    pub(crate) fn set_waiting(
        &self,
        topic: &Arc<str>,
        partition: i32,
        waiting: Option<(usize, usize)>,
    ) {
        let mut all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting {
            Some(waiting) => drop(all.insert((Arc::clone(topic), partition), waiting)),
            None => drop(all.remove(&(Arc::clone(topic), partition))),
        }
    }

    /// Keys and records that wait in the owned partitions of a retry topic.
    pub(crate) fn waiting_in(&self, topic: &str) -> (usize, usize) {
        let all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let of_it = all.iter().filter(|((name, _), _)| **name == *topic);
        of_it.fold((0, 0), |(keys, records), (_, waiting)| {
            (keys + waiting.0, records + waiting.1)
        })
    }

    fn bounds(&self) -> MutexGuard<'_, clean::AllBounds> {
        self.bounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Owned retry partitions by their committed offsets.
    fn committed(&self) -> HashMap<(Arc<str>, i32), i64> {
        let committed = self
            .committed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        committed.clone()
    }

    /// Has the thread that reads the retry partitions see what it was told.
    pub(crate) fn wake_reader(&self) {
        self.wakers().reader.iter().for_each(|reader| reader.wake());
    }

    /// Has the thread that hands out parked records look what is due.
    pub(crate) fn wake_dispatcher(&self) {
        if !self.is_told.swap(true, AcqRel) {
            self.tell_dispatcher(hand_out::Order::Look);
        }
    }

    /// It looks now: what is due from now on it is to be told again.
    fn has_looked(&self) {
        self.is_told.store(false, Release);
    }

    fn tell_dispatcher(&self, order: hand_out::Order) {
        let wakers = self.wakers();
        if let Some(dispatcher) = &wakers.dispatcher {
            // It ends after everybody who would tell it something that matters.
            let _ = dispatcher.send(order);
        }
        wakers.fetching.iter().for_each(|fetching| fetching.wake());
    }

    /// A parked record left its worker.
    pub(crate) fn left(&self) {
        self.loaded.fetch_sub(1, Relaxed);
        self.wake_dispatcher();
    }

    /// Whether no parked record may be handed out because of the bytes that are held.
    fn is_full(&self, settings: &ConsumerSettings, held_bytes: usize) -> bool {
        self.loaded.load(Relaxed) > 0 && held_bytes >= settings.in_flight_bytes_max
    }

    /// How many parked records may be handed out now: beside them there has to be room for the others, by count and by bytes.
    fn room(&self, settings: &ConsumerSettings, held_bytes: usize) -> usize {
        if self.is_full(settings, held_bytes) {
            return 0;
        }
        let loaded = self.loaded.load(Relaxed);
        let most = LOADED_MAX.min(settings.in_flight_records_max() / 2).max(1);
        most.saturating_sub(loaded)
    }

    fn wakers(&self) -> MutexGuard<'_, Wakers> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
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
