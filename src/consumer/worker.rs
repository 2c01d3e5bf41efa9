//! A worker: owns its lanes, drives their handlers, fills its batches' bitmaps.
//!
//! One task per worker. Records come in bursts, one wake a burst. A handler is polled in place, in a reused slot; only
//! one that is not ready then enters a lane and the set of running ones. Knows no client: it is told what arrived and
//! what is fenced, and says what is settled.

use super::engine::Engine;
use super::lanes::{LaneId, LaneKey, Lanes};
use super::ledger::{Epoch, LedgerBatch, Settled};
use super::memory::{self, Pinned};
use super::parking::order_name;
use super::parking::write::tell_drill;
use super::partition::Partition;
use super::permits::Permits;
use super::recover::{Recovering, Recovery, bury, park_behind, recover, skip};
use super::running::{self, Finished, Running, Slot, poll_attempt};
use super::tally::{Settlement, Tally, Verdict};
use crate::control::Command;
use crate::event::{Record, RecordBatch};
use crate::handler::panics::caught;
use crate::handler::{Delivery, HandlerError, Outcome, Scope};
use crate::recovery::parked::Wait;
use crate::recovery::parking::Ticket;
use futures_util::Stream;
use futures_util::stream::FuturesUnordered;
use futures_util::task::AtomicWaker;
use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Records after which a worker lets other tasks of its thread run.
const RECORDS_PER_TURN: usize = 1024;

/// A burst of records for one worker, with their books.
pub(crate) struct Burst {
    pub(crate) records: Arc<RecordBatch>,
    pub(crate) ledger: Arc<LedgerBatch>,
    /// For each record its partition's index in `partitions` and its key's hash.
    pub(crate) entries: Vec<BurstEntry>,
    pub(crate) partitions: Vec<Arc<Partition>>,
}

/// What a worker needs to know of a record before it looks at its bytes.
#[derive(Clone, Copy)]
pub(crate) struct BurstEntry {
    pub(crate) partition: u32,
    pub(crate) hash: u64,
}

/// A parked record whose turn has come, or will come in its lane.
pub(crate) struct ParkedRecord {
    pub(crate) record: Record,
    pub(crate) partition: Arc<Partition>,
    pub(crate) ticket: Ticket,
    /// Whether a drill delivers it once more, and is told how it was settled.
    pub(crate) is_repetition: bool,
    pub(crate) hash: u64,
}

/// What a worker is told.
pub(crate) enum Message {
    Burst(Burst),
    Parked(ParkedRecord),
    /// These epochs are fenced: drop what waits, and answer when nothing of them runs.
    Fence(Vec<Epoch>, mpsc::Sender<()>),
    /// Say which handlers have been running for that long.
    Stuck(Duration, mpsc::Sender<Stuck>),
    /// Room for bytes is short: keep no burst for the sake of a few of its records.
    Compact,
    /// Whether handlers may start has changed.
    Look,
    /// Nothing more comes.
    Close,
}

/// Handlers that have been running for too long.
#[derive(Debug, Default)]
pub(crate) struct Stuck {
    pub(crate) handlers: usize,
    /// The record of the one that has been running longest, and for how long.
    pub(crate) longest: Option<(Record, Duration)>,
}

/// A worker's inbox: swapped whole, one wake per message.
#[derive(Default)]
pub(crate) struct Inbox {
    state: Mutex<InboxState>,
    worker: AtomicWaker,
}

#[derive(Default)]
struct InboxState {
    messages: Vec<Message>,
    /// The worker is gone: what comes is dropped, so that whoever asked hears that there is no answer.
    is_closed: bool,
}

impl Inbox {
    pub(crate) fn send(&self, message: Message) {
        {
            let mut state = self.lock();
            if state.is_closed {
                return;
            }
            state.messages.push(message);
        }
        self.worker.wake();
    }

    fn take_into(&self, messages: &mut Vec<Message>) {
        std::mem::swap(messages, &mut self.lock().messages);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, InboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An inbox that is closed with the drop of this, which its worker's task holds: a task that panicked or was aborted with the run
/// answers nothing any more.
pub(crate) struct OpenInbox(pub(crate) Arc<Inbox>);

impl Drop for OpenInbox {
    fn drop(&mut self) {
        let left = {
            let mut state = self.0.lock();
            state.is_closed = true;
            std::mem::take(&mut state.messages)
        };
        // Not under the lock: records have destructors.
        drop(left);
    }
}

/// A record on its way through its lane.
pub(crate) struct Item {
    pub(crate) record: Record,
    pub(crate) partition: Arc<Partition>,
    books: Books,
    hash: u64,
}

/// Where it is entered that a record is settled.
enum Books {
    /// In those of its burst.
    Burst(Arc<LedgerBatch>, usize),
    /// In those of its retry partition; with what is known of its wait, once it starts.
    Parked {
        ticket: Ticket,
        wait: Wait,
        is_repetition: bool,
    },
}

impl Item {
    fn parked(parked: ParkedRecord) -> Self {
        Self {
            record: parked.record,
            partition: parked.partition,
            books: Books::Parked {
                ticket: parked.ticket,
                wait: Wait::default(),
                is_repetition: parked.is_repetition,
            },
            hash: parked.hash,
        }
    }

    /// The place in the retry partition of a parked record, and its wait so far.
    fn wait(&self) -> (Option<Ticket>, Wait) {
        match self.books {
            Books::Burst(..) => (None, Wait::default()),
            Books::Parked { ticket, wait, .. } => (Some(ticket), wait),
        }
    }
}

impl Burst {
    /// One of its records, to be kept beyond the burst.
    fn item(&self, index: usize, record: Record) -> Item {
        let entry = self.entries[index];
        Item {
            record,
            partition: Arc::clone(&self.partitions[entry.partition as usize]),
            books: Books::Burst(Arc::clone(&self.ledger), index),
            hash: entry.hash,
        }
    }
}

/// Why a first attempt did not settle its record in one poll.
enum Unsettled<F> {
    /// The handler goes on.
    Running(Slot<F>),
    /// The handler ended with an outcome that has to be recovered from.
    Failed(Outcome),
    /// A layer around the handler has no room yet: the recovery waits for it.
    NoRoom,
    /// An operator has it skipped: no handler sees it.
    Skipped(Box<Command>),
    /// Records of its key are parked, and it has to be parked behind them.
    Behind,
}

/// Asked to say when nothing of these epochs runs any more.
struct Fence {
    epochs: Vec<Epoch>,
    answer: mpsc::Sender<()>,
}

/// Drives the handlers of the records that its inbox brings, until it is closed and nothing runs.
pub(crate) async fn run<H>(handler: H, engine: Arc<Engine>, inbox: Arc<Inbox>, permits: Permits)
where
    H: tower::Service<Delivery, Response = Outcome> + Clone + Send + Sync + 'static,
    H::Error: Into<Box<dyn Error + Send + Sync>> + Send,
    H::Future: Send,
{
    // A clone of its own, so that workers do not fight over one reference count.
    let scope = Arc::new(Scope::clone(&engine.scope));
    let mut worker = Worker {
        tally: Tally::new(&engine.group),
        pinned: Pinned::new(engine.settings.in_flight_bytes_max, engine.workers.len()),
        lanes: Lanes::default(),
        running: FuturesUnordered::new(),
        slots: Vec::new(),
        fences: Vec::new(),
        messages: Vec::new(),
        closed: false,
        now: Instant::now(),
        handler,
        scope,
        engine,
        inbox,
        permits,
    };
    poll_fn(|cx| worker.turn(cx)).await;
}

struct Worker<H: tower::Service<Delivery>> {
    handler: H,
    engine: Arc<Engine>,
    scope: Arc<Scope>,
    inbox: Arc<Inbox>,
    permits: Permits,
    lanes: Lanes<Item>,
    running: FuturesUnordered<Running<H::Future>>,
    /// Slots of finished first attempts, to be used again.
    slots: Vec<Slot<H::Future>>,
    fences: Vec<Fence>,
    messages: Vec<Message>,
    tally: Tally,
    pinned: Pinned,
    /// Read once a turn: handlers that take microseconds need no clock of their own.
    now: Instant,
    closed: bool,
}

impl<H> Worker<H>
where
    H: tower::Service<Delivery, Response = Outcome> + Clone + Send + Sync + 'static,
    H::Error: Into<Box<dyn Error + Send + Sync>> + Send,
    H::Future: Send,
{
    /// Does what there is to do; ready when closed and idle.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Registered before the inbox is read, or a message between the two would not wake.
        self.inbox.worker.register(cx.waker());
        self.now = Instant::now();
        let mut records = 0;
        loop {
            let before = records;
            // Before failures are looked at, or a breaker would see them without the successes beside them.
            self.tally.report(&self.engine);
            records += self.finish_ready(cx, RECORDS_PER_TURN);
            records += self.take_messages(cx);
            records += self.start_waiting(cx, RECORDS_PER_TURN);
            if records == before {
                if !self.lanes.has_ready() {
                    self.permits.rest();
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
        self.tally.report(&self.engine);
        if self.closed && self.running.is_empty() && self.lanes.waiting() == 0 {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Settles what finished, at most `limit` records.
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
                    self.tally
                        .handler_ran_for(self.now.saturating_duration_since(started_at));
                    self.settle(&item, verdict);
                    self.permits.finished(self.lanes.has_ready());
                    self.lanes.finished(lane);
                }
                Err(unsettled) => self.go_on_after(item, lane, started_at, unsettled),
            }
        }
        finished
    }

    /// Keeps a record running whose attempt or recovery ended without settling it.
    fn go_on_after(
        &mut self,
        mut item: Item,
        lane: LaneId,
        started_at: Instant,
        unsettled: running::Unsettled,
    ) {
        self.running.push(match unsettled {
            running::Unsettled::Failed(outcome) => {
                let recovering = self.recover(&mut item, outcome, started_at);
                Running::recovering(item, lane, recovering, started_at)
            }
            running::Unsettled::Panicked(reason) => {
                let burying = bury(self.recovery(&mut item), reason);
                Running::burying(item, lane, burying, started_at)
            }
            running::Unsettled::Lost(reason) => {
                // It would panic again, and its lane must not stand still unseen.
                self.engine.fail(format!(
                    "writing the dead letter of {:?}: {}",
                    item.record, reason.message
                ));
                Running::recovering(item, lane, Recovering::never(), started_at)
            }
        });
    }

    fn take_messages(&mut self, cx: &mut Context<'_>) -> usize {
        let mut messages = std::mem::take(&mut self.messages);
        self.inbox.take_into(&mut messages);
        let mut records = 0;
        for message in messages.drain(..) {
            match message {
                Message::Burst(burst) => {
                    records += burst.entries.len();
                    self.admit(burst, cx);
                }
                Message::Parked(parked) => {
                    records += 1;
                    self.wait(Item::parked(parked));
                }
                Message::Fence(epochs, answer) => self.fence(Fence { epochs, answer }),
                Message::Stuck(after, answer) => {
                    // The asker may have given up waiting.
                    let _ = answer.send(self.stuck(after));
                }
                Message::Compact => self.compact(),
                // That it came has the waiting records looked at.
                Message::Look => {}
                Message::Close => self.closed = true,
            }
        }
        self.messages = messages;
        records
    }

    /// Starts a burst's records in order, or queues them where they have to wait. A record that is done at its first
    /// poll touches nothing that is shared.
    fn admit(&mut self, burst: Burst, cx: &mut Context<'_>) {
        let began = Instant::now();
        let mut at_once = 0;
        let mut settled = Settled::of(&burst.ledger);
        let watched = self.engine.breakers.watches();
        for (index, entry) in burst.entries.iter().enumerate() {
            let Some(record) = burst.records.record(index) else {
                break;
            };
            let partition = &burst.partitions[entry.partition as usize];
            let must_wait = self.lanes.has_ready() || {
                let key = lane_key(&self.engine, &record, entry.hash);
                key.is_some_and(|key| self.lanes.is_occupied(key))
            };
            if must_wait || !self.permits.may_start() {
                self.wait(burst.item(index, record));
                continue;
            }
            if partition.is_fenced() {
                self.tally.abandoned();
                continue;
            }
            if joins_parked(&self.engine, partition, &record) {
                self.go_on(burst.item(index, record), None, Unsettled::Behind);
                continue;
            }
            let copy = self.copy(&record);
            let handed_out = copy.clone().unwrap_or(record);
            match self.first_attempt(handed_out, 1, cx) {
                Ok(settlement) => {
                    settled.add(index);
                    self.tally.settled(&partition.topic, settlement);
                    at_once += 1;
                    if watched && let Some(record) = burst.records.record(index) {
                        self.engine.succeeded(&record, settlement);
                    }
                }
                Err(unsettled) => {
                    let Some(record) = copy.or_else(|| burst.records.record(index)) else {
                        break;
                    };
                    self.go_on(burst.item(index, record), None, unsettled);
                }
            }
        }
        drop(settled);
        self.pinned.handed_out(&burst.records);
        if at_once * 2 > burst.entries.len() {
            let records = burst.entries.len() as u32;
            self.tally.handler_ran_for(began.elapsed() / records);
        }
    }

    /// Queues a record in its lane.
    fn wait(&mut self, item: Item) {
        let engine = &self.engine;
        self.lanes
            .wait(item, |item| lane_key(engine, &item.record, item.hash));
    }

    /// The record in a buffer of its own, where handlers keep too many bursts for the sake of a few of their records.
    fn copy(&self, record: &Record) -> Option<Record> {
        let is_needed = self.pinned.hands_out_copies();
        is_needed.then(|| record.detached(Some(&self.engine.budget)))
    }

    /// Room for bytes is short: frees the bursts of which few records are left.
    fn compact(&mut self) {
        let Self { running, lanes, .. } = self;
        memory::compact(&mut |each| {
            let running = running.iter_mut().filter_map(Running::record_mut);
            let waiting = lanes.waiting_mut().map(|item| &mut item.record);
            waiting.chain(running).for_each(each);
        });
        self.pinned.look();
    }

    fn start_waiting(&mut self, cx: &mut Context<'_>, limit: usize) -> usize {
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
    fn start(&mut self, mut item: Item, lane: LaneId, cx: &mut Context<'_>) {
        if item.partition.is_fenced() {
            self.abandon(&item);
            self.lanes.finished(lane);
            return;
        }
        let mut attempt = 1;
        match &mut item.books {
            Books::Burst(..) => {
                if joins_parked(&self.engine, &item.partition, &item.record) {
                    return self.go_on(item, Some(lane), Unsettled::Behind);
                }
            }
            Books::Parked { ticket, wait, .. } => {
                let retry = item.partition.retry.as_ref();
                let Some(until_now) = retry.and_then(|retry| retry.start(*ticket)) else {
                    // The one before it waits again: so does this, and comes again in its turn.
                    let ticket = *ticket;
                    let retry = item.partition.retry.iter();
                    retry.for_each(|retry| retry.change(|state| state.hand_back(ticket, 0)));
                    self.abandon(&item);
                    self.lanes.finished(lane);
                    return;
                };
                *wait = until_now;
                attempt = until_now.attempts.saturating_add(1);
                let (control, epoch) = (&self.engine.control, item.partition.epoch);
                if let Some(command) = control.take_drop(epoch, ticket.offset) {
                    let skipped = Unsettled::Skipped(Box::new(command));
                    return self.go_on(item, Some(lane), skipped);
                }
            }
        }
        self.pinned.started(&item.record);
        if let Some(copy) = self.copy(&item.record) {
            item.record = copy;
        }
        match self.first_attempt(item.record.clone(), attempt, cx) {
            Ok(settlement) => {
                self.settle(&item, Verdict::Settled(settlement));
                self.lanes.finished(lane);
            }
            Err(unsettled) => self.go_on(item, Some(lane), unsettled),
        }
    }

    /// Keeps running a record that its first poll did not settle; its lane is occupied until it is.
    fn go_on(&mut self, mut item: Item, lane: Option<LaneId>, unsettled: Unsettled<H::Future>) {
        let lane = lane.unwrap_or_else(|| {
            let key = lane_key(&self.engine, &item.record, item.hash);
            self.lanes.occupy(key)
        });
        self.permits.started();
        let recovering = match unsettled {
            Unsettled::Running(slot) => {
                self.running
                    .push(Running::first(item, lane, slot, self.now));
                return;
            }
            Unsettled::Behind => park_behind(self.recovery(&mut item)),
            Unsettled::NoRoom => match caught("cloning the handler", || self.handler.clone()) {
                // The instance that asked for room has a place in the layers' queues: it goes with the record.
                Ok(fresh) => {
                    let asked = std::mem::replace(&mut self.handler, fresh);
                    recover(asked, self.recovery(&mut item), None)
                }
                Err(reason) => bury(self.recovery(&mut item), reason),
            },
            Unsettled::Failed(outcome) => self.recover(&mut item, outcome, self.now),
            Unsettled::Skipped(command) => skip(self.recovery(&mut item), command),
        };
        self.running
            .push(Running::recovering(item, lane, recovering, self.now));
    }

    /// Calls the handler and polls it once. A panic in either is an outcome.
    fn first_attempt(
        &mut self,
        record: Record,
        attempt: u32,
        cx: &mut Context<'_>,
    ) -> Result<Settlement, Unsettled<H::Future>> {
        let control = &self.engine.control;
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
            Poll::Pending => Some(Unsettled::NoRoom),
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

    fn delivery(&self, record: Record, attempt: u32) -> Delivery {
        Delivery {
            record,
            attempt,
            scope: Arc::clone(&self.scope),
        }
    }

    /// Recovers from the outcome of an attempt that began then.
    fn recover(&self, item: &mut Item, outcome: Outcome, began: Instant) -> Recovering {
        match caught("cloning the handler", || self.handler.clone()) {
            Ok(handler) => {
                let mut recovery = self.recovery(item);
                recovery.began = began;
                recover(handler, recovery, Some(outcome))
            }
            Err(reason) => bury(self.recovery(item), reason),
        }
    }

    /// The recovery of a record, which keeps nothing of its burst from now on.
    fn recovery(&self, item: &mut Item) -> Recovery {
        item.record = item.record.detached(Some(&self.engine.budget));
        let (ticket, wait) = item.wait();
        Recovery::new(
            Arc::clone(&self.engine),
            self.delivery(item.record.clone(), wait.attempts.saturating_add(1)),
            Arc::clone(&item.partition),
            ticket,
            wait,
        )
    }

    fn settle(&mut self, item: &Item, verdict: Verdict) {
        let Verdict::Settled(settlement) = verdict else {
            if verdict == Verdict::Abandoned {
                self.engine.left_unfinished();
            }
            if let (Verdict::PutBack(mut wait), Some(ticket)) = (verdict, item.wait().0) {
                let control = &self.engine.control;
                if control.is_dropped(item.partition.epoch, ticket.offset) {
                    // It is given up instead, and that need not wait.
                    wait.not_before_ms = 0;
                }
                let retry = item.partition.retry.iter();
                retry.for_each(|retry| retry.change(|state| state.put_back(ticket, wait)));
            }
            return self.abandon(item);
        };
        match &item.books {
            Books::Burst(ledger, index) => ledger.settle(*index),
            Books::Parked {
                ticket,
                is_repetition,
                ..
            } => {
                if *is_repetition {
                    let engine = Arc::clone(&self.engine);
                    tell_drill(engine, item.record.clone(), *ticket, settlement);
                }
                let retry = item.partition.retry.iter();
                retry.for_each(|retry| retry.change(|state| state.settle(*ticket)));
                // It succeeded before it could be given up.
                let _ = self
                    .engine
                    .control
                    .take_drop(item.partition.epoch, ticket.offset);
                self.engine.parking.left();
            }
        }
        self.tally.settled(&item.partition.topic, settlement);
        if self.engine.breakers.watches() {
            self.engine.succeeded(&item.record, settlement);
        }
    }

    /// A record leaves unsettled.
    fn abandon(&mut self, item: &Item) {
        match item.books {
            Books::Burst(..) => self.tally.abandoned(),
            Books::Parked { .. } => {
                self.tally.put_back();
                self.engine.parking.left();
            }
        }
    }

    fn fence(&mut self, fence: Fence) {
        let (mut purged, mut parked) = (0, 0);
        self.lanes.purge(|item| {
            let is_purged = fence.epochs.contains(&item.partition.epoch);
            match item.books {
                Books::Burst(..) => purged += usize::from(is_purged),
                Books::Parked { .. } => parked += usize::from(is_purged),
            }
            is_purged
        });
        (0..purged).for_each(|_| self.tally.abandoned());
        for _ in 0..parked {
            self.tally.put_back();
            self.engine.parking.left();
        }
        self.fences.push(fence);
    }

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
                // Whoever asked may have reached its deadline.
                let _ = fence.answer.send(());
            }
        }
    }

    fn stuck(&self, after: Duration) -> Stuck {
        let mut stuck = Stuck::default();
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

/// The lane that a record belongs to; none when it is ordered with no other.
fn lane_key<'a>(engine: &Engine, record: &'a Record, hash: u64) -> Option<LaneKey<'a>> {
    let key = order_name(&engine.settings, record.key())?;
    let topic = record.topic();
    Some(LaneKey { hash, topic, key })
}

/// Whether a record has to be parked behind others of its key. If so it counts as on its way.
fn joins_parked(engine: &Engine, partition: &Partition, record: &Record) -> bool {
    let retry = partition.retry.as_ref().filter(|retry| !retry.is_empty());
    retry.is_some_and(|retry| {
        retry.joins(order_name(&engine.settings, record.key()), record.offset())
    })
}
