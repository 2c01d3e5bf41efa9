//! The one record that tries a dependency which is down.
//!
//! Owns what the breaker hears of it, whatever becomes of the record: an answer, a failure, nothing in time, or nothing at all.

use super::{ANSWERS, Breakers, Engine};
use crate::recovery::{Breaker, Change, ProbeId};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// What an attempt says of the dependency that its record was to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It answered.
    Yes,
    /// The attempt failed by an outage of it, of another dependency, or by its time.
    No,
    /// The attempt ended before anything was asked.
    Unasked,
}

/// A record that probes. Dropped without a word, the next record takes over.
pub(crate) struct Probe {
    engine: Arc<Engine>,
    dependency: String,
    id: ProbeId,
    ended: bool,
}

impl Probe {
    pub(super) fn new(engine: Arc<Engine>, dependency: &str, id: ProbeId) -> Self {
        Self {
            engine,
            dependency: dependency.to_owned(),
            id,
            ended: false,
        }
    }

    /// Drives the probe's attempt to its end. One that takes too long no longer counts against the concurrency, as the next
    /// probe needs room beside it.
    pub(crate) async fn watch<T>(&self, attempt: impl Future<Output = T>) -> T {
        let mut attempt = pin!(attempt);
        let within = {
            let state = self.engine.breakers.state();
            let entry = state.by_dependency.get(&self.dependency);
            entry.map(|entry| entry.breaker.probe_within())
        };
        let Some(within) = within else {
            return attempt.await;
        };
        if let Ok(ended) = tokio::time::timeout(within, attempt.as_mut()).await {
            return ended;
        }
        tracing::warn!(
            group = self.engine.group,
            dependency = self.dependency,
            after_s = within.as_secs(),
            "a probe has not ended in time: the next record probes beside it; give the handler's calls a timeout"
        );
        let _lent = self.engine.permits.lend();
        attempt.await
    }

    /// What it tries.
    pub(crate) fn dependency(&self) -> &str {
        &self.dependency
    }

    /// The attempt ended, and said this of the dependency.
    pub(crate) fn ended(mut self, answer: Answer) {
        if answer == Answer::Unasked {
            return;
        }
        self.ended = true;
        let id = self.id;
        self.tell(|breaker, now| match answer {
            Answer::Yes => breaker.probe_answered(id),
            Answer::No | Answer::Unasked => {
                breaker.probe_failed(id, now, rand::random());
                None
            }
        });
        if answer == Answer::No {
            self.engine.try_another();
        }
    }

    fn tell(&self, tell: impl FnOnce(&mut Breaker, Duration) -> Option<Change>) {
        let breakers: &Breakers = &self.engine.breakers;
        let now = breakers.now();
        let mut state = breakers.state();
        let entry = state.by_dependency.get_mut(&self.dependency);
        let change = entry.and_then(|entry| tell(&mut entry.breaker, now));
        match change {
            Some(_) => self.engine.show(state, &self.dependency, change, ANSWERS),
            // When the next probe is due has changed.
            None => breakers.changed.notify_waiters(),
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !self.ended {
            let id = self.id;
            self.tell(|breaker, now| {
                breaker.probe_abandoned(id, now);
                None
            });
        }
    }
}
