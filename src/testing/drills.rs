//! Drills: what goes wrong in production some day, made to go wrong in a test, a line each.
//!
//! A [`Drills`] stands between a service's handlers and its store ([`Drills::inbox`]) and around its router
//! ([`Drills::around`]). It delivers events twice, refuses commits, loses answers, crashes the process at a chosen point, and
//! makes the store slow or unavailable. It counts what came of it: [`Drills::report`] names every handler that is not
//! idempotent, which is one that ran again for an event that it had completed, or one whose effect was seen to change by a
//! delivery that was not completed or came twice.
//!
//! ```
//! use evenkeel::event::{Event, EventType};
//! use evenkeel::handler::Router;
//! use evenkeel::inbox::MemoryInbox;
//! use evenkeel::testing::drills::Drills;
//! # #[derive(serde::Serialize, serde::Deserialize)]
//! # struct OrderPlaced { order: String }
//! # impl EventType for OrderPlaced {
//! #     const TYPE: &'static str = "shop.order.placed.v1";
//! #     const TOPIC: &'static str = "shop.orders";
//! #     fn key(&self) -> String { self.order.clone() }
//! # }
//!
//! let drills = Drills::seeded(7).deliver_twice().refuse_commits(0.1);
//! let router = Router::new()
//!     .on(async |_: Event<OrderPlaced>| ())
//!     .with_inbox(drills.inbox(MemoryInbox::default()));
//! let service = drills.around(router);
//! // Give `service` to a Consumer, publish events, wait until they are handled. Then:
//! drills.report().check()?;
//! # let _ = service;
//! # Ok::<(), evenkeel::testing::drills::NotIdempotent>(())
//! ```
//!
//! Chances are drawn from the seed, the event and the attempt, so that a run fails again as it failed, in whatever order its
//! events come. Late results need a consumer: [`Drills::hold_results`] keeps results back for longer than the consumer's
//! `revoke_timeout`, and whoever has the partition by then handles the event.

mod batch;
mod inbox;
mod report;
mod service;
#[cfg(test)]
mod tests;

pub use inbox::DrilledInbox;
pub use report::{DrillReport, HandlerReport, NotIdempotent};
pub use service::Drilled;

use crate::inbox::{BoxFuture, Inbox, InboxError};
use report::Book;
use std::future::Future;
use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What goes wrong, and what came of it. Clones share the latter.
#[derive(Clone, Default)]
pub struct Drills {
    plan: Plan,
    state: Arc<State>,
}

#[derive(Clone, Default)]
struct Plan {
    seed: u64,
    twice: bool,
    refused: f64,
    lost: f64,
    held: Option<(f64, Duration)>,
    slow: Duration,
    down: Option<(u32, Duration)>,
    crash: Option<(CrashPoint, u32)>,
    look: Option<Arc<Look>>,
}

type Look = dyn Fn() -> BoxFuture<'static, String> + Send + Sync;

#[derive(Default)]
struct State {
    book: Mutex<Book>,
    claims: AtomicU32,
    down_since: Mutex<Option<Instant>>,
    /// How often the process was at its crash point.
    crossings: AtomicU32,
    /// Completions that wait for their commit.
    committing: AtomicU32,
    /// Held by a delivery while effects are looked at.
    alone: tokio::sync::Mutex<()>,
}

/// Where a process crashes: it aborts, as if it were killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum CrashPoint {
    /// The event is claimed, its handler has not run.
    BeforeEffect,
    /// The handler has run, its effect is not committed.
    BeforeCommit,
    /// The same, while other events of this process wait for a commit, which they may share.
    InGroup,
    /// The effect is committed, the record is not settled and its offset not committed.
    AfterCommit,
}

impl Drills {
    /// Drills in which nothing goes wrong yet; their chances follow from `seed`.
    pub fn seeded(seed: u64) -> Self {
        let mut drills = Self::default();
        drills.plan.seed = seed;
        drills
    }

    /// Delivers every event that was handled a second time, at once.
    pub fn deliver_twice(mut self) -> Self {
        self.plan.twice = true;
        self
    }

    /// Refuses this share of commits (0 to 1): the handler has succeeded, its effect is undone, the event is tried again.
    pub fn refuse_commits(mut self, share: f64) -> Self {
        self.plan.refused = share;
        self
    }

    /// Loses the answer to this share of commits (0 to 1): the effect is there, the event is tried again.
    pub fn lose_answers(mut self, share: f64) -> Self {
        self.plan.lost = share;
        self
    }

    /// Keeps this share of results back for so long.
    pub fn hold_results(mut self, share: f64, hold: Duration) -> Self {
        self.plan.held = Some((share, hold));
        self
    }

    /// Makes every claim and every commit take this much longer.
    pub fn slow_store(mut self, by: Duration) -> Self {
        self.plan.slow = by;
        self
    }

    /// Makes the store unavailable for so long, once it has answered so many claims.
    pub fn store_down(mut self, after: u32, outage: Duration) -> Self {
        self.plan.down = Some((after, outage));
        self
    }

    /// Aborts the process when it comes to this point for the `nth` time, from 1.
    pub fn crash_at(mut self, point: CrashPoint, nth: u32) -> Self {
        self.plan.crash = Some((point, nth));
        self
    }

    /// Looks at the effects, as a text that tells one state from another, such as a sum over a table: before and after what
    /// must not change them. Deliveries then run one at a time.
    pub fn look_at<F>(mut self, effects: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = String> + Send + 'static,
    {
        self.plan.look = Some(Arc::new(move || Box::pin(effects())));
        self
    }

    /// The store as it is under these drills.
    pub fn inbox<I: Inbox>(&self, inbox: I) -> DrilledInbox<I> {
        DrilledInbox::new(inbox, self.clone())
    }

    /// The router, or layers around one, under these drills.
    pub fn around<S>(&self, service: S) -> Drilled<S> {
        Drilled::new(service, self.clone())
    }

    /// What came of it so far.
    pub fn report(&self) -> DrillReport {
        self.book().report()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        let book = &self.state.book;
        book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what happens to this share of events happens to this one.
    fn strikes(&self, share: f64, of: impl Hash) -> bool {
        let hash = foldhash::fast::FixedState::with_seed(self.plan.seed).hash_one(of);
        (hash as f64) < share * u64::MAX as f64
    }

    fn crash_if_at(&self, point: CrashPoint) {
        if let Some((chosen, nth)) = self.plan.crash
            && chosen == point
            && self.state.crossings.fetch_add(1, Ordering::Relaxed) + 1 == nth
        {
            std::process::abort();
        }
    }

    /// What the store does before it answers.
    async fn store(&self) -> Result<(), InboxError> {
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

fn drilled(what: &str) -> InboxError {
    InboxError::Unavailable(format!("{what}, as this drill has it").into())
}
