//! The events that were passed to the publisher and are not settled.
//!
//! Owns the wait for their receipts, which goes on if the caller leaves, and the numbers and places
//! that come of it. Knows no publisher.

use super::super::port::{Backlog, EventPlace};
use super::places::Places;
use super::settled::Settled;
use evenkeel::publisher::{PendingReceipt, PublishError, Receipt};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::runtime::Handle;
use tokio::time::Instant;

/// What was passed to the publisher, of all requests.
#[derive(Debug, Default)]
pub(super) struct Sent {
    places: Mutex<Places>,
    /// When the requests in flight began, in the order of their numbers.
    begun: Mutex<BTreeMap<u64, Instant>>,
    requests: AtomicU64,
    unacknowledged: AtomicU64,
    acknowledged: AtomicU64,
    /// Why the producer is unusable.
    failed: OnceLock<String>,
}

impl Sent {
    /// Remembers the first permanent failure of the producer.
    pub(super) fn note_failure(&self, error: &PublishError) {
        if let PublishError::Fatal(reason) = error {
            self.failed.get_or_init(|| reason.clone());
        }
    }

    /// Why the producer is unusable, if it is.
    pub(super) fn failed(&self) -> Option<String> {
        self.failed.get().cloned()
    }

    /// The events that wait for their acknowledgement.
    pub(super) fn backlog(&self) -> Backlog {
        let oldest = self
            .begun()
            .first_key_value()
            .map(|(_, begun)| begun.elapsed());
        Backlog {
            events: self.unacknowledged.load(Ordering::Relaxed),
            oldest_age: oldest,
            drained: self.acknowledged.load(Ordering::Relaxed),
        }
    }

    /// The places of the last acknowledged events.
    pub(super) fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begun(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The events of one request that were passed to the publisher.
///
/// They are settled in place, which spares a task. If the caller leaves before, be it between two
/// events, a task settles the rest: their places are kept, and they count until then.
pub(super) struct Passed {
    sent: Arc<Sent>,
    /// None before the first event.
    in_flight: Option<InFlight>,
}

impl Passed {
    /// A request that has passed no event yet.
    pub(super) fn new(sent: &Arc<Sent>) -> Self {
        Self {
            sent: Arc::clone(sent),
            in_flight: None,
        }
    }

    /// Adds the next event of the request, and counts it as unacknowledged.
    pub(super) fn add(&mut self, place: EventPlace, receipt: PendingReceipt) {
        let in_flight = self
            .in_flight
            .get_or_insert_with(|| InFlight::begin(&self.sent));
        in_flight.add(place, receipt);
    }

    /// The events that were added.
    pub(super) fn events(&self) -> usize {
        self.in_flight
            .as_ref()
            .map_or(0, |in_flight| in_flight.events)
    }

    /// Awaits all receipts, and keeps the places of the acknowledged events.
    pub(super) async fn settle(&mut self) -> Settled {
        match &mut self.in_flight {
            Some(in_flight) => in_flight.settle().await,
            None => Settled::default(),
        }
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        // Without a runtime, the process ends.
        if let Some(mut in_flight) = self.in_flight.take()
            && !in_flight.pending.is_empty()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move { in_flight.settle().await });
        }
    }
}

/// A request with events that are not settled. Dropped, they no longer count.
struct InFlight {
    sent: Arc<Sent>,
    request: u64,
    /// The events that were added.
    events: usize,
    /// Those that are not settled, in the order of the request.
    pending: VecDeque<(EventPlace, PendingReceipt)>,
}

impl InFlight {
    fn begin(sent: &Arc<Sent>) -> Self {
        let request = sent.requests.fetch_add(1, Ordering::Relaxed);
        sent.begun().insert(request, Instant::now());
        Self {
            sent: Arc::clone(sent),
            request,
            events: 0,
            pending: VecDeque::new(),
        }
    }

    fn add(&mut self, place: EventPlace, receipt: PendingReceipt) {
        self.sent.unacknowledged.fetch_add(1, Ordering::Relaxed);
        self.events += 1;
        self.pending.push_back((place, receipt));
    }

    async fn settle(&mut self) -> Settled {
        let mut settled = Settled::default();
        // An event stays in the queue until its receipt is there: a dropped wait loses none.
        while let Some((_, receipt)) = self.pending.front_mut() {
            let outcome = receipt.await;
            self.settle_next(outcome, &mut settled);
        }
        settled
    }

    /// Records the outcome of the first pending event.
    fn settle_next(&mut self, outcome: Result<Receipt, PublishError>, settled: &mut Settled) {
        let index = self.events - self.pending.len();
        let Some((mut place, _)) = self.pending.pop_front() else {
            return;
        };
        match outcome {
            Ok(receipt) => {
                // A repeated batch is acknowledged without its offset.
                place.position =
                    (receipt.offset >= 0).then_some((receipt.partition, receipt.offset));
                self.sent.places().add(place);
                self.sent.acknowledged.fetch_add(1, Ordering::Relaxed);
                settled.acknowledge();
            }
            Err(error) => {
                self.sent.note_failure(&error);
                settled.fail(index, error);
            }
        }
        self.sent.unacknowledged.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.sent.begun().remove(&self.request);
        self.sent
            .unacknowledged
            .fetch_sub(self.pending.len() as u64, Ordering::Relaxed);
    }
}
