//! The concurrency limit of a consumer. Its workers share it.
//!
//! # Why permits and not a counter
//!
//! [`ConsumerSettings::concurrency`](crate::consumer::ConsumerSettings::concurrency) bounds the
//! handlers of all workers together, while each worker decides alone and without a lock whether it
//! starts one. So each worker owns one permit, with which it always makes progress, and draws
//! further ones from a shared pool. It keeps a drawn permit while records wait for it, and gives it
//! back when no record waits, or when others wait and it has more than its fair share: no worker
//! with many keys can starve the others.
//!
//! # Lending
//!
//! A handler that only waits (between attempts, for a dependency, for its dead letter) lends its
//! permit to others and takes one back before it continues, so that waiting records use up no
//! concurrency. If the owner ends before it takes a permit back, one leaves circulation: it is
//! taken from the pool, or the next returned permit is withheld (`owed`). So the number of permits
//! stays the same.
//!
//! # Holding
//!
//! While a breaker is open no handler starts, except for *trials*: single ones that find out
//! whether other records succeed. Probes of a retry run beside this limit after a second, because
//! hanging handlers may hold every permit.
//!
//! # Example
//!
//! With a concurrency of 10 and 4 workers, each worker owns one permit, and the pool has 6. A fair
//! share is two permits. A worker with 20 ready keys draws all 6 and runs 7 handlers. When another
//! worker waits, it gives back a permit with each handler that ends, until it has two.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A pool of permits for running handlers. Every worker owns one permit beside the pool.
///
/// The sum of all permits, in the pool, with workers and lent, is the concurrency. With fewer
/// permits than workers there are as many as workers.
pub(crate) struct ConcurrencyLimit {
    /// The pool: the concurrency without one permit per worker. Never closed.
    shared: Arc<Semaphore>,
    /// How many permits a worker keeps while others wait for one.
    fair_share: usize,
    /// Workers and handlers that wait for a permit.
    waiters: AtomicUsize,
    /// Lent permits that will not be returned. As many of the next returned ones do not go back to
    /// the pool.
    owed: AtomicUsize,
    /// Whether no handler may start, even with a permit.
    is_held: AtomicBool,
    /// Handlers that may start although they are held.
    trials: AtomicUsize,
}

impl ConcurrencyLimit {
    /// A pool for `concurrency` handlers over `workers` workers, each of which owns one permit
    /// beside it.
    pub(crate) fn new(concurrency: usize, workers: usize) -> Arc<Self> {
        let shared = Arc::new(Semaphore::new(concurrency.saturating_sub(workers)));
        Arc::new(Self {
            shared,
            fair_share: (concurrency / workers).max(1),
            waiters: AtomicUsize::new(0),
            owed: AtomicUsize::new(0),
            is_held: AtomicBool::new(false),
            trials: AtomicUsize::new(0),
        })
    }
}

impl ConcurrencyLimit {
    /// Lends the permit of a handler that only waits to others.
    ///
    /// If the result is dropped without [`LentPermit::take_back`], one permit leaves circulation.
    pub(crate) fn lend(self: &Arc<Self>) -> LentPermit {
        self.give_back();
        LentPermit {
            pool: Arc::clone(self),
            is_lent: true,
        }
    }

    /// Holds all handlers, or allows them again. Cancels a trial that was not used. The caller
    /// notifies the workers.
    pub(crate) fn set_held(&self, is_held: bool) {
        self.trials.store(0, Ordering::Relaxed);
        self.is_held.store(is_held, Ordering::Relaxed);
    }

    /// Lets one handler start although they are held.
    pub(crate) fn allow_trial(&self) {
        self.trials.store(1, Ordering::Relaxed);
    }

    /// Whether a handler may start although they are held.
    pub(crate) fn has_trial(&self) -> bool {
        self.trials.load(Ordering::Relaxed) > 0
    }

    /// Whether no handler may start.
    fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Relaxed)
    }

    /// Uses the trial. Returns false if there is none, or another worker was first.
    fn take_trial(&self) -> bool {
        let less = |trials: usize| trials.checked_sub(1);
        let taken = self
            .trials
            .try_update(Ordering::Relaxed, Ordering::Relaxed, less);
        taken.is_ok()
    }

    /// Returns a permit to the pool, or pays a debt with it.
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
pub(crate) struct LentPermit {
    pool: Arc<ConcurrencyLimit>,
    is_lent: bool,
}

impl LentPermit {
    /// Waits until a permit is available again.
    ///
    /// Cancel-safe: a dropped wait counts as a permit that was not taken back.
    pub(crate) async fn take_back(mut self) {
        let _waiter = CountedWaiter::new(&self.pool);
        // The pool is never closed.
        if let Ok(permit) = self.pool.shared.acquire().await {
            permit.forget();
            self.is_lent = false;
        }
    }
}

impl Drop for LentPermit {
    fn drop(&mut self) {
        // The handler runs on without a permit. The next returned one makes up for it.
        if self.is_lent && self.pool.shared.forget_permits(1) == 0 {
            self.pool.owed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Counts a waiter for a permit until it is dropped.
struct CountedWaiter<'a>(&'a ConcurrencyLimit);

impl<'a> CountedWaiter<'a> {
    /// Counts the caller as waiting.
    fn new(pool: &'a ConcurrencyLimit) -> Self {
        pool.waiters.fetch_add(1, Ordering::Relaxed);
        Self(pool)
    }
}

impl Drop for CountedWaiter<'_> {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A permit that is being waited for in the pool's queue, which is fair.
type Acquire = Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>;

/// The permits of one worker. Not shared: the worker's task owns it.
pub(crate) struct Permits {
    pool: Arc<ConcurrencyLimit>,
    /// How many handlers may run now: the worker's own permit and those drawn from the pool.
    owned: usize,
    running: usize,
    /// The place in the pool's queue, while records wait here without a permit.
    acquiring: Option<Acquire>,
}

impl Permits {
    /// The permits of a worker that runs nothing: its own.
    pub(crate) fn new(pool: Arc<ConcurrencyLimit>) -> Self {
        Self {
            pool,
            owned: 1,
            running: 0,
            acquiring: None,
        }
    }

    /// Whether one more handler may start now. Draws a permit from the pool if necessary.
    pub(crate) fn may_start(&mut self) -> bool {
        if self.pool.is_held() {
            let is_free = self.running < self.owned || self.draw();
            return is_free && self.pool.take_trial();
        }
        self.running < self.owned || self.draw()
    }

    /// Draws a permit from the pool. Returns false if none is free.
    fn draw(&mut self) -> bool {
        match self.pool.shared.try_acquire() {
            Ok(permit) => {
                permit.forget();
                self.owned += 1;
                true
            }
            Err(_) => false,
        }
    }

    /// Counts a handler that was not ready at its first poll.
    pub(crate) fn started(&mut self) {
        self.running += 1;
    }

    /// Ends a running handler. `waiting` tells whether records wait here: then the worker keeps the
    /// permit, unless it holds more than its fair share and another one waits for a permit.
    ///
    /// The permit is kept for the next record of this worker, which saves two atomic operations per
    /// record.
    pub(crate) fn finished(&mut self, waiting: bool) {
        self.running -= 1;
        let others_wait = self.pool.waiters.load(Ordering::Relaxed) > 0;
        let keep = waiting && !(others_wait && self.owned > self.pool.fair_share);
        if !keep && self.owned > 1 {
            self.owned -= 1;
            self.pool.give_back();
        }
    }

    /// Returns unused permits, because no record waits here.
    pub(crate) fn release_unused(&mut self) {
        self.stop_acquiring();
        while self.owned > self.running.max(1) {
            self.owned -= 1;
            self.pool.give_back();
        }
    }

    /// Waits in the pool's queue for one more permit. Ready when the worker holds it.
    ///
    /// While handlers are held it leaves the queue: the probe may need that permit.
    pub(crate) fn poll_acquire(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.pool.is_held() {
            // A permit that is queued or held here may be the one that the probe needs.
            self.release_unused();
            return Poll::Pending;
        }
        let pool = &self.pool;
        let acquiring = self.acquiring.get_or_insert_with(|| {
            pool.waiters.fetch_add(1, Ordering::Relaxed);
            let shared = Arc::clone(&pool.shared);
            Box::pin(async move { shared.acquire_owned().await.ok() })
        });
        match acquiring.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(permit) => {
                self.stop_acquiring();
                if let Some(permit) = permit {
                    permit.forget();
                    self.owned += 1;
                }
                Poll::Ready(())
            }
        }
    }

    /// Leaves the pool's queue.
    fn stop_acquiring(&mut self) {
        if self.acquiring.take().is_some() {
            self.pool.waiters.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Permits {
    fn drop(&mut self) {
        self.running = 0;
        self.release_unused();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_never_run_more_than_the_concurrency_together() {
        let pool = ConcurrencyLimit::new(3, 2);
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
    fn a_lent_permit_is_used_by_others_and_not_duplicated() {
        let pool = ConcurrencyLimit::new(3, 2);
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
        assert!(b.may_start(), "b may use the permit that a lent");
        b.started();
        let mut back = std::pin::pin!(lent.take_back());
        assert!(back.as_mut().poll(&mut cx).is_pending());
        b.finished(true);
        assert!(back.poll(&mut cx).is_ready(), "b held more than its share");

        drop(pool.lend());
        assert!(
            !b.may_start(),
            "a permit that was lent and not taken back is lost"
        );
        let lent = pool.lend();
        assert!(b.may_start());
        b.started();
        drop(lent);
        a.finished(false);
        assert!(!a.may_start(), "the first returned permit makes up for it");
        b.finished(false);
        assert!(a.may_start());
    }

    #[test]
    fn held_handlers_do_not_start_even_with_free_permits() {
        let pool = ConcurrencyLimit::new(4, 2);
        let mut a = Permits::new(Arc::clone(&pool));
        pool.set_held(true);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(!a.may_start());
        assert!(a.poll_acquire(&mut cx).is_pending());
        pool.allow_trial();
        assert!(
            a.may_start() && !a.may_start(),
            "one may start after allow_trial"
        );
        pool.set_held(false);
        assert!(a.may_start());
        assert!(a.poll_acquire(&mut cx).is_ready());
    }

    #[test]
    fn a_waiting_worker_releases_its_permit_while_handlers_are_held() {
        let pool = ConcurrencyLimit::new(1, 1);
        let mut a = Permits::new(Arc::clone(&pool));
        assert!(a.may_start());
        a.started();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(a.poll_acquire(&mut cx).is_pending());
        pool.set_held(true);
        let lent = pool.lend();
        assert!(a.poll_acquire(&mut cx).is_pending());
        let mut back = std::pin::pin!(lent.take_back());
        assert!(back.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn a_worker_without_records_keeps_nothing_but_its_own_permit() {
        let pool = ConcurrencyLimit::new(4, 2);
        let (mut a, mut b) = (Permits::new(Arc::clone(&pool)), Permits::new(pool));
        while a.may_start() {
            a.started();
        }
        (0..3).for_each(|_| a.finished(true));
        assert!(b.may_start());
        b.started();
        assert!(!b.may_start());
        a.release_unused();
        assert!(b.may_start());
    }

    #[test]
    fn a_worker_over_its_share_yields_a_permit() {
        let pool = ConcurrencyLimit::new(4, 2);
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
            "a held 3 of 4 permits and returned one"
        );
        assert!(b.may_start());
    }
}
