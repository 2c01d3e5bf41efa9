//! Group commit over a store in memory: shared transactions, and their limits.

mod collisions;
mod failures;
mod fake_store;
pub(in crate::inbox) mod shared_turns;
mod silent_store;

use super::store::RECALL_AFTER;
use super::transaction_handoff::Completed;
use super::*;
use crate::event::OutgoingRecord;
use crate::inbox::group_commit::claim_queue::GROUP_MAX;
use crate::inbox::shared::sent_replies;
use crate::inbox::{BoxFuture, Claim, Claimed, InboxError, InboxKey, conformance};
use fake_store::{Deadlock, FakeStore, Open, down};
use std::any::Any;
use std::collections::HashSet;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};

/// The key of a delivery.
pub(super) fn key(id: impl ToString) -> InboxKey {
    InboxKey::new("g", "h", "/s", id.to_string())
}

/// Groups whose claims are answered when the test allows it, after they have grown to 16 claims at
/// least.
async fn groups_of_16() -> Arc<Groups<FakeStore>> {
    let groups = Groups::new(FakeStore::default(), 1, GROUP_MAX);
    for id in 1000..1004 {
        let claims = (0..16).map(|n| deliver(&groups, id * 100 + n));
        futures_util::future::join_all(claims.collect::<Vec<_>>()).await;
    }
    let fake = groups.store();
    fake.gate.forget_permits(Semaphore::MAX_PERMITS);
    fake.transactions.store(0, Ordering::Relaxed);
    groups
}

async fn fresh(groups: &Arc<Groups<FakeStore>>, id: usize) -> Box<dyn Claim> {
    match groups
        .claim(key(id))
        .await
        .expect("the store answers the claim")
    {
        Claimed::Fresh(claim) => claim,
        Claimed::Duplicate { .. } => panic!("{id} is new"),
    }
}

async fn deliver(groups: &Arc<Groups<FakeStore>>, id: usize) -> Result<(), InboxError> {
    let claim = fresh(groups, id).await;
    claim.complete(Vec::new()).await.map(drop)
}

/// Runs `tasks` claims that wait behind one with a transaction of its own, and returns their
/// outcomes after they ran together.
async fn run_together<T: Send + 'static>(
    groups: &Arc<Groups<FakeStore>>,
    tasks: Vec<impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let first = groups.claim(key(0));
    let mut first = std::pin::pin!(first);
    assert!(futures_util::poll!(&mut first).is_pending());
    let tasks: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
    // On one thread: each of them has claimed before this continues.
    tokio::task::yield_now().await;
    groups.store().gate.add_permits(2);
    let Ok(Claimed::Fresh(claim)) = first.await else {
        panic!("the first is new");
    };
    drop(claim);
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(task.await.expect("no task panics"));
    }
    outcomes
}

fn committed(groups: &Groups<FakeStore>) -> HashSet<String> {
    let committed = groups.store().committed.lock().unwrap();
    let ids = committed.iter().map(|key| key.id.clone());
    ids.filter(|id| id.len() < 3).collect()
}

fn ids(ids: &[usize]) -> HashSet<String> {
    ids.iter().map(usize::to_string).collect()
}

#[tokio::test]
async fn waiting_claims_share_a_commit_and_are_answered_after_it() {
    let groups = groups_of_16().await;
    let tasks = (1..=5).map(|id| {
        let groups = Arc::clone(&groups);
        async move {
            deliver(&groups, id).await.expect("committed");
            committed(&groups).len()
        }
    });
    let seen = run_together(&groups, tasks.collect()).await;
    assert_eq!(seen, [5; 5], "each was answered when all were committed");
    assert_eq!(groups.store().transactions.load(Ordering::Relaxed), 2);
}

/// A transaction takes a round trip to begin, which delays none of them.
#[tokio::test]
async fn claims_that_arrive_while_a_transaction_begins_share_it() {
    let groups = groups_of_16().await;
    let fake = groups.store();
    fake.gate.add_permits(1);
    fake.begins.forget_permits(Semaphore::MAX_PERMITS);
    let deliveries = (1..=5).map(|id| {
        let groups = Arc::clone(&groups);
        tokio::spawn(async move { deliver(&groups, id).await })
    });
    let deliveries: Vec<_> = deliveries.collect();
    tokio::task::yield_now().await;
    fake.begins.add_permits(1);
    for delivery in deliveries {
        let delivered = delivery.await.expect("no task panics");
        delivered.expect("committed");
    }
    assert_eq!(fake.transactions.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn groups_that_follow_each_other_have_one_task() {
    let groups = Groups::new(FakeStore::default(), 1, 1);
    let deliveries: Vec<_> = (1..=8).map(|id| deliver(&groups, id)).collect();
    for delivered in futures_util::future::join_all(deliveries).await {
        delivered.expect("committed");
    }
    assert_eq!(groups.store().transactions.load(Ordering::Relaxed), 8);
    assert_eq!(groups.store().tasks.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_panic_while_a_transaction_begins_ends_its_claims() {
    let groups = Groups::new(FakeStore::default(), 1, GROUP_MAX);
    groups.store().begins.close();
    let claimed = groups.claim(key(1)).await;
    assert!(matches!(claimed, Err(InboxError::Unavailable(_))));
}

#[tokio::test]
async fn a_claim_without_a_waiting_caller_is_skipped() {
    let groups = groups_of_16().await;
    let tasks = (1..=3).map(|id| {
        let groups = Arc::clone(&groups);
        async move {
            let delivery = deliver(&groups, id);
            if id == 2 {
                let _ = futures_util::poll!(std::pin::pin!(delivery));
            } else {
                delivery.await.expect("committed");
            }
        }
    });
    run_together(&groups, tasks.collect()).await;
    assert_eq!(committed(&groups), ids(&[1, 3]));
}

#[tokio::test]
async fn a_transaction_kept_by_a_handler_commits_nothing_of_it() {
    let groups = groups_of_16().await;
    let (keep, kept) = oneshot::channel();
    let keep = Mutex::new(Some(keep));
    let tasks: Vec<BoxFuture<'static, Result<(), InboxError>>> = vec![
        {
            let groups = Arc::clone(&groups);
            let keep = keep.lock().unwrap().take().expect("once");
            Box::pin(async move {
                let mut claim = fresh(&groups, 1).await;
                assert!(keep.send(claim.transaction()).is_ok());
                claim.complete(Vec::new()).await.map(drop)
            })
        },
        {
            let groups = Arc::clone(&groups);
            Box::pin(async move { deliver(&groups, 2).await })
        },
        Box::pin(async move {
            let kept = kept.await.expect("sent");
            tokio::task::yield_now().await;
            drop(kept);
            Ok(())
        }),
    ];
    let outcomes = run_together(&groups, tasks).await;
    let error = outcomes[0].as_ref().expect_err("the handler kept it");
    assert!(error.to_string().contains("still holds it"), "{error}");
    assert!(outcomes[1].is_ok());
    assert_eq!(committed(&groups), ids(&[2]));
}

#[tokio::test]
async fn a_batch_uses_one_of_the_open_transactions() {
    let groups = Groups::new(FakeStore::default(), 1, GROUP_MAX);
    let batch = groups.claim_batch(&[key(1), key(2)]).await;
    let batch = batch.expect("claimed");
    let mut other = std::pin::pin!(groups.claim(key(3)));
    assert!(futures_util::poll!(&mut other).is_pending());
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    let transactions = || groups.store().transactions.load(Ordering::Relaxed);
    assert_eq!(transactions(), 1, "the other waits");
    drop(batch);
    assert!(matches!(other.await, Ok(Claimed::Fresh(_))));
    assert_eq!(transactions(), 2);
}

#[tokio::test]
async fn a_group_keeps_the_contract() {
    conformance::check(
        Arc::new(FakeInbox(Groups::new(FakeStore::default(), 3, GROUP_MAX))),
        None,
    )
    .await;
}

/// Tests the contract of claims, without that of transactions.
struct FakeInbox(Arc<Groups<FakeStore>>);

struct Plain(Box<dyn Claim>);

impl crate::inbox::Inbox for FakeInbox {
    fn claim<'a>(&'a self, key: &'a InboxKey) -> BoxFuture<'a, Result<Claimed, InboxError>> {
        Box::pin(async move {
            Ok(match self.0.claim(key.clone()).await? {
                Claimed::Fresh(claim) => Claimed::Fresh(Box::new(Plain(claim))),
                duplicate => duplicate,
            })
        })
    }

    fn sent(&self, key: &InboxKey) {
        sent_replies::forget_soon(Arc::clone(&self.0), key);
    }
}

impl Claim for Plain {
    fn transaction(&mut self) -> Option<Box<dyn Any + Send>> {
        None
    }

    fn complete(self: Box<Self>, published: Vec<OutgoingRecord>) -> BoxFuture<'static, Completed> {
        self.0.complete(published)
    }

    fn abandon(self: Box<Self>) -> BoxFuture<'static, Result<(), InboxError>> {
        self.0.abandon()
    }
}
