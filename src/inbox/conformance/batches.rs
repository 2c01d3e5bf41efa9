//! The cases of a store that claims several deliveries in one transaction.
//!
//! Each case claims five keys. Only the first names an effect, because the writes of a batch commit
//! as a whole: one effect shows them all.

use super::{Effects, complete, complete_with, duplicate, fresh, key, left, record};
use crate::inbox::{BatchClaim, BatchInbox, ClaimedBatch, Inbox, InboxKey};
use std::sync::Arc;

/// Runs the cases on a store that supports batches.
pub(super) async fn check(inbox: &Arc<dyn Inbox>, effects: &dyn Effects) {
    let Some(batches) = inbox.batches() else {
        return;
    };
    a_batch_and_its_effect_commit_together(&**inbox, batches, effects).await;
    completed_deliveries_of_a_batch_are_detected(&**inbox, batches).await;
    one_that_fails_is_fresh_again_and_the_others_stand(&**inbox, batches, effects).await;
    where_all_fail_everything_is_undone(&**inbox, batches, effects).await;
    a_batch_that_is_not_completed_is_undone(&**inbox, batches, effects).await;
    a_transaction_that_is_kept_commits_nothing(&**inbox, batches, effects).await;
    batches_of_the_same_keys_do_not_wait_for_each_other(inbox).await;
}

/// Five keys that no other case uses.
fn keys(case: &str) -> Vec<InboxKey> {
    (0..5).map(|_| key(case)).collect()
}

/// Claims a batch.
async fn claim(batches: &dyn BatchInbox, keys: &[InboxKey]) -> ClaimedBatch {
    let claimed = batches.claim_batch(keys).await;
    claimed.expect("a batch is answered")
}

/// Claims keys that are all fresh, and writes the effect that the first key names.
async fn written(
    batches: &dyn BatchInbox,
    keys: &[InboxKey],
    effects: &dyn Effects,
) -> Box<dyn BatchClaim> {
    let ClaimedBatch { known, claim } = claim(batches, keys).await;
    assert!(known.iter().all(Option::is_none), "all are fresh");
    let mut claim = claim.expect("fresh deliveries have a claim");
    let transaction = claim.transaction().expect("the store is transactional");
    assert!(claim.transaction().is_none(), "handed out once");
    effects.write(transaction, &keys[0].id).await;
    claim
}

/// Checks that none of these keys was completed, and gives the claims back.
async fn are_fresh(inbox: &dyn Inbox, keys: &[InboxKey], why: &str) {
    for key in keys {
        let claim = fresh(inbox, key, why).await;
        claim.abandon().await.expect("a claim is given back");
    }
}

/// The effect, all rows and the events of each delivery commit with one completion.
async fn a_batch_and_its_effect_commit_together(
    inbox: &dyn Inbox,
    batches: &dyn BatchInbox,
    effects: &dyn Effects,
) {
    let keys = keys("a batch");
    let claim = written(batches, &keys, effects).await;
    assert_eq!(effects.count(&keys[0].id).await, 0, "not committed yet");
    let published = |place: usize| match place {
        0 => Vec::new(),
        place => vec![record("first"), record(&place.to_string())],
    };
    let all = (0..keys.len()).map(|place| Some(published(place)));
    let unsent = claim.complete(all.collect()).await.expect("completed");
    assert_eq!(unsent.len(), keys.len());
    assert_eq!(effects.count(&keys[0].id).await, 1);
    for (place, key) in keys.iter().enumerate() {
        let own = left(published(place), effects.has_outbox());
        assert_eq!(unsent[place], own, "each leaves what it published");
        let again = duplicate(inbox, key, "its batch was completed").await;
        assert_eq!(again, unsent[place], "each has what was published for it");
    }
}

/// Duplicates are reported at their place in the list, with their events, and only the others are
/// claimed.
async fn completed_deliveries_of_a_batch_are_detected(inbox: &dyn Inbox, batches: &dyn BatchInbox) {
    let keys = keys("known");
    let published = vec![record("before")];
    let first = fresh(inbox, &keys[1], "it is new").await;
    let unsent = complete_with(first, published).await;
    for is_known in [[false, true, false, false, false], [true; 5]] {
        let claimed = claim(batches, &keys).await;
        let known: Vec<bool> = claimed.known.iter().map(Option::is_some).collect();
        assert_eq!(known, is_known);
        let known = claimed.known.into_iter().nth(1).flatten();
        let known = known.expect("completed").expect("readable");
        assert_eq!(known, unsent, "what was left to publish comes back");
        match claimed.claim {
            Some(claim) => {
                assert!(is_known.contains(&false), "none of them is fresh");
                let none = is_known.iter().filter(|is_known| !**is_known);
                let none = none.map(|_| Some(Vec::new())).collect();
                claim.complete(none).await.expect("completed");
            }
            None => assert!(!is_known.contains(&false), "some of them are fresh"),
        }
    }
}

/// A failed delivery is fresh again although the writes of the batch, its own included, are kept.
async fn one_that_fails_is_fresh_again_and_the_others_stand(
    inbox: &dyn Inbox,
    batches: &dyn BatchInbox,
    effects: &dyn Effects,
) {
    let keys = keys("one fails");
    let claim = written(batches, &keys, effects).await;
    let published = |place: usize| {
        place
            .is_multiple_of(2)
            .then(|| vec![record(&place.to_string())])
    };
    let unsent = claim.complete((0..keys.len()).map(published).collect());
    let unsent = unsent.await.expect("completed");
    assert_eq!(unsent.len(), 3, "for each that did not fail");
    assert_eq!(effects.count(&keys[0].id).await, 1, "committed as a whole");
    for (place, key) in keys.iter().enumerate() {
        if place.is_multiple_of(2) {
            let again = duplicate(inbox, key, "it was completed").await;
            assert_eq!(again, unsent[place / 2]);
        } else {
            complete(fresh(inbox, key, "it failed").await).await;
        }
    }
}

/// With nothing to complete, nothing of the batch is committed.
async fn where_all_fail_everything_is_undone(
    inbox: &dyn Inbox,
    batches: &dyn BatchInbox,
    effects: &dyn Effects,
) {
    let keys = keys("all fail");
    let claim = written(batches, &keys, effects).await;
    let unsent = claim.complete(keys.iter().map(|_| None).collect()).await;
    assert!(unsent.expect("nothing to commit").is_empty());
    assert_eq!(effects.count(&keys[0].id).await, 0);
    are_fresh(inbox, &keys, "all failed").await;
}

/// An abandoned or dropped batch leaves no trace.
async fn a_batch_that_is_not_completed_is_undone(
    inbox: &dyn Inbox,
    batches: &dyn BatchInbox,
    effects: &dyn Effects,
) {
    let keys = keys("not completed");
    for is_abandoned in [true, false] {
        let claim = written(batches, &keys, effects).await;
        match is_abandoned {
            true => claim.abandon().await.expect("given back"),
            false => drop(claim),
        }
        are_fresh(inbox, &keys, "the batch was not completed").await;
    }
    assert_eq!(effects.count(&keys[0].id).await, 0);
}

/// A kept transaction fails the whole batch, and commits nothing when it is dropped later.
async fn a_transaction_that_is_kept_commits_nothing(
    inbox: &dyn Inbox,
    batches: &dyn BatchInbox,
    effects: &dyn Effects,
) {
    let keys = keys("kept by a batch");
    let mut claim = claim(batches, &keys).await.claim.expect("all are fresh");
    let kept = claim.transaction();
    let completed = claim.complete(keys.iter().map(|_| Some(Vec::new())).collect());
    let completed = completed.await;
    assert!(completed.is_err(), "the handler still holds it");
    drop(kept);
    are_fresh(inbox, &keys, "its completion failed").await;
    assert_eq!(effects.count(&keys[0].id).await, 0);
}

/// Eight batches claim the same keys in different orders: none may wait for another one for ever.
async fn batches_of_the_same_keys_do_not_wait_for_each_other(inbox: &Arc<dyn Inbox>) {
    let keys = keys("same");
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let (inbox, mut keys) = (Arc::clone(inbox), keys.clone());
            keys.rotate_left(task % 5);
            tokio::spawn(async move {
                let batches = inbox.batches().expect("it has the power");
                let ClaimedBatch { known, claim } = claim(batches, &keys).await;
                let count = known.iter().filter(|known| known.is_none()).count();
                if let Some(claim) = claim {
                    tokio::task::yield_now().await;
                    let all = (0..count).map(|_| Some(Vec::new())).collect();
                    claim.complete(all).await.expect("completed");
                }
                count
            })
        })
        .collect();
    let mut fresh = 0;
    for task in tasks {
        fresh += task.await.expect("every batch ends");
    }
    assert_eq!(fresh, keys.len(), "each was fresh once");
}
