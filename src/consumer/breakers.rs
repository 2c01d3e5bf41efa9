//! The circuit breakers of a running consumer: one for each dependency that has been down.
//!
//! Owns who may try a dependency that is down, and what the rest of the consumer sees of it: workers start nothing, intake
//! takes nothing, the health and a metric say why. Decides nothing: that is the [`Breaker`]'s.

mod probe;

pub(crate) use probe::{Answer, Probe};

use super::engine::Engine;
use super::kinds::Kinds;
use super::tally::Settlement;
use super::worker::Message;
use crate::event::Record;
use crate::recovery::{Breaker, BreakerPolicy, Change, ProbeId, Window};
use crate::telemetry::Metric;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The name of the inbox's store among the dependencies.
pub(crate) const INBOX: &str = "inbox";

/// Why a breaker closes, mostly.
const ANSWERS: &str = "it answers again";

/// A consumer's breakers.
pub(crate) struct Breakers {
    policy: BreakerPolicy,
    begun: Instant,
    state: Mutex<State>,
    /// Whether one is open, for those who ask all the time.
    is_open: AtomicBool,
    /// Whether one has to be told of every record that succeeds.
    watches: AtomicBool,
    /// Told whenever somebody who waits may go on.
    changed: Notify,
}

struct State {
    /// Attempts that ended by no outage.
    others: Window,
    by_dependency: BTreeMap<String, Entry>,
}

struct Entry {
    breaker: Breaker,
    /// Records that wait to be tried again.
    waiting: usize,
    /// What failed.
    kinds: Kinds,
    /// Attempts at such records that ended by no outage of it; before it first failed, all attempts since the one that failed began.
    others: Window,
    /// How it shows that the dependency is down.
    reason: String,
}

/// What a record that waits may do.
enum Turn {
    Go,
    Probe(ProbeId),
    /// Until a change, or until a probe is due.
    Wait(Option<Duration>),
}

/// How much one failure says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// The record had failed by the same dependency before.
    KnownAlready,
    /// It counts beside the attempts that ended otherwise.
    OneOfMany,
    /// Nothing else runs: what this record met is what all would meet.
    StandsForAll,
}

impl State {
    /// What is known of `dependency`. If it was not known, what succeeded since the attempt began that failed may have needed it.
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
            let mut others = Window::new(policy.window);
            others.add(until_now, now);
            Entry {
                breaker: Breaker::new(policy),
                waiting: 0,
                kinds: Kinds::default(),
                others,
                reason: String::new(),
            }
        })
    }
}

impl Breakers {
    pub(crate) fn new(policy: BreakerPolicy) -> Self {
        let state = State {
            others: Window::new(policy.window),
            by_dependency: BTreeMap::new(),
        };
        Self {
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

    /// Whether [`Engine::succeeded`] is to be told of every record.
    pub(crate) fn watches(&self) -> bool {
        self.watches.load(Ordering::Relaxed)
    }

    /// Whether this dependency is down.
    pub(crate) fn is_open_for(&self, dependency: &str) -> bool {
        let state = self.state();
        let entry = state.by_dependency.get(dependency);
        entry.is_some_and(|entry| entry.breaker.is_open())
    }

    /// So many attempts ended by no outage.
    pub(crate) fn others(&self, attempts: u64) {
        if attempts > 0 {
            let now = self.now();
            self.state().others.add(attempts, now);
        }
    }

    fn turn(&self, dependency: Option<&str>) -> Turn {
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

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// A record failed because `dependency` is down; the attempt took so long. Only its first failure by it counts.
    pub(crate) fn outage(
        &self,
        dependency: &str,
        record: &Record,
        reason: &str,
        took: Duration,
        evidence: Evidence,
    ) {
        let breakers = &self.breakers;
        let now = breakers.now();
        let mut state = breakers.state();
        let began = now.saturating_sub(took);
        let entry = state.entry(dependency, breakers.policy, began, now);
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
        breakers.watches.store(true, Ordering::Relaxed);
        self.show(state, dependency, change, "enough records failed by it");
    }

    /// A record that had failed by these dependencies was handled: each of them answered.
    pub(crate) fn answered(&self, dependencies: &[String]) {
        for dependency in dependencies {
            let mut state = self.breakers.state();
            let entry = state.by_dependency.get_mut(dependency);
            let change = entry.and_then(|entry| entry.breaker.answered());
            self.show(state, dependency, change, ANSWERS);
        }
    }

    /// A record was settled like this while breakers watch.
    pub(crate) fn succeeded(&self, record: &Record, settlement: Settlement) {
        self.ended_without_outage(record, |dependency| match settlement {
            Settlement::Done => true,
            // No handler was called, but the inbox was asked.
            Settlement::Duplicate => dependency == INBOX,
            _ => false,
        });
    }

    /// An attempt failed, and not by an outage.
    pub(crate) fn failed_otherwise(&self, record: &Record) {
        self.breakers.others(1);
        if self.breakers.watches() {
            self.ended_without_outage(record, |_| false);
        }
    }

    fn ended_without_outage(&self, record: &Record, is_success: impl Fn(&str) -> bool) {
        let now = self.breakers.now();
        let mut state = self.breakers.state();
        let mut closed = Vec::new();
        let mut tries_others = false;
        for (dependency, entry) in &mut state.by_dependency {
            if entry.kinds.contain(record) {
                entry.others.add(1, now);
                if is_success(dependency) && entry.breaker.others_succeeded().is_some() {
                    closed.push(dependency.clone());
                }
            }
            tries_others |= entry.breaker.tries_others();
        }
        drop(state);
        for dependency in closed {
            let why = "records of the kinds that fail by it are handled, though some still fail";
            self.show(
                self.breakers.state(),
                &dependency,
                Some(Change::Closed),
                why,
            );
        }
        if tries_others {
            self.try_another();
        }
    }

    /// Waits until the record may be tried again: at once while all is well, else when what is down answers. A record whose
    /// own dependency is down may be the one that finds out: it has to say so by the probe.
    pub(crate) async fn may_try(self: &Arc<Self>, dependency: Option<&str>) -> Option<Probe> {
        let _waiting = dependency.map(|dependency| Waiting::new(self, dependency));
        loop {
            let changed = self.breakers.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, or a change between the two would go unnoticed.
            changed.as_mut().enable();
            let due = match (self.breakers.turn(dependency), dependency) {
                (Turn::Go, _) | (Turn::Probe(_), None) => return None,
                (Turn::Probe(probe), Some(dependency)) => {
                    return Some(Probe::new(Arc::clone(self), dependency, probe));
                }
                (Turn::Wait(due), _) => due,
            };
            match due.and_then(|due| self.breakers.begun.checked_add(due)) {
                Some(due) => {
                    let due = tokio::time::sleep_until(due);
                    tokio::select! { () = changed => {}, () = due => {} }
                }
                None => changed.await,
            }
        }
    }

    /// Closes breakers that nobody waits for, and forgets dependencies that are well. Called all the time.
    pub(crate) fn mind_breakers(&self) {
        if !self.breakers.watches() {
            return;
        }
        let now = self.breakers.now();
        let mut state = self.breakers.state();
        let mut closed = Vec::new();
        state.by_dependency.retain(|dependency, entry| {
            if entry.waiting == 0 && entry.breaker.close_for_want_of_probes(now).is_some() {
                closed.push(dependency.clone());
                return true;
            }
            entry.waiting > 0 || entry.breaker.is_interested(now)
        });
        let is_empty = state.by_dependency.is_empty();
        self.breakers.watches.store(!is_empty, Ordering::Relaxed);
        drop(state);
        for dependency in closed {
            let why = "no record waits for it any more: the next that needs it finds out";
            self.show(
                self.breakers.state(),
                &dependency,
                Some(Change::Closed),
                why,
            );
        }
    }

    /// The run ends: what it shows of its breakers is over.
    pub(crate) fn end_breakers(&self) {
        for (dependency, entry) in &self.breakers.state().by_dependency {
            if entry.breaker.is_open() {
                self.control.down(dependency, None);
            }
            self.gauge(dependency, false);
        }
    }

    /// Has everybody see the state of `dependency`'s breaker after a change. Under the lock of the state, so that what is shown
    /// last is what holds: after a change that others have undone meanwhile, it is theirs.
    fn show(
        &self,
        state: MutexGuard<'_, State>,
        dependency: &str,
        change: Option<Change>,
        why: &'static str,
    ) {
        if change.is_none() {
            return;
        }
        let breakers = &self.breakers;
        let is_open = |entry: &Entry| entry.breaker.is_open();
        let any_open = state.by_dependency.values().any(is_open);
        breakers.is_open.store(any_open, Ordering::Relaxed);
        self.permits.hold(any_open);
        let down = state.by_dependency.get(dependency).filter(|e| is_open(e));
        let reason = down.map(|entry| entry.reason.clone());
        let shown = reason
            .as_ref()
            .map(|reason| format!("{dependency} is down: {reason}"));
        self.control.down(dependency, reason.as_deref());
        self.readiness.down(dependency, shown);
        self.gauge(dependency, reason.is_some());
        drop(state);
        match reason {
            Some(reason) => tracing::error!(
                group = self.group,
                dependency,
                reason,
                "a dependency is down: no handler starts until it answers; nothing is lost, and no attempt is counted"
            ),
            None => tracing::warn!(
                group = self.group,
                dependency,
                why,
                "handlers start again after an outage of a dependency"
            ),
        }
        breakers.changed.notify_waiters();
        self.have_workers_look();
    }

    /// Another record may start beside a probe that failed: where few records come, those that are refused may be most of them.
    fn try_another(&self) {
        self.permits.try_one();
        self.have_workers_look();
    }

    /// Workers look again whether handlers may start: they let go of permits that they wait with while none may.
    fn have_workers_look(&self) {
        for worker in &self.workers {
            worker.send(Message::Look);
        }
        self.wake_intake();
    }

    fn gauge(&self, dependency: &str, is_down: bool) {
        let labels = [("group", self.group.as_str()), ("dependency", dependency)];
        self.health
            .gauge(Metric::BreakerOpen, &labels)
            .set(if is_down { 1.0 } else { 0.0 });
    }
}

/// Counts among those who wait for a dependency while it lives.
struct Waiting<'a> {
    engine: &'a Engine,
    dependency: &'a str,
}

impl<'a> Waiting<'a> {
    fn new(engine: &'a Engine, dependency: &'a str) -> Self {
        let breakers = &engine.breakers;
        let now = breakers.now();
        let mut state = breakers.state();
        state.entry(dependency, breakers.policy, now, now).waiting += 1;
        breakers.watches.store(true, Ordering::Relaxed);
        drop(state);
        Self { engine, dependency }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.engine.breakers.state();
        if let Some(entry) = state.by_dependency.get_mut(self.dependency) {
            entry.waiting = entry.waiting.saturating_sub(1);
        }
    }
}
