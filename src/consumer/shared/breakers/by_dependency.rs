//! The state of all breakers of a consumer.
//!
//! Decides which record may probe a dependency that is down, and reports the outage: workers start
//! no handler, intake takes no record, the health and a metric name the reason. The [`Breaker`]
//! decides when to open and to close.
//!
//! # Locks
//!
//! One mutex guards all entries. Reports leave under that lock ([`Breakers::show`] reads the state
//! while it holds it), so that the health cannot show an older state last; log lines and wake-ups
//! follow after it. `is_open` and `watches` are copies for the hot path: a stale value costs one
//! attempt or one count, and the state is checked again under the lock.

use crate::consumer::shared::breakers::record_kinds::RecordKinds;
use crate::consumer::shared::concurrency::ConcurrencyLimit;
use crate::consumer::shared::control::Control;
use crate::consumer::shared::intake_thread::IntakeThread;
use crate::consumer::shared::mailbox::{Mailbox, Message};
use crate::consumer::shared::readiness::Readiness;
use crate::consumer::state::settlement::Settlement;
use crate::event::Record;
use crate::recovery::{Breaker, BreakerPolicy, Change, ProbeId, SlidingCount};
use crate::telemetry::{Metric, Part};
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
pub(crate) struct Affected {
    pub(crate) group: String,
    /// For the gauge of open breakers.
    pub(crate) health: Part,
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
    pub(crate) affected: Affected,
    policy: BreakerPolicy,
    /// The zero of the breakers' clock, which is a duration.
    pub(crate) begun: Instant,
    state: Mutex<State>,
    /// Whether a breaker is open, for checks on the hot path.
    is_open: AtomicBool,
    /// Whether a breaker must be notified of every success.
    watches: AtomicBool,
    /// Notified whenever a waiting record may continue.
    pub(crate) changed: Notify,
}

/// The breakers, and the attempts that they are weighed against.
pub(crate) struct State {
    /// Attempts that did not end in an outage.
    others: SlidingCount,
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
    others: SlidingCount,
    /// The reason that the health reports.
    reason: String,
}

/// Whether a waiting record may be attempted.
pub(crate) enum Turn {
    /// At once.
    Go,
    /// At once, as the probe of its dependency.
    Probe(ProbeId),
    /// Wait for a change, or until a probe is due.
    Wait(Option<Duration>),
}

/// How much one failure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// The record had failed by the same dependency before.
    KnownAlready,
    /// The failure is weighed against attempts that ended otherwise.
    OneOfMany,
    /// No other attempt runs, so that this failure represents all records.
    StandsForAll,
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
        let until_now = self.others.sum_since(began, now);
        let named = self.by_dependency.entry(dependency.to_owned());
        named.or_insert_with(|| {
            let mut others = SlidingCount::new(policy.window);
            others.add(until_now, now);
            Entry {
                breaker: Breaker::new(policy),
                waiting: 0,
                kinds: RecordKinds::default(),
                others,
                reason: String::new(),
            }
        })
    }
}

impl Breakers {
    /// Creates the breakers, all closed.
    pub(crate) fn new(policy: BreakerPolicy, affected: Affected) -> Self {
        let state = State {
            others: SlidingCount::new(policy.window),
            by_dependency: BTreeMap::new(),
        };
        Self {
            affected,
            policy,
            begun: Instant::now(),
            state: Mutex::new(state),
            is_open: AtomicBool::new(false),
            watches: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    /// Whether no handler may start.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// Whether [`Breakers::succeeded`] must be called for every record.
    pub(crate) fn watches(&self) -> bool {
        self.watches.load(Ordering::Relaxed)
    }

    /// Whether this dependency is down.
    pub(crate) fn is_open_for(&self, dependency: &str) -> bool {
        let state = self.state();
        let entry = state.by_dependency.get(dependency);
        entry.is_some_and(|entry| entry.breaker.is_open())
    }

    /// Counts attempts that did not end in an outage.
    pub(crate) fn others(&self, attempts: u64) {
        if attempts > 0 {
            let now = self.now();
            self.state().others.add(attempts, now);
        }
    }

    /// Whether a record that failed by this dependency, or by none, may be attempted now. A probe
    /// that it returns is under way and must be reported.
    pub(crate) fn turn(&self, dependency: Option<&str>) -> Turn {
        let now = self.now();
        let mut state = self.state();
        let own = dependency.and_then(|name| state.by_dependency.get_mut(name));
        if let Some(entry) = own
            && entry.breaker.is_open()
        {
            return match entry.breaker.may_probe(now) {
                Some(probe) => Turn::Probe(probe),
                None => Turn::Wait(entry.breaker.probe_at()),
            };
        }
        match self.is_open() {
            true => Turn::Wait(None),
            false => Turn::Go,
        }
    }

    /// The time on the breakers' clock.
    pub(crate) fn now(&self) -> Duration {
        self.begun.elapsed()
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
    pub(crate) fn outage(
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
        let others = entry.others.sum(now);
        let breaker = &mut entry.breaker;
        let change = match evidence {
            Evidence::KnownAlready => breaker.failed_again(others, now, rand::random()),
            Evidence::OneOfMany => breaker.failed(others, now, rand::random()),
            Evidence::StandsForAll => breaker
                .failed(others, now, rand::random())
                .or_else(|| breaker.open_now(now, rand::random())),
        };
        self.watches.store(true, Ordering::Relaxed);
        self.show(state, dependency, change, "enough records failed by it");
    }

    /// Closes the breakers of these dependencies: a record that had failed by them was handled.
    ///
    /// Called for a record that was handled after it had failed, whether or not it was a probe.
    pub(crate) fn answered(&self, dependencies: &[String]) {
        for dependency in dependencies {
            let mut state = self.state();
            let entry = state.by_dependency.get_mut(dependency);
            let change = entry.and_then(|entry| entry.breaker.answered());
            self.show(state, dependency, change, ANSWERS);
        }
    }

    /// Counts a settled record. Called only while [`Breakers::watches`] is true.
    pub(crate) fn succeeded(&self, record: &Record, settlement: Settlement) {
        self.ended_without_outage(record, |dependency| match settlement {
            Settlement::Done => true,
            // No handler was called, but the inbox answered.
            Settlement::Duplicate => dependency == INBOX,
            _ => false,
        });
    }

    /// Counts an attempt that failed without an outage.
    pub(crate) fn failed_otherwise(&self, record: &Record) {
        self.others(1);
        if self.watches() {
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
                entry.others.add(1, now);
                if is_success(dependency) && entry.breaker.others_succeeded().is_some() {
                    closed.push(dependency.clone());
                }
            }
            tries_others |= entry.breaker.may_try_others();
        }
        drop(state);
        for dependency in closed {
            let why = "records of the kinds that failed by it succeed again";
            self.show(self.state(), &dependency, Some(Change::Closed), why);
        }
        if tries_others {
            self.try_another();
        }
    }

    /// Closes breakers that no record waits for, and removes dependencies that have recovered. The
    /// poll thread calls it on every turn.
    ///
    /// A breaker that no record probes would stay open for ever: its records may all have been
    /// revoked.
    pub(crate) fn check(&self) {
        if !self.watches() {
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
        self.watches.store(!is_empty, Ordering::Relaxed);
        drop(state);
        for dependency in closed {
            let why = "no record waits for it any more; the next record that needs it tests it";
            self.show(self.state(), &dependency, Some(Change::Closed), why);
        }
    }

    /// Clears the reports of open breakers at the end of the run.
    pub(crate) fn end(&self) {
        for (dependency, entry) in &self.state().by_dependency {
            if entry.breaker.is_open() {
                self.affected.control.down(dependency, None);
            }
            self.gauge(dependency, false);
        }
    }

    /// Reports the state of `dependency`'s breaker after a change. It reads the state under its
    /// lock, so that the last report is always the current state, even if another thread has
    /// changed it meanwhile.
    pub(crate) fn show(
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
        self.affected.permits.hold(any_open);
        let down = state.by_dependency.get(dependency).filter(|e| is_open(e));
        let reason = down.map(|entry| entry.reason.clone());
        let shown = reason
            .as_ref()
            .map(|reason| format!("{dependency} is down: {reason}"));
        self.affected.control.down(dependency, reason.as_deref());
        self.affected.readiness.down(dependency, shown);
        self.gauge(dependency, reason.is_some());
        drop(state);
        match reason {
            Some(reason) => tracing::error!(
                group = self.affected.group,
                dependency,
                reason,
                "a dependency is down: no handler starts until it answers; no record is lost, and no attempt is counted"
            ),
            None => tracing::warn!(
                group = self.affected.group,
                dependency,
                why,
                "handlers start again after an outage of a dependency"
            ),
        }
        self.changed.notify_waiters();
        self.wake_workers();
    }

    /// Admits one more record after a failed probe: if few records arrive, most of them may be ones
    /// that fail.
    pub(crate) fn try_another(&self) {
        self.affected.permits.try_one();
        self.wake_workers();
    }

    /// Has the workers check again whether handlers may start. Meanwhile they release unused
    /// permits.
    fn wake_workers(&self) {
        for worker in &self.affected.workers {
            worker.send(Message::Look);
        }
        self.affected.intake.wake();
    }

    /// Sets the gauge of a dependency.
    fn gauge(&self, dependency: &str, is_down: bool) {
        let labels = [
            ("group", self.affected.group.as_str()),
            ("dependency", dependency),
        ];
        self.affected
            .health
            .gauge(Metric::BreakerOpen, &labels)
            .set(if is_down { 1.0 } else { 0.0 });
    }
}

/// Counts a waiting record of a dependency until it is dropped.
pub(crate) struct Waiting<'a> {
    breakers: &'a Breakers,
    dependency: &'a str,
}

impl<'a> Waiting<'a> {
    /// Counts a record, and creates the entry of the dependency if there is none.
    pub(crate) fn new(breakers: &'a Breakers, dependency: &'a str) -> Self {
        let now = breakers.now();
        let mut state = breakers.state();
        let entry = state.entry(dependency, breakers.policy, now, now);
        entry.waiting += 1;
        breakers.watches.store(true, Ordering::Relaxed);
        drop(state);
        Self {
            breakers,
            dependency,
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.breakers.state();
        if let Some(entry) = state.by_dependency.get_mut(self.dependency) {
            entry.waiting = entry.waiting.saturating_sub(1);
        }
    }
}
