//! The cases of a store whose claims are leases.
//!
//! Whether a lease expires is a matter of what an owner does not do. Therefore the suite suspends
//! whole runtimes, with the store's renewing tasks in them.

use super::{Leases, claim, complete, complete_with, duplicate, fresh, key, record};
use crate::inbox::{Claim, Claimed, InboxKey};
use std::future::Future;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

/// A separate process from the store's point of view: its tasks run only during [`Process::run`].
/// Between two calls it is suspended, like a stopped process or one without a processor.
struct Process(Runtime);

impl Process {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build();
        Self(runtime.expect("a runtime"))
    }

    /// Runs `doing` and suspends again.
    async fn run<F>(self, doing: F) -> (Self, F::Output)
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let run = tokio::task::spawn_blocking(move || {
            let done = self.0.block_on(doing);
            (self, done)
        });
        run.await.expect("the process does what it is to do")
    }

    /// Opens the store and claims a delivery.
    async fn claim(leases: &dyn Leases, key: &InboxKey) -> (Self, Box<dyn Claim>) {
        let (open, key) = (leases.open(), key.clone());
        Self::new()
            .run(async move { fresh(&*open.await, &key, "it is new").await })
            .await
    }

    /// Ends the process. Its runtime must not be dropped in a context where that could block.
    fn end(self) {
        self.0.shutdown_background();
    }

    /// Crashes, with its claim.
    fn crash(self, claim: Box<dyn Claim>) {
        self.end();
        // A crashed process drops nothing.
        std::mem::forget(claim);
    }
}

/// Not before the lease has ended, and then without help of the crashed owner.
pub(super) async fn a_crashed_owners_delivery_is_taken_over_after_its_lease(leases: &dyn Leases) {
    let key = key("crashed");
    let begun = Instant::now();
    let (process, claimed) = Process::claim(leases, &key).await;
    process.crash(claimed);
    let other = leases.open().await;
    let taken_over = fresh(&*other, &key, "its owner crashed").await;
    assert!(
        begun.elapsed() >= leases.lease(),
        "a delivery is taken over before its owner's lease has run out"
    );
    complete(taken_over).await;
    duplicate(&*other, &key, "it was completed").await;
}

/// The renewal, not the length of the lease, bounds how long a handler may run.
pub(super) async fn a_lease_that_is_renewed_is_not_taken_over(leases: &dyn Leases) {
    let key = key("renewed");
    let (owner, other) = (leases.open().await, leases.open().await);
    let slow = fresh(&*owner, &key, "it is new").await;
    let mut waiting = Box::pin(claim(&*other, &key));
    let early = tokio::time::timeout(3 * leases.lease(), &mut waiting).await;
    assert!(
        early.is_err(),
        "a delivery is taken over while its owner renews its lease"
    );
    complete(slow).await;
    assert!(
        matches!(waiting.await, Claimed::Duplicate { .. }),
        "{key:?} is reported as fresh, but was completed"
    );
}

/// The late owner's events must not be published beside those of the owner that took over, whether
/// that one has completed or not.
pub(super) async fn a_completion_after_a_lost_lease_fails(leases: &dyn Leases) {
    for other_completes_first in [true, false] {
        let key = key("lost");
        let others = vec![record("other")];
        let (process, frozen) = Process::claim(leases, &key).await;
        let other = leases.open().await;
        let claimed = fresh(&*other, &key, "its owner stands still").await;
        let mut claimed = Some(claimed);
        if other_completes_first {
            complete_with(claimed.take().expect("claimed"), others.clone()).await;
        }
        // The process runs for a while before its handler ends, as if it still held its lease.
        let (process, ()) = process.run(tokio::time::sleep(leases.lease() / 2)).await;
        let (process, late) = process.run(frozen.complete(vec![record("late")])).await;
        assert!(
            late.is_err(),
            "who lost its lease to another completes nothing"
        );
        if let Some(claimed) = claimed {
            complete_with(claimed, others.clone()).await;
        }
        let stored = duplicate(&*other, &key, "it was completed").await;
        assert_eq!(stored, others);
        process.end();
    }
}

/// Without another owner the late completion is the only one, and stands.
pub(super) async fn a_completion_after_an_expired_untaken_lease_succeeds(leases: &dyn Leases) {
    let key = key("expired");
    let (process, frozen) = Process::claim(leases, &key).await;
    tokio::time::sleep(leases.lease() * 3 / 2).await;
    let (process, late) = process.run(frozen.complete(vec![record("late")])).await;
    assert!(late.is_ok(), "nobody else has handled it: {late:?}");
    let stored = duplicate(&*leases.open().await, &key, "it was completed").await;
    assert_eq!(stored, [record("late")]);
    process.end();
}
