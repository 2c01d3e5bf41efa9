//! The faults to inject, and their records.
//!
//! Whether a fault strikes is a hash of the seed, the fault and the delivery's identity and
//! attempt. No generator with a state is involved, because deliveries run concurrently and in any
//! order. A retry is another attempt, so a refused commit is not refused for ever.

use super::report::{DrillRecord, DrillReport};
use crate::inbox::{BoxFuture, InboxError};
use std::future::Future;
use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The faults to inject, and the record of their consequences. Clones share the record.
///
/// Choose the faults first, then wrap the inbox and the router: a wrapper keeps the faults that
/// were chosen before it was made.
///
/// ```
/// use evenkeel::testing::drills::{CrashPoint, Drills};
/// use std::time::Duration;
///
/// let drills = Drills::seeded(7)
///     .deliver_twice()
///     .refuse_commits(0.1)
///     .lose_answers(0.1)
///     .store_down(50, Duration::from_secs(2));
/// // In a process of its own, as it aborts:
/// let crash = Drills::seeded(7).crash_at(CrashPoint::AfterCommit, 20);
/// # let _ = (drills, crash);
/// ```
#[derive(Clone, Default)]
#[must_use = "drills affect the inbox and the router that they wrap"]
pub struct Drills {
    pub(super) plan: Plan,
    pub(super) state: Arc<State>,
}

impl std::fmt::Debug for Drills {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drills")
            .field("seed", &self.plan.seed)
            .field("report", &self.report())
            .finish_non_exhaustive()
    }
}

/// The chosen faults. Shares are between 0 and 1; 0 and `None` are no fault.
#[derive(Clone, Default)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) twice: bool,
    pub(super) refused: f64,
    pub(super) lost: f64,
    pub(super) held: Option<(f64, Duration)>,
    pub(super) slow: Duration,
    pub(super) down: Option<(u32, Duration)>,
    pub(super) crash: Option<(CrashPoint, u32)>,
    pub(super) effect_probe: Option<Arc<EffectProbe>>,
}

/// Reads the effects of the handlers as a text.
pub(super) type EffectProbe = dyn Fn() -> BoxFuture<'static, String> + Send + Sync;

/// The state and the results of the drills, shared by all of their clones.
#[derive(Default)]
pub(super) struct State {
    pub(super) record: Mutex<DrillRecord>,
    pub(super) claims: AtomicU32,
    pub(super) down_since: Mutex<Option<Instant>>,
    /// How many times the process reached its crash point.
    pub(super) crossings: AtomicU32,
    /// Completions that wait for their commit.
    pub(super) committing: AtomicU32,
    /// Held by a delivery while the probe reads the effects.
    pub(super) alone: tokio::sync::Mutex<()>,
}

/// A point at which the process crashes: it aborts, which has the effect of a SIGKILL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum CrashPoint {
    /// The event is claimed; its handler has not run.
    BeforeEffect,
    /// The handler has run; its effect is not committed.
    BeforeCommit,
    /// As [`CrashPoint::BeforeCommit`], while other events of this process wait for a commit, which
    /// they may share.
    InGroup,
    /// The effect is committed; the record is not settled and its offset not committed.
    AfterCommit,
}

impl Drills {
    /// Creates drills without faults. `seed` determines all random choices. Print it when a test
    /// fails: the same seed injects the same faults into the same events.
    pub fn seeded(seed: u64) -> Self {
        let mut drills = Self::default();
        drills.plan.seed = seed;
        drills
    }

    /// Delivers every handled event a second time, immediately.
    pub fn deliver_twice(mut self) -> Self {
        self.plan.twice = true;
        self
    }

    /// Refuses this share of commits (0 to 1). The handler has succeeded; its effect is rolled back
    /// and the event is retried. With 1 no commit ever succeeds.
    pub fn refuse_commits(mut self, share: f64) -> Self {
        self.plan.refused = share;
        self
    }

    /// Loses the answer to this share of commits (0 to 1). The effect is committed and the event is
    /// retried.
    pub fn lose_answers(mut self, share: f64) -> Self {
        self.plan.lost = share;
        self
    }

    /// Delays this share of results (0 to 1) by `hold`. The delivery is handled and committed by
    /// then; its offset is settled late.
    pub fn delay_results(mut self, share: f64, hold: Duration) -> Self {
        self.plan.held = Some((share, hold));
        self
    }

    /// Delays every claim and every commit by this duration.
    pub fn slow_store(mut self, by: Duration) -> Self {
        self.plan.slow = by;
        self
    }

    /// Makes the store unavailable for the duration `outage` after it has answered `after` claims.
    /// Claims and commits fail with [`InboxError::Unavailable`], which is an outage and not a
    /// failure of the record.
    pub fn store_down(mut self, after: u32, outage: Duration) -> Self {
        self.plan.down = Some((after, outage));
        self
    }

    /// Aborts the process when it reaches this point for the `nth` time, counted from 1. Run the
    /// service in a process of its own, and start it again afterwards without this drill.
    pub fn crash_at(mut self, point: CrashPoint, nth: u32) -> Self {
        self.plan.crash = Some((point, nth));
        self
    }

    /// Reads the effects as a text, such as the sum of a column, before and after a delivery that
    /// must not change them. Deliveries then run one at a time. It finds effects outside of the
    /// store's transaction, which no inbox can see.
    ///
    /// ```
    /// use evenkeel::testing::drills::Drills;
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    ///
    /// let sent = Arc::new(AtomicU64::new(0));
    /// let seen = Arc::clone(&sent);
    /// let drills = Drills::seeded(7).deliver_twice().with_effect_probe(move || {
    ///     let sent = seen.load(Relaxed);
    ///     async move { sent.to_string() }
    /// });
    /// # let _ = drills;
    /// ```
    pub fn with_effect_probe<F>(mut self, effects: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = String> + Send + 'static,
    {
        self.plan.effect_probe = Some(Arc::new(move || Box::pin(effects())));
        self
    }

    /// The report so far.
    pub fn report(&self) -> DrillReport {
        self.record().report()
    }

    /// The results so far. Held for a moment only, never across an await.
    pub(super) fn record(&self) -> MutexGuard<'_, DrillRecord> {
        let record = &self.state.record;
        record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a fault that affects this share of events affects this one.
    pub(super) fn applies_to(&self, share: f64, of: impl Hash) -> bool {
        let hash = foldhash::fast::FixedState::with_seed(self.plan.seed).hash_one(of);
        (hash as f64) < share * u64::MAX as f64
    }

    /// Aborts the process if the plan has its crash here and now.
    pub(super) fn crash_if_at(&self, point: CrashPoint) {
        if let Some((chosen, nth)) = self.plan.crash
            && chosen == point
            && self.state.crossings.fetch_add(1, Ordering::Relaxed) + 1 == nth
        {
            std::process::abort();
        }
    }

    /// Applies the store's delay or outage before it answers.
    pub(super) async fn store(&self) -> Result<(), InboxError> {
        if !self.plan.slow.is_zero() {
            tokio::time::sleep(self.plan.slow).await;
        }
        let Some((after, outage)) = self.plan.down else {
            return Ok(());
        };
        if self.state.claims.load(Ordering::Relaxed) < after {
            return Ok(());
        }
        let mut since = self
            .state
            .down_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match since.get_or_insert_with(Instant::now).elapsed() < outage {
            true => Err(drilled("the store is down")),
            false => Ok(()),
        }
    }
}

/// The error of an injected fault.
pub(super) fn drilled(what: &str) -> InboxError {
    InboxError::Unavailable(format!("{what} (injected by a drill)").into())
}
