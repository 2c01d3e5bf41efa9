//! The probe: the one record that tests whether a dependency is up again.
//!
//! Reports its result to the breaker in every case: an answer, a failure, no answer in time, or an
//! attempt that never asked.
//!
//! Only one probe per dependency is in progress, unless it takes longer than the breaker allows:
//! then the next record probes beside it, because the handler may hang while the dependency is up
//! again.

use crate::consumer::shared::breakers::by_dependency::{
    ANSWERS, Breakers, Permission, WaitingRecord,
};
use crate::consumer::shared::breakers::telemetry;
use crate::recovery::{Breaker, Change, ProbeId};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// The result of a probe for its dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProbeAnswer {
    /// The dependency answered.
    Yes,
    /// The attempt failed by an outage of it or of another dependency, or timed out.
    No,
    /// The attempt ended before it used the dependency.
    NotAsked,
}

/// A probe in progress. If it is dropped without a result, the next record becomes the probe.
pub(crate) struct Probe {
    breakers: Arc<Breakers>,
    dependency: String,
    id: ProbeId,
    is_reported: bool,
}

impl Probe {
    /// The breaker has assigned this id already.
    pub(crate) fn new(breakers: Arc<Breakers>, dependency: &str, id: ProbeId) -> Self {
        Self {
            breakers,
            dependency: dependency.to_owned(),
            id,
            is_reported: false,
        }
    }

    /// Runs the probe's attempt to its end. An attempt that takes too long lends its permit: the
    /// next probe needs one beside it.
    ///
    /// Never cancels the attempt: its effect may have happened.
    pub(crate) async fn run<T>(&self, attempt: impl Future<Output = T>) -> T {
        let mut attempt = pin!(attempt);
        let within = {
            let state = self.breakers.state();
            let entry = state.by_dependency.get(&self.dependency);
            entry.map(|entry| entry.breaker.probe_within())
        };
        let Some(within) = within else {
            return attempt.await;
        };
        if let Ok(ended) = tokio::time::timeout(within, attempt.as_mut()).await {
            return ended;
        }
        telemetry::probe_is_late(&self.breakers.targets.group, &self.dependency, within);
        let _lent = self.breakers.targets.permits.lend();
        attempt.await
    }

    /// The dependency that it probes.
    pub(crate) fn dependency(&self) -> &str {
        &self.dependency
    }

    /// Reports the result of the attempt to the breaker.
    pub(crate) fn report(mut self, answer: ProbeAnswer) {
        if answer == ProbeAnswer::NotAsked {
            return;
        }
        self.is_reported = true;
        let id = self.id;
        self.update(|breaker, now| match answer {
            ProbeAnswer::Yes => breaker.probe_answered(id),
            ProbeAnswer::No | ProbeAnswer::NotAsked => {
                breaker.probe_failed(id, now, rand::random());
                None
            }
        });
        if answer == ProbeAnswer::No {
            self.breakers.allow_trial();
        }
    }

    /// Reports to the breaker and wakes the records that wait for it.
    fn update(&self, update: impl FnOnce(&mut Breaker, Duration) -> Option<Change>) {
        let breakers: &Breakers = &self.breakers;
        let now = breakers.now();
        let mut state = breakers.state();
        let entry = state.by_dependency.get_mut(&self.dependency);
        let change = entry.and_then(|entry| update(&mut entry.breaker, now));
        match change {
            Some(_) => self
                .breakers
                .publish(state, &self.dependency, change, ANSWERS),
            // The time of the next probe has changed.
            None => breakers.changed.notify_waiters(),
        }
    }
}

impl Breakers {
    /// Waits until a record may be attempted again: at once if no breaker is open, otherwise after
    /// its dependency answered. Returns a probe if this record must test its dependency; the caller
    /// reports the result by it.
    ///
    /// Cancel-safe: a probe is only assigned when it is returned.
    pub(crate) async fn wait_until_allowed(
        self: &Arc<Self>,
        dependency: Option<&str>,
    ) -> Option<Probe> {
        let _waiting = dependency.map(|dependency| WaitingRecord::new(self, dependency));
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // The wait is registered before the check, or a change in between would be missed.
            changed.as_mut().enable();
            let due = match (self.permission(dependency), dependency) {
                (Permission::Granted, _) | (Permission::Probe(_), None) => return None,
                (Permission::Probe(probe), Some(dependency)) => {
                    return Some(Probe::new(Arc::clone(self), dependency, probe));
                }
                (Permission::Wait(due), _) => due,
            };
            match due.and_then(|due| self.started_at.checked_add(due)) {
                Some(due) => {
                    let due = tokio::time::sleep_until(due);
                    tokio::select! { () = changed => {}, () = due => {} }
                }
                None => changed.await,
            }
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !self.is_reported {
            let id = self.id;
            self.update(|breaker, now| {
                breaker.probe_abandoned(id, now);
                None
            });
        }
    }
}
