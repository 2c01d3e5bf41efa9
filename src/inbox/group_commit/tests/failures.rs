//! Claims and commits that fail.

use super::*;

#[tokio::test]
async fn a_failed_claim_is_undone_alone() {
    let groups = groups_of_16().await;
    let tasks = (1..=6).map(|id| {
        let groups = Arc::clone(&groups);
        async move {
            let mut claim = fresh(&groups, id).await;
            let handed_out = claim.transaction();
            match id % 3 {
                0 => drop(claim),
                1 => claim.abandon().await.expect("given back"),
                _ => {
                    drop(handed_out);
                    return claim.complete(Vec::new()).await.map(drop);
                }
            }
            drop(handed_out);
            Ok(())
        }
    });
    let outcomes = run_together(&groups, tasks.collect()).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(committed(&groups), ids(&[2, 5]));
}

/// The transaction after it is of one claim.
#[tokio::test]
async fn a_failed_commit_completes_none_and_claims_are_retried_alone() {
    let groups = groups_of_16().await;
    groups
        .store()
        .fails_to_commit
        .store(true, Ordering::Relaxed);
    let tasks = (1..=3).map(|id| {
        let groups = Arc::clone(&groups);
        async move { deliver(&groups, id).await }
    });
    for outcome in run_together(&groups, tasks.collect()).await {
        let error = outcome.expect_err("not committed");
        assert!(matches!(error, InboxError::Unavailable(_)), "{error:?}");
        let message = error.to_string();
        assert_eq!(message, down().to_string());
    }
    assert_eq!(committed(&groups), ids(&[]));
    groups.store().gate.add_permits(3);
    let again = (1..=3).map(|id| deliver(&groups, id));
    let again = futures_util::future::join_all(again.collect::<Vec<_>>()).await;
    assert!(again.iter().all(Result::is_ok), "{again:?}");
    let transactions = groups.store().transactions.load(Ordering::Relaxed);
    assert_eq!(transactions, 2 + 2, "one of one, one of two");
}

/// Whether the handler succeeded or failed, the others of its group are retried.
#[tokio::test]
async fn only_the_claim_that_ended_the_transaction_fails() {
    for has_failed in [false, true] {
        let groups = groups_of_16().await;
        let tasks = (1..=4).map(|id| {
            let groups = Arc::clone(&groups);
            async move {
                let Claimed::Fresh(mut claim) = groups.claim(key(id)).await? else {
                    panic!("{id} is new");
                };
                let handed_out = claim.transaction().expect("there");
                let mut handed_out = handed_out
                    .downcast::<HandedOut<Open>>()
                    .expect("of the store");
                handed_out.is_ended |= id == 2;
                drop(handed_out);
                match has_failed && id == 2 {
                    true => claim.abandon().await,
                    false => claim.complete(Vec::new()).await.map(drop),
                }
            }
        });
        let outcomes = run_together(&groups, tasks.collect()).await;
        for (at, outcome) in outcomes.iter().enumerate() {
            let is_expected = match (at, has_failed) {
                (1, true) => outcome.is_ok(),
                (1, false) => matches!(outcome, Err(InboxError::Transaction { .. })),
                _ => matches!(outcome, Err(InboxError::TryAgain(_))),
            };
            assert!(is_expected, "{outcomes:?}");
        }
        assert_eq!(committed(&groups), ids(&[]));
    }
}

#[tokio::test]
async fn a_shared_refusal_fails_no_claim_until_it_is_alone() {
    let groups = groups_of_16().await;
    let refuses = &groups.store().refuses_to_commit;
    refuses.store(true, Ordering::Relaxed);
    let tasks = (1..=3).map(|id| {
        let groups = Arc::clone(&groups);
        async move { deliver(&groups, id).await }
    });
    for outcome in run_together(&groups, tasks.collect()).await {
        let error = outcome.expect_err("not committed");
        assert!(matches!(error, InboxError::TryAgain(_)), "{error:?}");
    }
    groups
        .store()
        .refuses_to_commit
        .store(true, Ordering::Relaxed);
    groups.store().gate.add_permits(1);
    let alone = deliver(&groups, 1).await.expect_err("refused");
    assert!(matches!(alone, InboxError::Other(_)), "{alone:?}");
}

/// A transaction that any handler may have ended blames none of them.
#[tokio::test]
async fn an_end_by_an_unknown_handler_is_retried_alone() {
    let groups = groups_of_16().await;
    groups.store().is_rolled_back.store(true, Ordering::Relaxed);
    let tasks = (1..=3).map(|id| {
        let groups = Arc::clone(&groups);
        async move { deliver(&groups, id).await }
    });
    for outcome in run_together(&groups, tasks.collect()).await {
        let error = outcome.expect_err("not committed");
        assert!(matches!(error, InboxError::TryAgain(_)), "{error:?}");
    }
    groups.store().gate.add_permits(3);
    let again = (1..=3).map(|id| deliver(&groups, id));
    let again = futures_util::future::join_all(again.collect::<Vec<_>>()).await;
    assert!(again.iter().all(Result::is_ok), "{again:?}");
    let transactions = groups.store().transactions.load(Ordering::Relaxed);
    assert_eq!(transactions, 2 + 3, "each is alone");
}
