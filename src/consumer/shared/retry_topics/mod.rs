//! The state of the retry topics that the threads share: counts of waiting records, committed
//! offsets, and wakers.
//!
//! It makes no decision; [`ParkedSet`](crate::recovery::parking::ParkedSet), one per retry
//! partition, does.
//!
//! Workers, reader and dispatcher wake each other here. A wake sends a message to the queue on
//! which the other thread waits. `is_notified` makes many wakes one message. The dispatcher resets
//! it *before* it checks, so that a record that becomes due afterwards sends another message.

mod bounds;
mod losses;
mod requests;

pub(crate) use bounds::{AllDeletionBounds, DeletionBounds};
pub(crate) use losses::{Loss, Losses};
pub(crate) use requests::DispatchRequest;

use crate::consumer::settings::ConsumerSettings;
use crate::kafka::log::LoggingContext;
use crate::kafka::native::ForwardedQueue;
use std::collections::HashMap;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

/// The most parked records that workers hold at a time.
const HELD_MAX: usize = 1024;

/// Wakes the thread that reads the retry partitions, through its queue.
pub(crate) type Waker = Arc<ForwardedQueue<LoggingContext>>;

/// Keys and records by retry partition.
type Waiting = HashMap<(Arc<str>, i32), (usize, usize)>;

/// The shared state of the retry topics. Used by the poll thread, the workers and the reader
/// threads.
#[derive(Default)]
pub(crate) struct RetryTopics {
    /// Whether a retry topic has been created since the last check.
    pub(crate) appeared: AtomicBool,
    pub(crate) losses: Losses,
    /// Parked records that workers hold.
    pub(crate) held_by_workers: AtomicUsize,
    /// Records that wait until their retry topic can be written.
    pub(crate) unwritten: AtomicUsize,
    /// Committed offsets of owned retry partitions.
    committed: Mutex<HashMap<(Arc<str>, i32), i64>>,
    /// Keys and records that wait in owned retry partitions.
    waiting: Mutex<Waiting>,
    /// Which entries of owned retry partitions may be deleted.
    bounds: Mutex<AllDeletionBounds>,
    wakers: Mutex<Wakers>,
    /// Whether the dispatcher has been notified and has not checked since.
    is_notified: AtomicBool,
}

/// The wakers of the reader threads.
#[derive(Default)]
pub(crate) struct Wakers {
    /// The queue of the reader.
    pub(crate) reader: Option<Waker>,
    /// The requests of the dispatcher.
    pub(crate) dispatcher: Option<mpsc::Sender<DispatchRequest>>,
    /// Wakes the dispatcher while it fetches.
    pub(crate) fetching: Option<Waker>,
}

impl RetryTopics {
    /// Whether a retry topic has been created since the last call, so that its partitions must be
    /// opened again.
    pub(crate) fn take_appeared(&self) -> bool {
        self.appeared.load(Relaxed) && self.appeared.swap(false, Acquire)
    }

    /// Sets the committed offset of a retry partition. None after a revoke.
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

    /// Sets the numbers of keys and records that wait in a retry partition. None after a revoke.
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

    /// The numbers of keys and records that wait in the owned partitions of a retry topic.
    pub(crate) fn waiting_in(&self, topic: &str) -> (usize, usize) {
        let all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let of_it = all.iter().filter(|((name, _), _)| **name == *topic);
        of_it.fold((0, 0), |(keys, records), (_, waiting)| {
            (keys + waiting.0, records + waiting.1)
        })
    }

    /// Locks the bounds of all owned retry partitions.
    pub(crate) fn bounds(&self) -> MutexGuard<'_, AllDeletionBounds> {
        self.bounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The committed offsets of the owned retry partitions.
    pub(crate) fn committed(&self) -> HashMap<(Arc<str>, i32), i64> {
        let committed = self
            .committed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        committed.clone()
    }

    /// Wakes the thread that reads the retry partitions.
    pub(crate) fn wake_reader(&self) {
        self.wakers().reader.iter().for_each(|reader| reader.wake());
    }

    /// Notifies the dispatcher that a parked record may be due. Repeated calls send one message.
    pub(crate) fn wake_dispatcher(&self) {
        if !self.is_notified.swap(true, AcqRel) {
            self.send_to_dispatcher(DispatchRequest::CheckDue);
        }
    }

    /// Called by the dispatcher before it checks for due records. A record that becomes due later
    /// notifies it again.
    pub(crate) fn clear_notified(&self) {
        self.is_notified.store(false, Release);
    }

    /// Sends a request, and wakes the dispatcher wherever it waits: for requests, or for fetched
    /// records.
    pub(crate) fn send_to_dispatcher(&self, request: DispatchRequest) {
        let wakers = self.wakers();
        if let Some(dispatcher) = &wakers.dispatcher {
            // The dispatcher ends after every sender whose message matters.
            let _ = dispatcher.send(request);
        }
        wakers.fetching.iter().for_each(|fetching| fetching.wake());
    }

    /// Releases the place of a parked record that left its worker.
    pub(crate) fn release_one(&self) {
        self.held_by_workers.fetch_sub(1, Relaxed);
        self.wake_dispatcher();
    }

    /// Whether the bytes in flight forbid further parked records.
    pub(crate) fn is_full(&self, settings: &ConsumerSettings, held_bytes: usize) -> bool {
        self.held_by_workers.load(Relaxed) > 0 && held_bytes >= settings.in_flight_bytes_max
    }

    /// How many more parked records may be handed out. They leave room for other records, by count
    /// and by bytes.
    ///
    /// At most half of the limit: parked records that keep failing must not stop the intake of new
    /// records.
    pub(crate) fn room(&self, settings: &ConsumerSettings, held_bytes: usize) -> usize {
        if self.is_full(settings, held_bytes) {
            return 0;
        }
        let held = self.held_by_workers.load(Relaxed);
        let most = HELD_MAX.min(settings.in_flight_records_max() / 2).max(1);
        most.saturating_sub(held)
    }

    /// Locks the wakers. Hold it briefly: workers wake the dispatcher through it.
    pub(crate) fn wakers(&self) -> MutexGuard<'_, Wakers> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parked_records_leave_room_for_others_in_records_and_bytes() {
        let (settings, topics) = (ConsumerSettings::new("g", ["t"]), RetryTopics::default());
        let most = topics.room(&settings, 0);
        assert!(most > 0 && most <= settings.in_flight_records_max() / 2);
        let full = settings.in_flight_bytes_max;
        assert_eq!(topics.room(&settings, full), most, "others hold all of it");
        topics.held_by_workers.store(1, Relaxed);
        assert_eq!(topics.room(&settings, full - 1), most - 1);
        assert_eq!(topics.room(&settings, full), 0);
        topics.held_by_workers.store(most + 1, Relaxed);
        assert_eq!(topics.room(&settings, 0), 0);
    }
}
