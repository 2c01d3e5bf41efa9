//! Transactions that collide with others.

use super::*;
use crate::inbox::group_commit::claim_queue::GROUP_MAX;

#[tokio::test]
async fn a_collision_ends_the_group_and_is_retried_last() {
    let groups = groups_of_16().await;
    let collided = Arc::new(AtomicBool::new(false));
    let tasks = (1..=6).map(|id| {
        let (groups, collided) = (Arc::clone(&groups), Arc::clone(&collided));
        async move {
            let claim = fresh(&groups, id).await;
            if id == 3 && !collided.swap(true, Ordering::Relaxed) {
                assert!(claim.fail(&Deadlock).await.expect("given back"));
                groups.store().gate.add_permits(2);
                return deliver(&groups, id).await;
            }
            claim.complete(Vec::new()).await.map(drop)
        }
    });
    let outcomes = run_together(&groups, tasks.collect()).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(committed(&groups), ids(&[1, 2, 3, 4, 5, 6]));
    let transactions = groups.store().transactions.load(Ordering::Relaxed);
    assert_eq!(transactions, 1 + 3, "1 and 2; 4 to 6; 3 alone");
}

#[tokio::test]
async fn a_failure_without_collision_is_undone_and_the_group_continues() {
    let groups = groups_of_16().await;
    let tasks = (1..=4).map(|id| {
        let groups = Arc::clone(&groups);
        async move {
            let claim = fresh(&groups, id).await;
            if id == 2 {
                assert!(!claim.fail(&std::fmt::Error).await.expect("given back"));
                return Ok(());
            }
            claim.complete(Vec::new()).await.map(drop)
        }
    });
    let outcomes = run_together(&groups, tasks.collect()).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(committed(&groups), ids(&[1, 3, 4]));
    assert_eq!(groups.store().transactions.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn batches_that_collide_leave_one_transaction_at_a_time() {
    let groups = Groups::new(FakeStore::default(), 4, GROUP_MAX);
    for expected in [Level::Parallel, Level::Exclusive, Level::Single] {
        let batch = groups.claim_batch(&[key(1), key(2)]).await;
        let claim = batch.expect("claimed").claim.expect("fresh");
        assert!(claim.fail(&Deadlock).await.expect("given back"));
        let level = groups.store().levels.lock().unwrap().pop();
        assert_eq!(level, Some(expected));
    }
}
