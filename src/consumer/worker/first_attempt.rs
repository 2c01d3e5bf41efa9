//! Starts records: queues each in its lane or calls its handler, and polls the call once.
//!
//! A record that is done at its first poll touches no lane and no memory of the heap. Any other
//! outcome keeps the record running: its call, or its retry.

use crate::consumer::shared::Shared;
use crate::consumer::shared::mailbox::Burst;
use crate::consumer::state::lanes::{LaneId, LaneKey};
use crate::consumer::state::offset_tracker::SettledBits;
use crate::consumer::state::ordering_key::ordering_key;
use crate::consumer::state::partition::Partition;
use crate::consumer::state::settlement::{Settlement, Verdict};
use crate::consumer::worker::Worker;
use crate::consumer::worker::attempt::{AttemptSlot, Running, poll_attempt};
use crate::consumer::worker::item::{Item, ItemSource};
use crate::consumer::worker::retry::{
    RetryFuture, UnsettledRecord, dead_letter_panicked, park_behind, retry, skip,
};
use crate::control::Command;
use crate::event::Record;
use crate::failure::panics::caught;
use crate::handler::{Delivery, HandlerError, Outcome};
use std::error::Error;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// Why the first poll did not settle a record.
///
/// Each variant continues as a retry, except for a running first attempt.
enum Unsettled<F> {
    /// The handler is not ready.
    Running(AttemptSlot<F>),
    /// The handler returned an outcome that needs a retry or a dead letter.
    Failed(Outcome),
    /// The service is not ready: a layer around the handler has no room. The retry waits for it.
    NotReady,
    /// An operator requested the skip. No handler receives the record.
    Skipped(Box<Command>),
    /// Records of its key are parked. It must be parked behind them.
    BehindParked,
}

impl<H> Worker<H>
where
    H: tower::Service<Delivery, Response = Outcome> + Clone + Send + Sync + 'static,
    H::Error: Into<Box<dyn Error + Send + Sync>> + Send,
    H::Future: Send,
{
    /// Starts a burst's records in order, or queues those that have to wait. A record that is done
    /// at its first poll touches no shared state.
    ///
    /// Most records take this path only: no lane, no future on the heap (the slot is reused), and
    /// no copy of the record.
    pub(super) fn admit(&mut self, burst: Burst, cx: &mut Context<'_>) {
        let began = Instant::now();
        let mut done_at_first_poll = 0;
        let mut settled = SettledBits::of(&burst.tracker);
        let wants_successes = self.shared.breakers.wants_successes();
        for (index, entry) in burst.entries.iter().enumerate() {
            let Some(record) = burst.records.record(index) else {
                break;
            };
            let partition = &burst.partitions[entry.partition as usize];
            let must_wait = self.lanes.has_ready() || {
                let key = lane_key(&self.shared, &record, entry.hash);
                key.is_some_and(|key| self.lanes.is_occupied(key))
            };
            if must_wait || !self.permits.may_start() {
                self.enqueue(burst.item(index, record));
                continue;
            }
            if partition.is_fenced() {
                self.counts.abandoned();
                continue;
            }
            if begins_behind_parked(&self.shared, partition, &record) {
                self.keep_running(burst.item(index, record), None, Unsettled::BehindParked);
                continue;
            }
            let copy = self.copy_if_needed(&record);
            let handed_out = copy.clone().unwrap_or(record);
            match self.first_attempt(handed_out, 1, cx) {
                Ok(settlement) => {
                    settled.add(index);
                    self.counts.settled(&partition.topic, settlement);
                    done_at_first_poll += 1;
                    if wants_successes && let Some(record) = burst.records.record(index) {
                        self.shared.breakers.succeeded(&record, settlement);
                    }
                }
                Err(unsettled) => {
                    let Some(record) = copy.or_else(|| burst.records.record(index)) else {
                        break;
                    };
                    self.keep_running(burst.item(index, record), None, unsettled);
                }
            }
        }
        drop(settled);
        self.retained.handed_out(&burst.records);
        if done_at_first_poll * 2 > burst.entries.len() {
            let records = burst.entries.len() as u32;
            self.counts.record_duration(began.elapsed() / records);
        }
    }

    /// Queues a record in its lane.
    pub(super) fn enqueue(&mut self, item: Item) {
        let shared = &self.shared;
        self.lanes
            .enqueue(item, |item| lane_key(shared, &item.record, item.hash));
    }

    /// Copies the record to a buffer of its own, if handlers keep too many bursts for a few of
    /// their records.
    fn copy_if_needed(&self, record: &Record) -> Option<Record> {
        let is_needed = self.retained.hands_out_copies();
        is_needed.then(|| record.detached(Some(&self.shared.budget)))
    }

    /// Starts up to `limit` records whose turn it is, as long as there are permits.
    pub(super) fn start_waiting(&mut self, cx: &mut Context<'_>, limit: usize) -> usize {
        let mut started = 0;
        while started < limit && self.lanes.has_ready() && self.permits.may_start() {
            let Some((lane, item)) = self.lanes.start_next() else {
                break;
            };
            self.start(item, lane, cx);
            started += 1;
        }
        started
    }

    /// Starts a record that has waited in its lane.
    ///
    /// A parked record is checked once more at its start: it may have been settled, put back or
    /// marked to be dropped since it was handed out.
    fn start(&mut self, mut item: Item, lane: LaneId, cx: &mut Context<'_>) {
        if item.partition.is_fenced() {
            self.abandon(&item);
            self.lanes.finished(lane);
            return;
        }
        let mut attempt = 1;
        match &mut item.source {
            ItemSource::Burst(..) => {
                if begins_behind_parked(&self.shared, &item.partition, &item.record) {
                    return self.keep_running(item, Some(lane), Unsettled::BehindParked);
                }
            }
            ItemSource::Parked {
                ticket,
                retry_state,
                ..
            } => {
                let retry = item.partition.retry.as_ref();
                let Some(known_state) = retry.and_then(|retry| retry.start(*ticket)) else {
                    // The record before it waits again. So does this one, and is handed out again
                    // in its turn.
                    let ticket = *ticket;
                    let retry = item.partition.retry.iter();
                    retry.for_each(|retry| retry.change(|state| state.hand_back(ticket, 0)));
                    self.abandon(&item);
                    self.lanes.finished(lane);
                    return;
                };
                *retry_state = known_state;
                attempt = known_state.attempts.saturating_add(1);
                let (control, epoch) = (&self.shared.control, item.partition.epoch);
                if let Some(command) = control.take_drop(epoch, ticket.offset) {
                    let skipped = Unsettled::Skipped(Box::new(command));
                    return self.keep_running(item, Some(lane), skipped);
                }
            }
        }
        self.retained.started(&item.record);
        if let Some(copy) = self.copy_if_needed(&item.record) {
            item.record = copy;
        }
        match self.first_attempt(item.record.clone(), attempt, cx) {
            Ok(settlement) => {
                self.settle(&item, Verdict::Settled(settlement));
                self.lanes.finished(lane);
            }
            Err(unsettled) => self.keep_running(item, Some(lane), unsettled),
        }
    }

    /// Keeps a record running that its first poll did not settle. Its lane stays occupied.
    ///
    /// A record whose burst has other records keeps its share of their buffer until it is copied:
    /// at the latest when its retry begins.
    fn keep_running(
        &mut self,
        mut item: Item,
        lane: Option<LaneId>,
        unsettled: Unsettled<H::Future>,
    ) {
        let lane = lane.unwrap_or_else(|| {
            let key = lane_key(&self.shared, &item.record, item.hash);
            self.lanes.occupy(key)
        });
        self.permits.started();
        let retrying = match unsettled {
            Unsettled::Running(slot) => {
                self.running
                    .push(Running::first(item, lane, slot, self.now));
                return;
            }
            Unsettled::BehindParked => park_behind(self.unsettled_record(&mut item)),
            Unsettled::NotReady => match caught("cloning the handler", || self.handler.clone()) {
                // The instance that polled for room has a place in the layers' queues. The record
                // takes it.
                Ok(fresh) => {
                    let ready = std::mem::replace(&mut self.handler, fresh);
                    retry(ready, self.unsettled_record(&mut item), None)
                }
                Err(reason) => dead_letter_panicked(self.unsettled_record(&mut item), reason),
            },
            Unsettled::Failed(outcome) => self.start_retry(&mut item, outcome, self.now),
            Unsettled::Skipped(command) => skip(self.unsettled_record(&mut item), command),
        };
        self.running
            .push(Running::retrying(item, lane, retrying, self.now));
    }

    /// Calls the handler and polls it once. A panic in either becomes an outcome.
    ///
    /// The future is placed in a slot of the heap that is reused.
    fn first_attempt(
        &mut self,
        record: Record,
        attempt: u32,
        cx: &mut Context<'_>,
    ) -> Result<Settlement, Unsettled<H::Future>> {
        let control = &self.shared.control;
        if control.has_skips()
            && let Some(command) = control.skip_of(&record)
        {
            return Err(Unsettled::Skipped(Box::new(command)));
        }
        let delivery = self.delivery(record, attempt);
        let mut slot = self.slots.pop().unwrap_or_else(|| Box::pin(None));
        let called = caught("the handler", || match self.handler.poll_ready(cx) {
            Poll::Ready(Ok(())) => {
                slot.set(Some(self.handler.call(delivery)));
                None
            }
            Poll::Ready(Err(error)) => {
                let error = HandlerError::from(error.into());
                Some(Unsettled::Failed(Outcome::Retry(error)))
            }
            Poll::Pending => Some(Unsettled::NotReady),
        });
        let outcome = match called {
            Ok(None) => match poll_attempt(&mut slot, cx) {
                Poll::Ready(outcome) => outcome,
                Poll::Pending => return Err(Unsettled::Running(slot)),
            },
            Ok(Some(unsettled)) => return Err(unsettled),
            Err(reason) => Outcome::Dead(reason),
        };
        self.slots.push(slot);
        Settlement::of(outcome).map_err(Unsettled::Failed)
    }

    /// The request of the handler service. A record's attempts are counted across its parking.
    fn delivery(&self, record: Record, attempt: u32) -> Delivery {
        Delivery {
            record,
            attempt,
            scope: Arc::clone(&self.scope),
        }
    }

    /// Starts the retry after the outcome of an attempt that began at `began`.
    ///
    /// The handler is cloned here, as each retry needs an instance of its own: `poll_ready` and
    /// `call` of one instance belong together.
    pub(super) fn start_retry(
        &self,
        item: &mut Item,
        outcome: Outcome,
        began: Instant,
    ) -> RetryFuture {
        match caught("cloning the handler", || self.handler.clone()) {
            Ok(handler) => {
                let mut unsettled = self.unsettled_record(item);
                unsettled.began = began;
                retry(handler, unsettled, Some(outcome))
            }
            Err(reason) => dead_letter_panicked(self.unsettled_record(item), reason),
        }
    }

    /// The state for the retry of a record. It keeps no memory of its burst.
    pub(super) fn unsettled_record(&self, item: &mut Item) -> UnsettledRecord {
        item.record = item.record.detached(Some(&self.shared.budget));
        let (ticket, retry_state) = item.retry_state();
        UnsettledRecord::new(
            Arc::clone(&self.shared),
            self.delivery(item.record.clone(), retry_state.attempts.saturating_add(1)),
            Arc::clone(&item.partition),
            ticket,
            retry_state,
        )
    }
}

/// The lane of a record. None if it is ordered with no other.
fn lane_key<'a>(shared: &Shared, record: &'a Record, hash: u64) -> Option<LaneKey<'a>> {
    let key = ordering_key(&shared.settings, record.key())?;
    let topic = record.topic();
    Some(LaneKey { hash, topic, key })
}

/// Whether a record has to be parked behind others of its key. If so, it counts as being written.
///
/// The common case, no waiting key in the partition, takes no lock.
fn begins_behind_parked(shared: &Shared, partition: &Partition, record: &Record) -> bool {
    let retry = partition.retry.as_ref().filter(|retry| !retry.is_empty());
    retry.is_some_and(|retry| {
        retry.begin_if_waiting(
            ordering_key(&shared.settings, record.key()),
            record.offset(),
        )
    })
}
