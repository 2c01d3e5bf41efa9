//! The state that the threads and tasks of one running consumer share.
//!
//! One [`Shared`] exists per run. Each part of it has one owner that changes it and guards itself;
//! the struct only brings them together. Counters and flags are atomics without an order between
//! them: nothing is concluded from two of them.
//!
//! | part | written by | read by |
//! |---|---|---|
//! | [`mailbox`] | poll thread, dispatcher, watchdog | the worker that owns it |
//! | [`concurrency`] | workers, retries, breakers | workers |
//! | [`breakers`] | workers, poll thread | workers, poll thread |
//! | [`control`] | poll thread | workers, poll thread |
//! | [`dead_letters`] | retries | flood guard, health |
//! | [`readiness`] | all threads | the health |
//! | [`retry_topics`] | reader, dispatcher, workers, committing thread | the same |
//! | [`intake_thread`], [`run_end`] | all threads | poll thread, the run |

pub(crate) mod breakers;
pub(crate) mod clock;
pub(crate) mod concurrency;
pub(crate) mod control;
pub(crate) mod dead_letters;
pub(crate) mod intake_thread;
pub(crate) mod mailbox;
pub(crate) mod readiness;
pub(crate) mod retry_topics;
pub(crate) mod run_end;

use crate::consumer::report::{RunReport, Stopped};
use crate::consumer::settings::ConsumerSettings;
use crate::consumer::shared::breakers::{BreakerTargets, Breakers};
use crate::consumer::shared::concurrency::ConcurrencyLimit;
use crate::consumer::shared::control::Control;
use crate::consumer::shared::dead_letters::DeadLetterWriter;
use crate::consumer::shared::intake_thread::IntakeThread;
use crate::consumer::shared::mailbox::{Mailbox, Message};
use crate::consumer::shared::readiness::Readiness;
use crate::consumer::shared::retry_topics::RetryTopics;
use crate::consumer::shared::run_end::RunEnd;
use crate::consumer::state::offset_tracker::{Epoch, OffsetTracker};
use crate::consumer::state::worker_partitioner::WorkerPartitioner;
use crate::handler::{Class, Classifier, DeliveryScope};
use crate::telemetry::{Metric, Reporter};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::Notify;

/// The shared state of a running consumer.
///
/// It is created before the workers and dropped after the last of them. Nothing in it refers back
/// to it, so that it has no cycle.
pub(crate) struct Shared {
    /// The consumer group: in log lines, labels and names of topics.
    pub(crate) group: String,
    /// The settings, with durations that can be added.
    pub(crate) settings: ConsumerSettings,
    /// Passed to handlers with each delivery. Each worker has a clone.
    pub(crate) scope: DeliveryScope,
    /// Classifies errors that handlers did not classify.
    pub(crate) classifier: Classifier,
    /// Writes dead letters and records to the group's other topics.
    pub(crate) dead_letters: DeadLetterWriter,
    /// This consumer's part of the process's health and metrics.
    pub(crate) health: Reporter,
    /// Decides whether the consumer is ready.
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) counters: Counters,
    /// The mailboxes of the workers, by the number of the worker.
    pub(crate) workers: Vec<Arc<Mailbox>>,
    /// The concurrency limit.
    pub(crate) permits: Arc<ConcurrencyLimit>,
    /// Chooses the worker of a record. Intake and the dispatcher use the same, so that a parked
    /// record comes to the worker of its key.
    pub(crate) partitioner: WorkerPartitioner,
    pub(crate) retry_topics: RetryTopics,
    /// The circuit breakers.
    pub(crate) breakers: Arc<Breakers>,
    /// Commands of operators, for records and parked sets.
    pub(crate) control: Arc<Control>,
    /// Whether the run is ending.
    pub(crate) end: RunEnd,
    /// Notified when one of the group's own topics seems to be missing.
    pub(crate) group_topics_check: Notify,
    /// Bytes of the batches whose records are in flight.
    pub(crate) budget: Arc<AtomicUsize>,
    /// Records admitted and not settled or released, parked ones included.
    in_flight: AtomicUsize,
    /// Locked by the poll thread and the committing thread only.
    tracker: Mutex<OffsetTracker>,
    /// The poll thread, to be woken.
    pub(crate) intake: Arc<IntakeThread>,
    /// Assignments whose topics were recreated.
    recreated: Mutex<Vec<Epoch>>,
    /// Whether the last commits left out settled offsets, because the metadata was too long.
    is_cut: AtomicBool,
    /// Why the run must end.
    failure: OnceLock<String>,
    /// Whether offsets may refer to other records now. Then nothing may be committed.
    has_doubtful_positions: AtomicBool,
}

/// The counts of a run.
#[derive(Default)]
pub(crate) struct Counters {
    /// Records taken from the client and passed to workers.
    pub(crate) received: AtomicU64,
    /// Records released unsettled, by a revoke or at the end of the run.
    pub(crate) abandoned: AtomicU64,
    /// Abandoned records that the end of the run released after an attempt.
    unfinished: AtomicU64,
    /// Records settled, by any outcome. The four that follow are parts of it.
    pub(crate) settled: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) ignored: AtomicU64,
    pub(crate) dead_letters: AtomicU64,
    pub(crate) parked: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        settings: ConsumerSettings,
        scope: DeliveryScope,
        classifier: Classifier,
        dead_letters: DeadLetterWriter,
        health: Reporter,
        readiness: Readiness,
        control: Control,
    ) -> Self {
        let workers: Vec<Arc<Mailbox>> = (0..settings.workers()).map(|_| Arc::default()).collect();
        let permits = ConcurrencyLimit::new(settings.concurrency, workers.len());
        let (readiness, control) = (Arc::new(readiness), Arc::new(control));
        let intake = Arc::<IntakeThread>::default();
        let targets = BreakerTargets {
            group: settings.group.clone(),
            health: health.clone(),
            readiness: Arc::clone(&readiness),
            control: Arc::clone(&control),
            permits: Arc::clone(&permits),
            workers: workers.clone(),
            intake: Arc::clone(&intake),
        };
        let breakers = Breakers::new(settings.breaker, targets);
        Self {
            group: settings.group.clone(),
            breakers: Arc::new(breakers),
            partitioner: WorkerPartitioner::new(&settings),
            retry_topics: RetryTopics::default(),
            end: RunEnd::new(settings.drain_timeout),
            settings,
            scope,
            classifier,
            dead_letters,
            health,
            readiness,
            control,
            group_topics_check: Notify::new(),
            counters: Counters::default(),
            workers,
            permits,
            budget: Arc::default(),
            in_flight: AtomicUsize::new(0),
            tracker: Mutex::default(),
            intake,
            recreated: Mutex::default(),
            is_cut: AtomicBool::new(false),
            failure: OnceLock::new(),
            has_doubtful_positions: AtomicBool::new(false),
        }
    }

    /// Locks the offset tracker. Hold it briefly, and never across a call into the client.
    pub(crate) fn tracker(&self) -> MutexGuard<'_, OffsetTracker> {
        self.tracker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of records in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// Counts admitted records.
    pub(crate) fn admitted(&self, records: usize) {
        self.in_flight.fetch_add(records, Relaxed);
    }

    /// Counts a record that was released unsettled after an attempt, if the run is ending.
    pub(crate) fn count_unfinished(&self) {
        if self.end.has_begun() {
            self.counters.unfinished.fetch_add(1, Relaxed);
        }
    }

    /// The number of records that the end of the run released unsettled after an attempt.
    pub(crate) fn unfinished(&self) -> u64 {
        self.counters.unfinished.load(Relaxed)
    }

    /// Releases records from the in-flight limit, settled or not. Wakes intake if it waits and half
    /// of the limit is free.
    ///
    /// The half avoids a wake-up per record: intake would otherwise take single records at the
    /// limit.
    pub(crate) fn release(&self, records: usize) {
        let before = self.in_flight.fetch_sub(records, Relaxed);
        if before - records <= self.settings.in_flight_records_max() / 2 && self.intake.waits() {
            self.intake.wake();
        }
    }

    /// Has the workers release memory that they keep beyond their records, because the byte limit
    /// is reached.
    pub(crate) fn compact(&self) {
        for worker in &self.workers {
            worker.send(Message::Compact);
        }
    }

    /// Ends the run with this error. A fresh process can continue.
    ///
    /// The first reason is kept. The poll thread finds it at its next turn, drains and returns it
    /// as [`ConsumerError::Fatal`](crate::consumer::ConsumerError::Fatal); until then other records
    /// continue.
    pub(crate) fn abort(&self, reason: impl Into<String>) {
        let reason = reason.into();
        tracing::error!(
            group = self.group,
            reason,
            "the consumer cannot continue and ends"
        );
        // Later failures usually follow from the first.
        let _ = self.failure.set(reason);
        self.intake.wake();
    }

    /// Ends the run after a position loss: settled offsets may refer to other records, so that
    /// nothing is committed.
    pub(crate) fn abort_at_doubtful_position(&self, reason: impl Into<String>) {
        self.has_doubtful_positions.store(true, Relaxed);
        self.abort(reason);
    }

    /// Whether settled offsets may be committed after the failure: the client works, and no
    /// position is in doubt.
    pub(crate) fn may_commit_after_failure(&self) -> bool {
        self.failure().is_some() && !self.has_doubtful_positions.load(Relaxed)
    }

    /// Why the run must end. None while it can continue.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Registers assignments whose topics were recreated. The poll thread takes them.
    pub(crate) fn add_recreated(&self, epochs: impl IntoIterator<Item = Epoch>) {
        self.lock_recreated().extend(epochs);
    }

    /// Takes the assignments whose topics were recreated since the last call.
    pub(crate) fn take_recreated(&self) -> Vec<Epoch> {
        std::mem::take(&mut *self.lock_recreated())
    }

    /// Locks the list of recreated assignments.
    fn lock_recreated(&self) -> MutexGuard<'_, Vec<Epoch>> {
        self.recreated
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the last commits left out settled offsets, because the metadata was too long.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.load(Relaxed)
    }

    /// Sets whether the last commits left out settled offsets. A stop with such a commit is not
    /// clean.
    pub(crate) fn set_cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Relaxed);
    }

    /// The report of the run.
    pub(crate) fn report(&self, stopped: Stopped, clean: bool) -> RunReport {
        let counters = &self.counters;
        RunReport {
            stopped,
            received: counters.received.load(Relaxed),
            settled: counters.settled.load(Relaxed),
            duplicates: counters.duplicates.load(Relaxed),
            ignored: counters.ignored.load(Relaxed),
            dead_letters: counters.dead_letters.load(Relaxed),
            parked: counters.parked.load(Relaxed),
            clean,
        }
    }

    /// Counts a failed attempt.
    pub(crate) fn count_failure(&self, class: Class) {
        metrics::counter!(
            Metric::Failures.name(),
            "group" => self.group.clone(),
            "class" => class.as_str()
        )
        .increment(1);
    }
}
