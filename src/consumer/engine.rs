//! What the parts of one running consumer share.

use super::breakers::Breakers;
use super::control::Control;
use super::dead::DeadLetterWriter;
use super::ending::Ending;
use super::ledger::{Epoch, Ledger};
use super::parking::ParkingLot;
use super::permits::Pool;
use super::readiness::Readiness;
use super::routing::Routing;
use super::settings::ConsumerSettings;
use super::worker::{Inbox, Message};
use super::{RunReport, Stopped};
use crate::handler::{Class, Classifier, Scope};
use crate::telemetry::{Metric, Part};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use tokio::sync::Notify;

/// A running consumer's shared state.
pub(crate) struct Engine {
    pub(crate) group: String,
    pub(crate) settings: ConsumerSettings,
    pub(crate) scope: Scope,
    pub(crate) classifier: Classifier,
    pub(crate) dead_letters: DeadLetterWriter,
    /// This consumer's part of the process's health and metrics.
    pub(crate) health: Part,
    pub(crate) readiness: Readiness,
    pub(crate) counters: Counters,
    pub(crate) workers: Vec<Arc<Inbox>>,
    pub(crate) permits: Arc<Pool>,
    pub(crate) routing: Routing,
    pub(crate) parking: ParkingLot,
    pub(crate) breakers: Breakers,
    pub(crate) control: Control,
    pub(crate) ending: Ending,
    /// Told when something of the group's own topics seems to be missing.
    pub(crate) own_topics_asked: Notify,
    /// Bytes of the batches whose records are still held.
    pub(crate) budget: Arc<AtomicUsize>,
    in_flight: AtomicUsize,
    ledger: Mutex<Ledger>,
    intake: OnceLock<Thread>,
    intake_waits: AtomicBool,
    /// Assignments whose topics were deleted and created again.
    recreated: Mutex<Vec<Epoch>>,
    /// Whether something that is settled did not fit into the last commits.
    is_cut: AtomicBool,
    /// Why the run cannot go on.
    failure: OnceLock<String>,
    /// Whether offsets may mean other records than they did: nothing may be committed any more.
    are_positions_doubtful: AtomicBool,
}

/// What a run has done so far.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) received: AtomicU64,
    /// Let go unsettled: their partitions went, or the run ends.
    pub(crate) abandoned: AtomicU64,
    /// Of those, let go by the end of the run after an attempt had been made.
    unfinished: AtomicU64,
    pub(crate) settled: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) ignored: AtomicU64,
    pub(crate) dead_letters: AtomicU64,
    pub(crate) parked: AtomicU64,
}

impl Engine {
    pub(crate) fn new(
        settings: ConsumerSettings,
        scope: Scope,
        classifier: Classifier,
        dead_letters: DeadLetterWriter,
        health: Part,
        readiness: Readiness,
        control: Control,
    ) -> Self {
        let workers: Vec<Arc<Inbox>> = (0..settings.workers()).map(|_| Arc::default()).collect();
        let permits = Pool::new(settings.concurrency, workers.len());
        Self {
            group: settings.group.clone(),
            breakers: Breakers::new(settings.breaker),
            routing: Routing::new(&settings),
            parking: ParkingLot::default(),
            ending: Ending::new(settings.drain_timeout),
            settings,
            scope,
            classifier,
            dead_letters,
            health,
            readiness,
            control,
            own_topics_asked: Notify::new(),
            counters: Counters::default(),
            workers,
            permits,
            budget: Arc::default(),
            in_flight: AtomicUsize::new(0),
            ledger: Mutex::default(),
            intake: OnceLock::new(),
            intake_waits: AtomicBool::new(false),
            recreated: Mutex::default(),
            is_cut: AtomicBool::new(false),
            failure: OnceLock::new(),
            are_positions_doubtful: AtomicBool::new(false),
        }
    }

    /// The books. Held for moments only, and never across a call into the client.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records admitted that did not leave again.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// Records were admitted.
    pub(crate) fn admitted(&self, records: usize) {
        self.in_flight.fetch_add(records, Relaxed);
    }

    /// Records left unsettled after an attempt, in the end of the run.
    pub(crate) fn left_unfinished(&self) {
        if self.ending.has_begun() {
            self.counters.unfinished.fetch_add(1, Relaxed);
        }
    }

    /// Records that the end of the run left unsettled after an attempt.
    pub(crate) fn unfinished(&self) -> u64 {
        self.counters.unfinished.load(Relaxed)
    }

    /// Records left, settled or not; wakes intake when it waits and half of the room is free.
    pub(crate) fn left(&self, records: usize) {
        let before = self.in_flight.fetch_sub(records, Relaxed);
        if before - records <= self.settings.in_flight_records_max() / 2
            && self.intake_waits.load(Relaxed)
        {
            self.wake_intake();
        }
    }

    /// Makes the present thread the one that intake runs on.
    pub(crate) fn intake_is_here(&self) {
        // Set once per run, by the poll thread itself.
        let _ = self.intake.set(std::thread::current());
    }

    /// Parks the intake thread until there is room, or for `at_most`.
    pub(crate) fn wait_for_room(&self, at_most: std::time::Duration) {
        self.intake_waits.store(true, Relaxed);
        std::thread::park_timeout(at_most);
        self.intake_waits.store(false, Relaxed);
    }

    /// Room for bytes is short: has the workers let go of what they keep beside their records.
    pub(crate) fn compact(&self) {
        for worker in &self.workers {
            worker.send(Message::Compact);
        }
    }

    /// Wakes the intake thread.
    pub(crate) fn wake_intake(&self) {
        if let Some(thread) = self.intake.get() {
            thread.unpark();
        }
    }

    /// The run cannot go on: it ends with this error, and a fresh process is better off.
    pub(crate) fn fail(&self, reason: impl Into<String>) {
        let reason = reason.into();
        tracing::error!(group = self.group, reason, "the consumer cannot go on");
        // The first failure is the one to tell.
        let _ = self.failure.set(reason);
        self.wake_intake();
    }

    /// [`Engine::fail`] because a position fell back: what is settled by offset may be another record.
    pub(crate) fn fail_position(&self, reason: impl Into<String>) {
        self.are_positions_doubtful.store(true, Relaxed);
        self.fail(reason);
    }

    /// Whether what is settled may be committed although the run failed: the client works, and offsets mean what they did.
    pub(crate) fn may_commit_after_failure(&self) -> bool {
        self.failure().is_some() && !self.are_positions_doubtful.load(Relaxed)
    }

    /// Why the run cannot go on; none while it can.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// The topic of these assignments is another one of that name by now.
    pub(crate) fn recreated(&self, epochs: impl IntoIterator<Item = Epoch>) {
        self.lock_recreated().extend(epochs);
    }

    /// Assignments whose topics were found to be others since the last look.
    pub(crate) fn take_recreated(&self) -> Vec<Epoch> {
        std::mem::take(&mut *self.lock_recreated())
    }

    fn lock_recreated(&self) -> MutexGuard<'_, Vec<Epoch>> {
        self.recreated
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the last commits left something out that is settled, for want of room.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.load(Relaxed)
    }

    pub(crate) fn set_cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Relaxed);
    }

    /// What the run did.
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
    pub(crate) fn failed(&self, class: Class) {
        metrics::counter!(Metric::Failures.name(), "group" => self.group.clone(), "class" => class.as_str()).increment(1);
    }
}
