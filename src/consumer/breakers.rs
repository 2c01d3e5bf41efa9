//! The circuit breakers of a running consumer: one for each dependency that has been down.
//!
//! Owns who may try a dependency that is down, and what the rest of the consumer sees of it: workers start nothing, intake
//! takes nothing, the health and a metric say why. Decides nothing: that is the [`Breaker`]'s.

use super::engine::Engine;
use super::worker::Message;
use crate::recovery::{Breaker, BreakerPolicy, Change, Window};
use crate::telemetry::Metric;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A consumer's breakers.
pub(crate) struct Breakers {
    policy: BreakerPolicy,
    begun: Instant,
    state: Mutex<State>,
    /// Whether one is open, for those who ask all the time.
    is_open: AtomicBool,
    /// Told whenever somebody who waits may go on.
    changed: Notify,
}

struct State {
    /// Attempts that ended by no outage.
    others: Window,
    others_ever: u64,
    by_dependency: BTreeMap<String, Entry>,
}

struct Entry {
    breaker: Breaker,
    /// Records that wait to be tried again.
    waiting: usize,
    /// What `others_ever` was when another record was let start beside the probes.
    others_at_trial: Option<u64>,
    /// How it shows that the dependency is down.
    reason: String,
}

/// What a record that waits may do.
enum Turn {
    Go,
    Probe,
    /// Until a change, or until a probe is due.
    Wait(Option<Duration>),
}

impl State {
    /// Attempts that say nothing against `dependency`.
    fn beside(&self, dependency: &str, now: Duration) -> u64 {
        let other_outages = self
            .by_dependency
            .iter()
            .filter(|(name, _)| *name != dependency)
            .map(|(_, entry)| entry.breaker.failures(now));
        other_outages.fold(self.others.sum(now), u64::saturating_add)
    }
}

impl Breakers {
    pub(crate) fn new(policy: BreakerPolicy) -> Self {
        let state = State {
            others: Window::new(policy.window),
            others_ever: 0,
            by_dependency: BTreeMap::new(),
        };
        Self {
            policy,
            begun: Instant::now(),
            state: Mutex::new(state),
            is_open: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    /// Whether no handler may start.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
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
            let mut state = self.state();
            state.others.add(attempts, now);
            state.others_ever += attempts;
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
                true => Turn::Probe,
                false => Turn::Wait(entry.breaker.probe_at()),
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
    /// A record's first attempt failed because `dependency` is down. Its further attempts say nothing new.
    pub(crate) fn outage(&self, dependency: &str, reason: &str) {
        let now = self.breakers.now();
        let mut state = self.breakers.state();
        let beside = state.beside(dependency, now);
        let entry = state
            .by_dependency
            .entry(dependency.to_owned())
            .or_insert_with(|| Entry {
                breaker: Breaker::new(self.breakers.policy),
                waiting: 0,
                others_at_trial: None,
                reason: String::new(),
            });
        if !entry.breaker.is_open() {
            reason.clone_into(&mut entry.reason);
        }
        let change = entry.breaker.failed(beside, now, rand::random());
        self.show(state, dependency, change);
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
                (Turn::Go, _) | (Turn::Probe, None) => return None,
                (Turn::Probe, Some(dependency)) => {
                    return Some(Probe {
                        engine: Arc::clone(self),
                        dependency: dependency.to_owned(),
                        ended: false,
                    });
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

    /// Closes breakers that nobody waits for, and those that other records got past. Called all the time.
    pub(crate) fn mind_breakers(&self) {
        if !self.breakers.is_open() {
            return;
        }
        let now = self.breakers.now();
        let names: Vec<String> = self
            .breakers
            .state()
            .by_dependency
            .keys()
            .cloned()
            .collect();
        for dependency in names {
            let mut state = self.breakers.state();
            let others_ever = state.others_ever;
            let Some(entry) = state.by_dependency.get_mut(&dependency) else {
                continue;
            };
            let change = if entry.waiting == 0 {
                entry.breaker.close_for_want_of_probes(now)
            } else if entry.others_at_trial.is_some_and(|at| others_ever > at) {
                entry.breaker.others_get_through()
            } else {
                None
            };
            self.show(state, &dependency, change);
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

    /// Has everybody see the state of `dependency`'s breaker. Under the lock of the state, so that what is shown last is what
    /// holds.
    fn show(&self, mut state: MutexGuard<'_, State>, dependency: &str, change: Option<Change>) {
        let Some(change) = change else {
            return;
        };
        let breakers = &self.breakers;
        let any_open = state
            .by_dependency
            .values()
            .any(|entry| entry.breaker.is_open());
        breakers.is_open.store(any_open, Ordering::Relaxed);
        self.permits.hold(any_open);
        let is_down = change == Change::Opened;
        let mut reason = String::new();
        if let Some(entry) = state.by_dependency.get_mut(dependency) {
            entry.others_at_trial = None;
            reason.clone_from(&entry.reason);
        }
        let shown = is_down.then(|| format!("{dependency} is down: {reason}"));
        self.control.down(dependency, is_down.then_some(&*reason));
        self.readiness.down(dependency, shown);
        self.gauge(dependency, is_down);
        drop(state);
        if is_down {
            tracing::error!(
                group = self.group,
                dependency,
                reason,
                "a dependency is down: no handler starts until it answers; nothing is lost, and no attempt is counted"
            );
        } else {
            tracing::warn!(
                group = self.group,
                dependency,
                "the dependency answers again"
            );
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

/// The one record that tries a dependency which is down. Dropped without a word, the next record takes over.
pub(crate) struct Probe {
    engine: Arc<Engine>,
    dependency: String,
    ended: bool,
}

impl Probe {
    /// The attempt ended; `answered` says whether what was down had its say in it.
    pub(crate) fn ended(mut self, answered: bool) {
        self.ended = true;
        self.tell(|entry, others_ever, now| {
            if answered {
                return entry.breaker.probe_answered();
            }
            entry.breaker.probe_failed(now, rand::random());
            entry.others_at_trial.get_or_insert(others_ever);
            None
        });
        if !answered {
            self.engine.try_another();
        }
    }

    fn tell(&self, tell: impl FnOnce(&mut Entry, u64, Duration) -> Option<Change>) {
        let breakers = &self.engine.breakers;
        let now = breakers.now();
        let mut state = breakers.state();
        let others_ever = state.others_ever;
        let entry = state.by_dependency.get_mut(&self.dependency);
        let change = entry.and_then(|entry| tell(entry, others_ever, now));
        match change {
            Some(_) => self.engine.show(state, &self.dependency, change),
            // When the next probe is due has changed.
            None => breakers.changed.notify_waiters(),
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !self.ended {
            self.tell(|entry, _, now| {
                entry.breaker.probe_abandoned(now);
                None
            });
        }
    }
}

/// Counts among those who wait for a dependency while it lives.
struct Waiting<'a> {
    engine: &'a Engine,
    dependency: &'a str,
}

impl<'a> Waiting<'a> {
    fn new(engine: &'a Engine, dependency: &'a str) -> Self {
        let waiting = Self { engine, dependency };
        waiting.count(|waiting| waiting + 1);
        waiting
    }

    fn count(&self, change: impl FnOnce(usize) -> usize) {
        let mut state = self.engine.breakers.state();
        if let Some(entry) = state.by_dependency.get_mut(self.dependency) {
            entry.waiting = change(entry.waiting);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count(|waiting| waiting.saturating_sub(1));
    }
}
