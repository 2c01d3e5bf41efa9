//! A worker: one task that owns its lanes, drives their handlers and settles their records.
//!
//! Records arrive in bursts, with one wake-up per burst. A handler is polled in place, in a reused
//! slot. Only if it is not ready then, it enters a lane and the set of running handlers. A worker
//! knows no client: messages deliver records and fences.
//!
//! # A turn
//!
//! A worker is polled as one future. Each turn settles finished handlers, takes messages and starts
//! waiting records, in this order, until nothing more can be done or [`RECORDS_PER_TURN`] records
//! were processed; then it yields. The futures of handlers live in the worker: no task is spawned
//! per record, which would cost more than a short handler, and a handler's panic is caught here.
//!
//! The order matters. Successes are counted before failures are reported, so that a breaker weighs
//! both of the same time. Messages are taken before records are started, so that a fence stops
//! records that could otherwise still start.
//!
//! # Why it is not cooperative
//!
//! The task runs outside of Tokio's budget (`unconstrained`): many handlers share it, and a used-up
//! budget would make all their sockets appear pending. [`RECORDS_PER_TURN`] takes its place.
//!
//! # Where a record may be
//!
//! | place | occupies its lane | holds a permit |
//! |---|---|---|
//! | mailbox | no | no |
//! | first poll | no | yes, of the worker |
//! | waiting in `lanes` | yes | no |
//! | `running`, in its handler | yes | yes |
//! | `running`, in its retry, between attempts | yes | lent to others |

mod attempt;
mod counts;
mod drill_report;
mod first_attempt;
mod item;
mod memory;
mod retry;

use crate::consumer::shared::Shared;
use crate::consumer::shared::concurrency::Permits;
use crate::consumer::shared::mailbox::{Mailbox, Message, StuckHandlers};
use crate::consumer::state::lanes::{LaneId, Lanes};
use crate::consumer::state::offset_tracker::Epoch;
use crate::consumer::state::settlement::Verdict;
use crate::consumer::worker::attempt::{AttemptSlot, Finished, Running};
use crate::consumer::worker::counts::Counts;
use crate::consumer::worker::drill_report::report_to_drill;
use crate::consumer::worker::item::{Item, ItemSource};
use crate::consumer::worker::memory::RetainedBursts;
use crate::consumer::worker::retry::{RetryFuture, dead_letter_panicked};
use crate::handler::{Delivery, DeliveryScope, Outcome};
use futures_util::Stream;
use futures_util::stream::FuturesUnordered;
use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Records after which a worker yields to other tasks of its thread.
const RECORDS_PER_TURN: usize = 1024;

/// A fence that is answered when no record of these epochs runs.
struct Fence {
    epochs: Vec<Epoch>,
    answer: mpsc::Sender<()>,
}

/// Drives the handlers of the records in its mailbox. Returns after the mailbox is closed and no
/// record runs or waits.
///
/// The future is not cancel-safe: dropping it drops running handlers. Only the end of the run does.
pub(crate) async fn run<H>(handler: H, shared: Arc<Shared>, mailbox: Arc<Mailbox>, permits: Permits)
where
    H: tower::Service<Delivery, Response = Outcome> + Clone + Send + Sync + 'static,
    H::Error: Into<Box<dyn Error + Send + Sync>> + Send,
    H::Future: Send,
{
    // A clone per worker: workers must not contend for one reference count.
    let scope = Arc::new(DeliveryScope::clone(&shared.scope));
    let mut worker = Worker {
        counts: Counts::new(&shared.group),
        retained: RetainedBursts::new(shared.settings.in_flight_bytes_max, shared.workers.len()),
        lanes: Lanes::default(),
        running: FuturesUnordered::new(),
        slots: Vec::new(),
        fences: Vec::new(),
        messages: Vec::new(),
        closed: false,
        now: Instant::now(),
        handler,
        scope,
        shared,
        mailbox,
        permits,
    };
    poll_fn(|cx| worker.turn(cx)).await;
}

/// The state of one worker. Owned by its task.
///
/// `handler` is the instance whose `poll_ready` was called last; a call consumes that readiness.
struct Worker<H: tower::Service<Delivery>> {
    handler: H,
    shared: Arc<Shared>,
    /// The group and the publisher, for deliveries.
    scope: Arc<DeliveryScope>,
    mailbox: Arc<Mailbox>,
    /// The permits of this worker.
    permits: Permits,
    /// Waiting records, and the lanes of running ones.
    lanes: Lanes<Item>,
    /// Records that were not done at their first poll.
    running: FuturesUnordered<Running<H::Future>>,
    /// Slots of finished first attempts, for reuse.
    slots: Vec<AttemptSlot<H::Future>>,
    /// Fences that wait for running records.
    fences: Vec<Fence>,
    /// Reused buffer for the messages of one turn.
    messages: Vec<Message>,
    /// Counts of this turn.
    counts: Counts,
    /// Watches the memory that handlers keep.
    retained: RetainedBursts,
    /// Read once per turn, because a clock read per record would cost as much as a short handler.
    now: Instant,
    /// Whether the last message was received.
    closed: bool,
}

impl<H> Worker<H>
where
    H: tower::Service<Delivery, Response = Outcome> + Clone + Send + Sync + 'static,
    H::Error: Into<Box<dyn Error + Send + Sync>> + Send,
    H::Future: Send,
{
    /// Runs one turn. Ready when the mailbox is closed and no record runs or waits.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // The waker is registered before the mailbox is read, or a message in between would not
        // wake the task.
        self.mailbox.worker.register(cx.waker());
        self.now = Instant::now();
        let mut records = 0;
        loop {
            let before = records;
            // Before failures are processed: the breakers must count successes of the same time as
            // well.
            self.counts.report(&self.shared);
            records += self.finish_ready(cx, RECORDS_PER_TURN);
            records += self.take_messages(cx);
            records += self.start_waiting(cx, RECORDS_PER_TURN);
            if records == before {
                if !self.lanes.has_ready() {
                    self.permits.release_unused();
                    break;
                }
                if self.permits.poll_acquire(cx).is_pending() {
                    break;
                }
            } else if records >= RECORDS_PER_TURN {
                cx.waker().wake_by_ref();
                break;
            }
        }
        self.answer_fences();
        self.counts.report(&self.shared);
        if self.closed && self.running.is_empty() && self.lanes.waiting() == 0 {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Settles finished records, at most `limit`.
    ///
    /// `FuturesUnordered` polls only the futures that were woken.
    fn finish_ready(&mut self, cx: &mut Context<'_>, limit: usize) -> usize {
        let mut finished = 0;
        while finished < limit {
            let Poll::Ready(Some(done)) = Pin::new(&mut self.running).poll_next(cx) else {
                break;
            };
            finished += 1;
            let Finished {
                item,
                lane,
                started_at,
                verdict,
                slot,
            } = done;
            self.slots.extend(slot);
            match verdict {
                Ok(verdict) => {
                    self.counts
                        .record_duration(self.now.saturating_duration_since(started_at));
                    self.settle(&item, verdict);
                    self.permits.finished(self.lanes.has_ready());
                    self.lanes.finished(lane);
                }
                Err(unsettled) => self.continue_after(item, lane, started_at, unsettled),
            }
        }
        finished
    }

    /// Keeps a record running whose attempt or retry ended without settling it.
    ///
    /// The lane stays occupied and the permit stays taken: for the order of the key, an attempt and
    /// its retry are one.
    fn continue_after(
        &mut self,
        mut item: Item,
        lane: LaneId,
        started_at: Instant,
        unsettled: attempt::Unsettled,
    ) {
        self.running.push(match unsettled {
            attempt::Unsettled::Failed(outcome) => {
                let retrying = self.start_retry(&mut item, outcome, started_at);
                Running::retrying(item, lane, retrying, started_at)
            }
            attempt::Unsettled::Panicked(reason) => {
                let dead_lettering = dead_letter_panicked(self.unsettled_record(&mut item), reason);
                Running::dead_lettering(item, lane, dead_lettering, started_at)
            }
            attempt::Unsettled::Lost(reason) => {
                // It would panic again, and its lane must not stop unnoticed.
                self.shared.abort(format!(
                    "writing the dead letter of {:?}: {}",
                    item.record, reason.message
                ));
                Running::retrying(item, lane, RetryFuture::never(), started_at)
            }
        });
    }

    /// Processes all messages in the mailbox. Returns how many records they had.
    fn take_messages(&mut self, cx: &mut Context<'_>) -> usize {
        let mut messages = std::mem::take(&mut self.messages);
        self.mailbox.take_into(&mut messages);
        let mut records = 0;
        for message in messages.drain(..) {
            match message {
                Message::Burst(burst) => {
                    records += burst.entries.len();
                    self.admit(burst, cx);
                }
                Message::Parked(parked) => {
                    records += 1;
                    self.enqueue(Item::parked(parked));
                }
                Message::Fence(epochs, answer) => self.fence(Fence { epochs, answer }),
                Message::ReportStuck(after, answer) => {
                    // The watchdog may have stopped waiting.
                    let _ = answer.send(self.stuck_handlers(after));
                }
                Message::Compact => self.compact(),
                // The message itself wakes the worker, which then checks its waiting records.
                Message::RecheckPermits => {}
                Message::Close => self.closed = true,
            }
        }
        self.messages = messages;
        records
    }

    /// Copies records out of bursts of which few are left, because the byte limit is reached.
    ///
    /// Handles outside of this worker cannot be replaced, and a burst with such handles is left
    /// alone.
    fn compact(&mut self) {
        let Self { running, lanes, .. } = self;
        memory::compact(&mut |each| {
            let running = running.iter_mut().filter_map(Running::record_mut);
            let waiting = lanes.waiting_mut().map(|item| &mut item.record);
            waiting.chain(running).for_each(each);
        });
        self.retained.measure();
    }

    /// Records the result where the record came from, and releases it. The lane is the caller's.
    fn settle(&mut self, item: &Item, verdict: Verdict) {
        let Verdict::Settled(settlement) = verdict else {
            if verdict == Verdict::Abandoned {
                self.shared.count_unfinished();
            }
            if let (Verdict::PutBack(mut retry_state), Some(ticket)) =
                (verdict, item.retry_state().0)
            {
                let control = &self.shared.control;
                if control.is_dropped(item.partition.epoch, ticket.offset) {
                    // It is dead-lettered instead, without a wait.
                    retry_state.not_before_ms = 0;
                }
                let retry = item.partition.retry.iter();
                retry.for_each(|retry| retry.change(|state| state.put_back(ticket, retry_state)));
            }
            return self.abandon(item);
        };
        match &item.source {
            ItemSource::Burst(tracker, index) => tracker.settle(*index),
            ItemSource::Parked {
                ticket,
                is_repetition,
                ..
            } => {
                if *is_repetition {
                    let shared = Arc::clone(&self.shared);
                    report_to_drill(shared, item.record.clone(), *ticket, settlement);
                }
                let retry = item.partition.retry.iter();
                retry.for_each(|retry| retry.change(|state| state.settle(*ticket)));
                // It succeeded before it could be dropped.
                let _ = self
                    .shared
                    .control
                    .take_drop(item.partition.epoch, ticket.offset);
                self.shared.retry_topics.release_one();
            }
        }
        self.counts.settled(&item.partition.topic, settlement);
        if self.shared.breakers.wants_successes() {
            self.shared.breakers.succeeded(&item.record, settlement);
        }
    }

    /// Releases a record unsettled.
    fn abandon(&mut self, item: &Item) {
        match item.source {
            ItemSource::Burst(..) => self.counts.abandoned(),
            ItemSource::Parked { .. } => {
                self.counts.put_back();
                self.shared.retry_topics.release_one();
            }
        }
    }

    /// Drops the waiting records of these epochs. Running ones are not cancelled: their retries end
    /// by themselves, their handlers when they are done.
    fn fence(&mut self, fence: Fence) {
        let (mut purged, mut parked) = (0, 0);
        self.lanes.purge(|item| {
            let is_purged = fence.epochs.contains(&item.partition.epoch);
            match item.source {
                ItemSource::Burst(..) => purged += usize::from(is_purged),
                ItemSource::Parked { .. } => parked += usize::from(is_purged),
            }
            is_purged
        });
        (0..purged).for_each(|_| self.counts.abandoned());
        for _ in 0..parked {
            self.counts.put_back();
            self.shared.retry_topics.release_one();
        }
        self.fences.push(fence);
    }

    /// Answers fences of which no record runs any more.
    fn answer_fences(&mut self) {
        if self.fences.is_empty() {
            return;
        }
        for fence in std::mem::take(&mut self.fences) {
            let runs = self.running.iter().any(|running| {
                running
                    .epoch()
                    .is_some_and(|epoch| fence.epochs.contains(&epoch))
            });
            if runs {
                self.fences.push(fence);
            } else {
                // The caller may have reached its deadline.
                let _ = fence.answer.send(());
            }
        }
    }

    /// The handlers that have been running for at least this long. Time between attempts does not
    /// count.
    fn stuck_handlers(&self, after: Duration) -> StuckHandlers {
        let mut stuck = StuckHandlers::default();
        for running in self.running.iter() {
            let Some((record, since)) = running.record().zip(running.running_since()) else {
                continue;
            };
            let running_for = self.now.saturating_duration_since(since);
            if running_for < after {
                continue;
            }
            stuck.handlers += 1;
            if stuck
                .longest
                .as_ref()
                .is_none_or(|(_, longest)| running_for > *longest)
            {
                stuck.longest = Some((record.clone(), running_for));
            }
        }
        stuck
    }
}
