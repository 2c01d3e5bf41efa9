//! Concurrency is one number for the consumer, shared by its workers.
//!
//! Every worker owns one permit for good, so that none can starve and a handler that is ready at once touches nothing
//! shared; the rest are drawn from a common pool and kept while they are useful.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The permits that workers share.
pub(crate) struct Pool {
    shared: Arc<Semaphore>,
    fair_share: usize,
    hungry: AtomicUsize,
    /// Permits that were lent and not taken back: so many that are given back do not return to the pool.
    owed: AtomicUsize,
    /// Whether no handler may start, permit or not.
    is_held: AtomicBool,
    /// Handlers that may start all the same.
    trials: AtomicUsize,
}

impl Pool {
    /// A pool for `concurrency` handlers over `workers` workers, each of which owns one permit beside it.
    pub(crate) fn new(concurrency: usize, workers: usize) -> Arc<Self> {
        let shared = Arc::new(Semaphore::new(concurrency.saturating_sub(workers)));
        Arc::new(Self {
            shared,
            fair_share: (concurrency / workers).max(1),
            hungry: AtomicUsize::new(0),
            owed: AtomicUsize::new(0),
            is_held: AtomicBool::new(false),
            trials: AtomicUsize::new(0),
        })
    }
}

impl Pool {
    /// Lends out the permit of a handler that only waits.
    pub(crate) fn lend(self: &Arc<Self>) -> Lent {
        self.give_back();
        Lent {
            pool: Arc::clone(self),
            is_lent: true,
        }
    }

    /// Lets no handler start, or lets them start again: whoever found that none may has to be told.
    pub(crate) fn hold(&self, hold: bool) {
        self.trials.store(0, Ordering::Relaxed);
        self.is_held.store(hold, Ordering::Relaxed);
    }

    /// Lets one handler start although they are held, to see how it fares.
    pub(crate) fn try_one(&self) {
        self.trials.store(1, Ordering::Relaxed);
    }

    /// Whether one may be tried that has not started yet.
    pub(crate) fn has_trial(&self) -> bool {
        self.trials.load(Ordering::Relaxed) > 0
    }

    fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Relaxed)
    }

    fn take_trial(&self) -> bool {
        let less = |trials: usize| trials.checked_sub(1);
        let taken = self
            .trials
            .try_update(Ordering::Relaxed, Ordering::Relaxed, less);
        taken.is_ok()
    }

    fn give_back(&self) {
        let owed = self
            .owed
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |owed| {
                owed.checked_sub(1)
            });
        if owed.is_err() {
            self.shared.add_permits(1);
        }
    }
}

/// A permit that others use meanwhile.
pub(crate) struct Lent {
    pool: Arc<Pool>,
    is_lent: bool,
}

impl Lent {
    /// Waits until the permit can be had again.
    pub(crate) async fn take_back(mut self) {
        let _hungry = Hungry::new(&self.pool);
        // The pool is never closed.
        if let Ok(permit) = self.pool.shared.acquire().await {
            permit.forget();
            self.is_lent = false;
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Who lent it goes on without it: the next one that is given back makes up for it.
        if self.is_lent && self.pool.shared.forget_permits(1) == 0 {
            self.pool.owed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Counts among those short of permits while it lives.
struct Hungry<'a>(&'a Pool);

impl<'a> Hungry<'a> {
    fn new(pool: &'a Pool) -> Self {
        pool.hungry.fetch_add(1, Ordering::Relaxed);
        Self(pool)
    }
}

impl Drop for Hungry<'_> {
    fn drop(&mut self) {
        self.0.hungry.fetch_sub(1, Ordering::Relaxed);
    }
}

type Acquire = Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>;

/// One worker's permits.
pub(crate) struct Permits {
    pool: Arc<Pool>,
    /// Handlers that may run now: the worker's own permit and those drawn from the pool.
    held: usize,
    running: usize,
    acquiring: Option<Acquire>,
}

impl Permits {
    pub(crate) fn new(pool: Arc<Pool>) -> Self {
        Self {
            pool,
            held: 1,
            running: 0,
            acquiring: None,
        }
    }

    /// Whether one more handler may start now.
    pub(crate) fn may_start(&mut self) -> bool {
        if self.pool.is_held() {
            let is_free = self.running < self.held || self.draw();
            return is_free && self.pool.take_trial();
        }
        self.running < self.held || self.draw()
    }

    /// Draws a permit from the pool, if there is one.
    fn draw(&mut self) -> bool {
        match self.pool.shared.try_acquire() {
            Ok(permit) => {
                permit.forget();
                self.held += 1;
                true
            }
            Err(_) => false,
        }
    }

    /// A handler that may start did not finish at once.
    pub(crate) fn started(&mut self) {
        self.running += 1;
    }

    /// A running handler finished. Keeps its permit when records wait for one here, unless that is more than this
    /// worker's share and another worker is short of permits.
    pub(crate) fn finished(&mut self, waiting: bool) {
        self.running -= 1;
        let others_wait = self.pool.hungry.load(Ordering::Relaxed) > 0;
        let keep = waiting && !(others_wait && self.held > self.pool.fair_share);
        if !keep && self.held > 1 {
            self.held -= 1;
            self.pool.give_back();
        }
    }

    /// Gives back what is held and not used: nothing waits here.
    pub(crate) fn rest(&mut self) {
        self.stop_acquiring();
        while self.held > self.running.max(1) {
            self.held -= 1;
            self.pool.give_back();
        }
    }

    /// Waits in the pool's queue for one more permit; ready when there is one.
    pub(crate) fn poll_acquire(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.pool.is_held() {
            // What is queued or held here may be all that the one record which is tried waits for.
            self.rest();
            return Poll::Pending;
        }
        let pool = &self.pool;
        let acquiring = self.acquiring.get_or_insert_with(|| {
            pool.hungry.fetch_add(1, Ordering::Relaxed);
            let shared = Arc::clone(&pool.shared);
            Box::pin(async move { shared.acquire_owned().await.ok() })
        });
        match acquiring.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(permit) => {
                self.stop_acquiring();
                if let Some(permit) = permit {
                    permit.forget();
                    self.held += 1;
                }
                Poll::Ready(())
            }
        }
    }

    fn stop_acquiring(&mut self) {
        if self.acquiring.take().is_some() {
            self.pool.hungry.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Permits {
    fn drop(&mut self) {
        self.running = 0;
        self.rest();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_never_run_more_than_the_concurrency_together() {
        let pool = Pool::new(3, 2);
        let (mut a, mut b) = (Permits::new(Arc::clone(&pool)), Permits::new(pool));
        let start = |permits: &mut Permits| {
            permits.may_start() && {
                permits.started();
                true
            }
        };
        assert!(start(&mut a) && start(&mut a) && !start(&mut a));
        assert!(start(&mut b) && !start(&mut b));
        a.finished(false);
        assert!(start(&mut b) && !start(&mut b) && !start(&mut a));
    }

    #[test]
    fn a_lent_permit_is_used_by_others_and_none_is_made_of_it() {
        let pool = Pool::new(3, 2);
        let (mut a, mut b) = (
            Permits::new(Arc::clone(&pool)),
            Permits::new(Arc::clone(&pool)),
        );
        while a.may_start() {
            a.started();
        }
        b.may_start();
        b.started();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let lent = pool.lend();
        assert!(b.may_start(), "what a waits with, b may use");
        b.started();
        let mut back = std::pin::pin!(lent.take_back());
        assert!(back.as_mut().poll(&mut cx).is_pending());
        b.finished(true);
        assert!(back.poll(&mut cx).is_ready(), "b held more than its share");

        drop(pool.lend());
        assert!(!b.may_start(), "what was lent and not used is no more");
        let lent = pool.lend();
        assert!(b.may_start());
        b.started();
        drop(lent);
        a.finished(false);
        assert!(!a.may_start(), "the first one given back makes up for it");
        b.finished(false);
        assert!(a.may_start());
    }

    #[test]
    fn while_they_are_held_none_starts_whatever_is_free() {
        let pool = Pool::new(4, 2);
        let mut a = Permits::new(Arc::clone(&pool));
        pool.hold(true);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(!a.may_start());
        assert!(a.poll_acquire(&mut cx).is_pending());
        pool.try_one();
        assert!(
            a.may_start() && !a.may_start(),
            "but one, where that is asked for"
        );
        pool.hold(false);
        assert!(a.may_start());
        assert!(a.poll_acquire(&mut cx).is_ready());
    }

    #[test]
    fn a_worker_that_waits_for_a_permit_while_they_are_held_takes_none_from_who_lent_it() {
        let pool = Pool::new(1, 1);
        let mut a = Permits::new(Arc::clone(&pool));
        assert!(a.may_start());
        a.started();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(a.poll_acquire(&mut cx).is_pending());
        pool.hold(true);
        let lent = pool.lend();
        assert!(a.poll_acquire(&mut cx).is_pending());
        let mut back = std::pin::pin!(lent.take_back());
        assert!(back.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn a_worker_without_records_keeps_nothing_but_its_own_permit() {
        let pool = Pool::new(4, 2);
        let (mut a, mut b) = (Permits::new(Arc::clone(&pool)), Permits::new(pool));
        while a.may_start() {
            a.started();
        }
        (0..3).for_each(|_| a.finished(true));
        assert!(b.may_start());
        b.started();
        assert!(!b.may_start());
        a.rest();
        assert!(b.may_start());
    }

    #[test]
    fn a_worker_over_its_share_gives_a_permit_to_one_that_is_short() {
        let pool = Pool::new(4, 2);
        let (mut a, mut b) = (Permits::new(Arc::clone(&pool)), Permits::new(pool));
        while a.may_start() {
            a.started();
        }
        b.may_start();
        b.started();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(b.poll_acquire(&mut cx).is_pending());
        a.finished(true);
        assert!(
            b.poll_acquire(&mut cx).is_ready(),
            "a held 3 of 4 permits and let one go"
        );
        assert!(b.may_start());
    }
}
