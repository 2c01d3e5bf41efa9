//! A store that no longer answers, or not on each connection.

use super::fake_store::DEAD_FOR;
use super::*;
use crate::inbox::group_commit::claim_queue::GROUP_MAX;

#[tokio::test(start_paused = true)]
async fn a_silent_store_recalls_its_transaction_from_the_handler() {
    let groups = Groups::new(FakeStore::default(), 1, GROUP_MAX);
    let recalled = async |claim: &mut Box<dyn Claim>, within: Duration| {
        let recalled = std::future::poll_fn(|cx| claim.poll_recalled(cx));
        tokio::time::timeout(within, recalled).await
    };
    let mut claim = fresh(&groups, 1).await;
    let handed_out = claim.transaction();
    let minute = Duration::from_secs(60);
    assert!(recalled(&mut claim, minute).await.is_err(), "it answers");
    groups.store().is_silent.store(true, Ordering::Relaxed);
    let error = recalled(&mut claim, 2 * RECALL_AFTER).await;
    let error = error.expect("recalled");
    assert!(matches!(error, InboxError::Unavailable(_)), "{error}");
    drop((handed_out, claim));
    groups.store().is_silent.store(false, Ordering::Relaxed);
    deliver(&groups, 1).await.expect("as good as new");
}

#[tokio::test(start_paused = true)]
async fn a_silent_store_recalls_its_transaction_from_a_batch() {
    let groups = Groups::new(FakeStore::default(), 1, GROUP_MAX);
    let claimed = groups
        .claim_batch(&[key(1), key(2)])
        .await
        .expect("the store answers the claims");
    let mut claim = claimed.claim.expect("fresh");
    let _handed_out = claim.transaction();
    groups.store().is_silent.store(true, Ordering::Relaxed);
    let recalled = std::future::poll_fn(|cx| claim.poll_recalled(cx));
    let recalled = tokio::time::timeout(2 * RECALL_AFTER, recalled).await;
    assert!(recalled.is_ok());
}

#[tokio::test]
async fn a_silent_store_fails_all_waiting_claims() {
    let groups = Groups::new(FakeStore::default(), 1, GROUP_MAX);
    let first = fresh(&groups, 1).await;
    let waiting: Vec<_> = (2..5)
        .map(|id| {
            let groups = Arc::clone(&groups);
            tokio::spawn(async move { groups.claim(key(id)).await.map(drop) })
        })
        .collect();
    tokio::task::yield_now().await;
    let fake = groups.store();
    fake.is_silent.store(true, Ordering::Relaxed);
    fake.fails_to_commit.store(true, Ordering::Relaxed);
    assert!(first.complete(Vec::new()).await.is_err());
    for claim in waiting {
        let claimed = claim.await.expect("no panic");
        assert!(matches!(claimed, Err(InboxError::Unavailable(_))));
    }
    assert_eq!(fake.transactions.load(Ordering::Relaxed), 1);
}

/// The store is healthy but for one of its two connections.
#[tokio::test(start_paused = true)]
async fn a_claim_does_not_wait_for_a_dead_connection() {
    let groups = Groups::new(FakeStore::default(), 2, GROUP_MAX);
    let began = tokio::time::Instant::now();
    groups
        .store()
        .is_dead_at_begin
        .store(true, Ordering::Relaxed);
    let (one, two) = tokio::join!(deliver(&groups, 1), deliver(&groups, 2));
    assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
    assert!(began.elapsed() < DEAD_FOR);
    // The dead connection and this claim have both transactions, so the next claim waits for it.
    let served = fresh(&groups, 3).await;
    let next = deliver(&groups, 4).await;
    next.expect("the failure of the dead connection is not its own");
    assert!(began.elapsed() >= DEAD_FOR);
    served.complete(Vec::new()).await.expect("committed");
}

#[tokio::test(start_paused = true)]
async fn a_store_without_a_live_connection_fails_its_claims() {
    let groups = Groups::new(FakeStore::default(), 1, GROUP_MAX);
    groups
        .store()
        .is_dead_at_begin
        .store(true, Ordering::Relaxed);
    let refused = groups.claim(key(1)).await.map(drop);
    assert!(matches!(refused, Err(InboxError::Unavailable(_))));
    deliver(&groups, 1).await.expect("it lives again");
}
