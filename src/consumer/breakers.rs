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
    by_dependency: BTreeMap<String, Entry>,
}

struct Entry {
    breaker: Breaker,
    /// Records that wait to be tried again.
    waiting: usize,
}

/// What a record that waits may do.
enum Turn {
    Go,
    Probe,
    /// Until a change, or until a probe is due.
    Wait(Option<Duration>),
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
        let now = self.now();
        self.state().others.add(attempts, now);
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
    /// An attempt failed because `dependency` is down.
    pub(crate) fn outage(&self, dependency: &str, reason: &str) {
        let breakers = &self.breakers;
        let now = breakers.now();
        let change = {
            let mut state = breakers.state();
            let others = state.others.sum(now);
            let entry = state
                .by_dependency
                .entry(dependency.to_owned())
                .or_insert_with(|| Entry {
                    breaker: Breaker::new(breakers.policy),
                    waiting: 0,
                });
            entry.breaker.failed(others, now, rand::random())
        };
        if change == Some(Change::Opened) {
            tracing::error!(
                group = self.group,
                dependency,
                reason,
                "a dependency is down: no handler starts until it answers; nothing is lost, and no attempt is counted"
            );
        }
        self.breaker_changed(dependency, change, reason);
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
            match due {
                Some(due) => {
                    let due = tokio::time::sleep_until(self.breakers.begun + due);
                    tokio::select! { () = changed => {}, () = due => {} }
                }
                None => changed.await,
            }
        }
    }

    /// Closes breakers that nobody waits for, called all the time.
    pub(crate) fn mind_breakers(&self) {
        if !self.breakers.is_open() {
            return;
        }
        let now = self.breakers.now();
        let mut closed = Vec::new();
        for (dependency, entry) in &mut self.breakers.state().by_dependency {
            if entry.waiting == 0 && entry.breaker.close_for_want_of_probes(now).is_some() {
                closed.push(dependency.clone());
            }
        }
        for dependency in closed {
            self.breaker_changed(&dependency, Some(Change::Closed), "");
        }
    }

    fn breaker_changed(&self, dependency: &str, change: Option<Change>, reason: &str) {
        let Some(change) = change else {
            return;
        };
        let any_open = {
            let state = self.breakers.state();
            let any_open = state
                .by_dependency
                .values()
                .any(|entry| entry.breaker.is_open());
            self.breakers.is_open.store(any_open, Ordering::Relaxed);
            self.permits.hold(any_open);
            any_open
        };
        let down = match change {
            Change::Opened => Some(format!("{dependency} is down: {reason}")),
            Change::Closed => {
                tracing::warn!(
                    group = self.group,
                    dependency,
                    "the dependency answers again"
                );
                None
            }
        };
        let (group, name) = (self.group.clone(), dependency.to_owned());
        metrics::gauge!(Metric::BreakerOpen.name(), "group" => group, "dependency" => name)
            .set(if down.is_some() { 1.0 } else { 0.0 });
        self.readiness.down(dependency, down);
        self.breakers.changed.notify_waiters();
        if !any_open {
            for worker in &self.workers {
                worker.send(Message::GoOn);
            }
            self.wake_intake();
        }
    }
}

/// The one record that tries a dependency which is down. Dropped without a word, the next record takes over.
pub(crate) struct Probe {
    engine: Arc<Engine>,
    dependency: String,
    ended: bool,
}

impl Probe {
    /// The attempt ended: with an outage of this dependency, or otherwise, which means that what was down answers.
    pub(crate) fn ended(mut self, outage_of: Option<&str>) {
        self.ended = true;
        let is_down = outage_of == Some(self.dependency.as_str());
        self.tell(|breaker, now| match is_down {
            true => {
                breaker.probe_failed(now, rand::random());
                None
            }
            false => breaker.probe_answered(),
        });
    }

    fn tell(&self, tell: impl FnOnce(&mut Breaker, Duration) -> Option<Change>) {
        let breakers = &self.engine.breakers;
        let now = breakers.now();
        let change = {
            let mut state = breakers.state();
            let entry = state.by_dependency.get_mut(&self.dependency);
            entry.and_then(|entry| tell(&mut entry.breaker, now))
        };
        match change {
            Some(_) => self.engine.breaker_changed(&self.dependency, change, ""),
            // When the next probe is due has changed.
            None => breakers.changed.notify_waiters(),
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !self.ended {
            self.tell(|breaker, now| {
                breaker.probe_abandoned(now);
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
