//! The state of all breakers of a consumer.
//!
//! A [`Breaker`] decides when to open and to close. This file applies the decision: it lets one
//! waiting record probe, holds the other handlers and intake, and publishes the outage.
//!
//! # Locks
//!
//! One mutex guards all entries. [`Breakers::publish`] reads the state and sets the health under
//! that lock, so that the health never ends with an older state. Log lines and wake-ups follow
//! after it. `is_open` and `wants_successes` are copies for the hot path: a stale value costs one
//! attempt or one count, because the state is checked again under the lock.

use crate::consumer::shared::breakers::record_kinds::RecordKinds;
use crate::consumer::shared::breakers::telemetry;
use crate::consumer::shared::concurrency::ConcurrencyLimit;
use crate::consumer::shared::control::Control;
use crate::consumer::shared::intake_thread::IntakeThread;
use crate::consumer::shared::mailbox::{Mailbox, Message};
use crate::consumer::shared::readiness::Readiness;
use crate::consumer::state::settlement::Settlement;
use crate::event::Record;
use crate::recovery::{Breaker, BreakerPolicy, Change, ProbeId, SlidingCount};
use crate::telemetry::{Metric, Reporter};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The dependency name of the inbox's store.
pub(crate) const INBOX: &str = "inbox";

/// The usual reason why a breaker closes.
pub(crate) const ANSWERS: &str = "it answers again";

/// The parts of a consumer that breakers report to, and that they hold while one is open.
pub(crate) struct BreakerTargets {
    pub(crate) group: String,
    /// For the gauge of open breakers.
    pub(crate) health: Reporter,
    /// Becomes not ready while a breaker is open.
    pub(crate) readiness: Arc<Readiness>,
    /// Reports outages to operators.
    pub(crate) control: Arc<Control>,
    /// Holds all handlers while a breaker is open.
    pub(crate) permits: Arc<ConcurrencyLimit>,
    /// Are woken when handlers may start again.
    pub(crate) workers: Vec<Arc<Mailbox>>,
    /// Takes no record while a breaker is open.
    pub(crate) intake: Arc<IntakeThread>,
}

/// The breakers of a consumer. The workers and the poll thread share them.
pub(crate) struct Breakers {
    pub(crate) targets: BreakerTargets,
    policy: BreakerPolicy,
    /// The zero of the breakers' clock, which is a duration.
    pub(crate) started_at: Instant,
    state: Mutex<State>,
    /// Whether a breaker is open, for checks on the hot path.
    is_open: AtomicBool,
    /// Whether a breaker must be notified of every success.
    wants_successes: AtomicBool,
    /// Notified whenever a waiting record may continue.
    pub(crate) changed: Notify,
}

/// The breakers, and the attempts that they are weighed against.
pub(crate) struct State {
    /// Attempts that did not end in an outage.
    other_attempts: SlidingCount,
    pub(crate) by_dependency: BTreeMap<String, Entry>,
}

/// A dependency that has failed, until it has recovered and no record waits for it.
pub(crate) struct Entry {
    pub(crate) breaker: Breaker,
    /// Records that wait for their next attempt.
    waiting: usize,
    /// The kinds of records that failed.
    kinds: RecordKinds,
    /// Attempts at such records that did not end in an outage of it. Before its first failure: all
    /// such attempts since the failed one began.
    other_attempts: SlidingCount,
    /// The reason that the health reports.
    reason: String,
}

/// Whether a waiting record may be attempted.
pub(crate) enum Permission {
    /// At once.
    Granted,
    /// At once, as the probe of its dependency.
    Probe(ProbeId),
    /// Wait for a change, or until a probe is due.
    Wait(Option<Duration>),
}

/// How much one failure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// The record had failed by the same dependency before. It does not count again.
    RepeatedFailure,
    /// The record's first failure by the dependency. It is weighed against other attempts.
    FirstFailure,
    /// A probe failed. No other attempt runs, so that it stands for all records.
    FailedProbe,
}

impl State {
    /// The entry of `dependency`. A new entry counts the successes since the failed attempt began:
    /// they may have used the dependency.
    fn entry(
        &mut self,
        dependency: &str,
        policy: BreakerPolicy,
        began: Duration,
        now: Duration,
    ) -> &mut Entry {
        let until_now = self.other_attempts.sum_since(began, now);
        let named = self.by_dependency.entry(dependency.to_owned());
        named.or_insert_with(|| {
            let mut other_attempts = SlidingCount::new(policy.window);
            other_attempts.add(until_now, now);
            Entry {
                breaker: Breaker::new(policy),
                waiting: 0,
                kinds: RecordKinds::default(),
                other_attempts,
                reason: String::new(),
            }
        })
    }
}

impl Breakers {
    /// Creates the breakers, all closed.
    pub(crate) fn new(policy: BreakerPolicy, targets: BreakerTargets) -> Self {
        let state = State {
            other_attempts: SlidingCount::new(policy.window),
            by_dependency: BTreeMap::new(),
        };
        Self {
            targets,
            policy,
            started_at: Instant::now(),
            state: Mutex::new(state),
            is_open: AtomicBool::new(false),
            wants_successes: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    /// Whether no handler may start.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// Whether [`Breakers::succeeded`] must be called for every record.
    pub(crate) fn wants_successes(&self) -> bool {
        self.wants_successes.load(Ordering::Relaxed)
    }

    /// Whether this dependency is down.
    pub(crate) fn is_open_for(&self, dependency: &str) -> bool {
        let state = self.state();
        let entry = state.by_dependency.get(dependency);
        entry.is_some_and(|entry| entry.breaker.is_open())
    }

    /// Counts attempts that did not end in an outage.
    pub(crate) fn count_attempts(&self, attempts: u64) {
        if attempts > 0 {
            let now = self.now();
            self.state().other_attempts.add(attempts, now);
        }
    }

    /// Whether a record that failed by this dependency, or by none, may be attempted now. A probe
    /// that it returns is under way and must be reported.
    pub(crate) fn permission(&self, dependency: Option<&str>) -> Permission {
        let now = self.now();
        let mut state = self.state();
        let own = dependency.and_then(|name| state.by_dependency.get_mut(name));
        if let Some(entry) = own
            && entry.breaker.is_open()
        {
            return match entry.breaker.may_probe(now) {
                Some(probe) => Permission::Probe(probe),
                None => Permission::Wait(entry.breaker.probe_at()),
            };
        }
        match self.is_open() {
            true => Permission::Wait(None),
            false => Permission::Granted,
        }
    }

    /// The time on the breakers' clock.
    pub(crate) fn now(&self) -> Duration {
        self.started_at.elapsed()
    }

    /// Locks the entries.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Breakers {
    /// Counts a failure by an outage of `dependency`. `took` is the duration of the attempt. Only a
    /// record's first failure by a dependency counts.
    ///
    /// Whether this failure opens the breaker is decided by its policy. A failed probe that stands
    /// for all records (nothing else runs) opens it at once.
    pub(crate) fn count_outage(
        &self,
        dependency: &str,
        record: &Record,
        reason: &str,
        took: Duration,
        evidence: Evidence,
    ) {
        let now = self.now();
        let mut state = self.state();
        let began = now.saturating_sub(took);
        let entry = state.entry(dependency, self.policy, began, now);
        entry.kinds.add(record);
        if !entry.breaker.is_open() {
            reason.clone_into(&mut entry.reason);
        }
        let others = entry.other_attempts.sum(now);
        let breaker = &mut entry.breaker;
        let change = match evidence {
            Evidence::RepeatedFailure => breaker.failed_again(others, now, rand::random()),
            Evidence::FirstFailure => breaker.failed(others, now, rand::random()),
            Evidence::FailedProbe => breaker
                .failed(others, now, rand::random())
                .or_else(|| breaker.open_now(now, rand::random())),
        };
        self.wants_successes.store(true, Ordering::Relaxed);
        self.publish(state, dependency, change, "enough records failed by it");
    }

    /// Closes the breakers of these dependencies: a record that had failed by them was handled.
    ///
    /// Called for a record that was handled after it had failed, whether or not it was a probe.
    pub(crate) fn close_for(&self, dependencies: &[String]) {
        for dependency in dependencies {
            let mut state = self.state();
            let entry = state.by_dependency.get_mut(dependency);
            let change = entry.and_then(|entry| entry.breaker.answered());
            self.publish(state, dependency, change, ANSWERS);
        }
    }

    /// Counts a settled record. Called only while [`Breakers::wants_successes`] is true.
    pub(crate) fn succeeded(&self, record: &Record, settlement: Settlement) {
        self.ended_without_outage(record, |dependency| match settlement {
            Settlement::Done => true,
            // No handler was called, but the inbox answered.
            Settlement::Duplicate => dependency == INBOX,
            _ => false,
        });
    }

    /// Counts an attempt that failed without an outage.
    pub(crate) fn failed_without_outage(&self, record: &Record) {
        self.count_attempts(1);
        if self.wants_successes() {
            self.ended_without_outage(record, |_| false);
        }
    }

    /// Counts an attempt for every dependency by which records of its kind failed. `is_success`
    /// tells whether it is evidence that the dependency answered.
    fn ended_without_outage(&self, record: &Record, is_success: impl Fn(&str) -> bool) {
        let now = self.now();
        let mut state = self.state();
        let mut closed = Vec::new();
        let mut tries_others = false;
        for (dependency, entry) in &mut state.by_dependency {
            if entry.kinds.contain(record) {
                entry.other_attempts.add(1, now);
                if is_success(dependency) && entry.breaker.others_succeeded().is_some() {
                    closed.push(dependency.clone());
                }
            }
            tries_others |= entry.breaker.may_try_others();
        }
        drop(state);
        for dependency in closed {
            let why = "records of the kinds that failed by it succeed again";
            self.publish(self.state(), &dependency, Some(Change::Closed), why);
        }
        if tries_others {
            self.allow_trial();
        }
    }

    /// Closes breakers that no record waits for, and removes dependencies that have recovered. The
    /// poll thread calls it on every turn.
    ///
    /// A breaker that no record probes would stay open for ever: its records may all have been
    /// revoked.
    pub(crate) fn check(&self) {
        if !self.wants_successes() {
            return;
        }
        let now = self.now();
        let mut state = self.state();
        let mut closed = Vec::new();
        state.by_dependency.retain(|dependency, entry| {
            if entry.waiting == 0 && entry.breaker.close_for_want_of_probes(now).is_some() {
                closed.push(dependency.clone());
                return true;
            }
            entry.waiting > 0 || entry.breaker.is_interested(now)
        });
        let is_empty = state.by_dependency.is_empty();
        self.wants_successes.store(!is_empty, Ordering::Relaxed);
        drop(state);
        for dependency in closed {
            let why = "no record waits for it any more; the next record that needs it tests it";
            self.publish(self.state(), &dependency, Some(Change::Closed), why);
        }
    }

    /// Clears the reports of open breakers at the end of the run.
    pub(crate) fn end(&self) {
        for (dependency, entry) in &self.state().by_dependency {
            if entry.breaker.is_open() {
                self.targets.control.report_outage(dependency, None);
            }
            self.gauge(dependency, false);
        }
    }

    /// Publishes the state of `dependency`'s breaker after a change: to the permits, the control
    /// topic, the health and the gauge. The caller still holds the lock, so that the last report
    /// is always the current state.
    pub(crate) fn publish(
        &self,
        state: MutexGuard<'_, State>,
        dependency: &str,
        change: Option<Change>,
        why: &'static str,
    ) {
        if change.is_none() {
            return;
        }
        let is_open = |entry: &Entry| entry.breaker.is_open();
        let any_open = state.by_dependency.values().any(is_open);
        self.is_open.store(any_open, Ordering::Relaxed);
        self.targets.permits.set_held(any_open);
        let down = state.by_dependency.get(dependency).filter(|e| is_open(e));
        let reason = down.map(|entry| entry.reason.clone());
        let shown = reason
            .as_ref()
            .map(|reason| format!("{dependency} is down: {reason}"));
        self.targets
            .control
            .report_outage(dependency, reason.as_deref());
        self.targets.readiness.report_dependency(dependency, shown);
        self.gauge(dependency, reason.is_some());
        drop(state);
        match reason {
            Some(reason) => telemetry::breaker_opened(&self.targets.group, dependency, &reason),
            None => telemetry::breaker_closed(&self.targets.group, dependency, why),
        }
        self.changed.notify_waiters();
        self.wake_workers();
    }

    /// Lets one record start that has not failed, after a failed probe: its success shows that the
    /// dependency is up.
    pub(crate) fn allow_trial(&self) {
        self.targets.permits.allow_trial();
        self.wake_workers();
    }

    /// Has the workers check again whether handlers may start. Meanwhile they release unused
    /// permits.
    fn wake_workers(&self) {
        for worker in &self.targets.workers {
            worker.send(Message::RecheckPermits);
        }
        self.targets.intake.wake();
    }

    /// Sets the gauge of a dependency.
    fn gauge(&self, dependency: &str, is_down: bool) {
        let labels = [
            ("group", self.targets.group.as_str()),
            ("dependency", dependency),
        ];
        self.targets
            .health
            .gauge(Metric::BreakerOpen, &labels)
            .set(if is_down { 1.0 } else { 0.0 });
    }
}

/// Counts a waiting record of a dependency until it is dropped.
pub(crate) struct WaitingRecord<'a> {
    breakers: &'a Breakers,
    dependency: &'a str,
}

impl<'a> WaitingRecord<'a> {
    /// Counts a record, and creates the entry of the dependency if there is none.
    pub(crate) fn new(breakers: &'a Breakers, dependency: &'a str) -> Self {
        let now = breakers.now();
        let mut state = breakers.state();
        let entry = state.entry(dependency, breakers.policy, now, now);
        entry.waiting += 1;
        breakers.wants_successes.store(true, Ordering::Relaxed);
        drop(state);
        Self {
            breakers,
            dependency,
        }
    }
}

impl Drop for WaitingRecord<'_> {
    fn drop(&mut self) {
        let mut state = self.breakers.state();
        if let Some(entry) = state.by_dependency.get_mut(self.dependency) {
            entry.waiting = entry.waiting.saturating_sub(1);
        }
    }
}
