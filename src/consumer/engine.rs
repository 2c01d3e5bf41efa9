//! What the parts of one running consumer share.

use super::dead::DeadLetterWriter;
use super::ledger::Ledger;
use super::rebalance::COMPONENT;
use super::settings::ConsumerSettings;
use super::worker::Inbox;
use super::{RunReport, Stopped};
use crate::handler::{Class, Classifier, Scope};
use crate::telemetry::{Health, Metric};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

/// A running consumer's shared state.
pub(crate) struct Engine {
    pub(crate) group: String,
    pub(crate) settings: ConsumerSettings,
    pub(crate) scope: Scope,
    pub(crate) classifier: Classifier,
    pub(crate) dead_letters: DeadLetterWriter,
    pub(crate) health: Health,
    pub(crate) counters: Counters,
    pub(crate) workers: Vec<Arc<Inbox>>,
    /// Bytes of the batches whose records are still held.
    pub(crate) budget: Arc<AtomicUsize>,
    in_flight: AtomicUsize,
    ledger: Mutex<Ledger>,
    /// Whether the client complained since the cluster was last seen to answer.
    complained: AtomicBool,
    intake: OnceLock<Thread>,
    intake_waits: AtomicBool,
}

/// What a run has done so far.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) received: AtomicU64,
    pub(crate) settled: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) dead_letters: AtomicU64,
}

impl Engine {
    pub(crate) fn new(
        settings: ConsumerSettings,
        scope: Scope,
        classifier: Classifier,
        dead_letters: DeadLetterWriter,
        health: Health,
    ) -> Self {
        let workers = (0..settings.workers()).map(|_| Arc::default()).collect();
        Self {
            group: settings.group.clone(),
            settings,
            scope,
            classifier,
            dead_letters,
            health,
            counters: Counters::default(),
            workers,
            budget: Arc::default(),
            in_flight: AtomicUsize::new(0),
            ledger: Mutex::default(),
            complained: AtomicBool::new(false),
            intake: OnceLock::new(),
            intake_waits: AtomicBool::new(false),
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

    /// Wakes the intake thread.
    pub(crate) fn wake_intake(&self) {
        if let Some(thread) = self.intake.get() {
            thread.unpark();
        }
    }

    /// The cluster cannot be used as it should: shown as not ready until it answers again.
    pub(crate) fn complain(&self, reason: &str) {
        self.complained.store(true, Relaxed);
        self.health.set_ready(COMPONENT, Err(reason.to_owned()));
    }

    /// Whether the client complained since the cluster was last seen to answer.
    pub(crate) fn has_complained(&self) -> bool {
        self.complained.load(Relaxed)
    }

    /// The cluster answers.
    pub(crate) fn cluster_answers(&self) {
        if self.complained.swap(false, Relaxed) {
            self.health.set_ready(COMPONENT, Ok(()));
        }
    }

    /// What the run did.
    pub(crate) fn report(&self, stopped: Stopped, clean: bool) -> RunReport {
        let counters = &self.counters;
        RunReport {
            stopped,
            received: counters.received.load(Relaxed),
            settled: counters.settled.load(Relaxed),
            duplicates: counters.duplicates.load(Relaxed),
            dead_letters: counters.dead_letters.load(Relaxed),
            clean,
        }
    }

    /// Counts a failed attempt.
    pub(crate) fn failed(&self, class: Class) {
        metrics::counter!(Metric::Failures.name(), "group" => self.group.clone(), "class" => class.as_str()).increment(1);
    }
}
