//! The suite that every idempotency store passes.
//!
//! Owns the contract of [`Inbox`] and [`Claim`](super::Claim) as executable cases. Knows no store:
//! a transactional store provides an [`Effects`] that writes through the transaction of its claims,
//! and a store whose claims expire provides a [`Leases`]. Each case uses keys of its own, so the
//! suite runs on one store, also on one that is not empty. A failed case panics with its name.
//!
//! `common.rs` holds the traits and the helpers; each other file holds the cases of one property. A
//! case never assumes how a store works: it claims, completes and waits as the router does, and
//! compares what a later claim reports.

mod batches;
mod common;
mod content;
mod forgetting;
mod late;
mod leases;

pub(super) use common::record;
pub use common::{Effects, Forgetting, Leases};

use super::{Claimed, Inbox, InboxKey};
use crate::event::OutgoingRecord;
use common::{DEADLOCK, SENT, claim, complete, complete_with, duplicate, fresh, key, left};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Runs the whole suite. `effects` marks the store as transactional and writes through it;
/// [`check_leases`] is for a store whose claims expire. Run it on a runtime with several threads,
/// where concurrent claims really overlap.
///
/// # Panics
/// If the store breaks the contract, naming the broken rule; also if it does not end within a
/// minute, because a claim then waits for one that has ended.
///
/// # Examples
/// ```no_run
/// use evenkeel::inbox::{MemoryInbox, conformance};
/// use std::sync::Arc;
///
/// # async fn example() {
/// conformance::check(Arc::new(MemoryInbox::default()), None).await;
/// # }
/// ```
pub async fn check(inbox: Arc<dyn Inbox>, effects: Option<Arc<dyn Effects>>) {
    let has_outbox = effects.as_ref().is_some_and(|effects| effects.has_outbox());
    let run = async {
        a_completed_delivery_is_a_duplicate_with_its_unsent_events(&*inbox, has_outbox).await;
        abandoned_is_fresh_again(&*inbox).await;
        dropped_is_fresh_again(&*inbox).await;
        other_groups_handlers_and_sources_are_other_deliveries(&*inbox).await;
        any_text_is_an_identity(&*inbox).await;
        concurrent_claims_of_one_key_have_one_effect(&inbox).await;
        concurrent_claims_of_many_keys_all_end(&inbox).await;
        content::another_event_with_a_known_id_is_detected(&*inbox).await;
        content::unknown_content_is_never_different(&*inbox).await;
        late::without_a_transaction_completed_is_a_duplicate_too(&*inbox).await;
        forgetting::remembered_completions_are_not_reported_as_forgotten(&*inbox).await;
        assert_eq!(
            inbox.transaction_type().is_some(),
            effects.is_some(),
            "a store names its transaction type exactly when its claims hand out transactions"
        );
        match &effects {
            Some(effects) => {
                effect_and_row_commit_together(&*inbox, &**effects).await;
                an_effect_that_is_not_completed_is_undone(&*inbox, &**effects).await;
                a_transaction_that_is_kept_commits_nothing(&*inbox, &**effects).await;
                a_failure_beside_others_undoes_only_its_own_effect(&inbox, effects).await;
                batches::check(&inbox, &**effects).await;
                content::a_batch_continues_without_another_event_of_a_known_id(&*inbox).await;
                late::without_a_transaction_nothing_is_held(&*inbox).await;
            }
            None => no_transaction_is_handed_out(&*inbox).await,
        }
    };
    tokio::time::timeout(DEADLOCK, run)
        .await
        .expect("the inbox stands still: a claim waits for one that has ended");
}

/// Runs the additional cases of a store with leases: a claim expires with its owner, and only then.
/// Takes several leases of time, because it waits for some to expire. Its processes are runtimes
/// that it suspends. Run it on a runtime with several threads.
///
/// # Panics
/// If the store breaks the contract.
pub async fn check_leases(leases: Arc<dyn Leases>) {
    let run = async {
        tokio::join!(
            leases::a_crashed_owners_delivery_is_taken_over_after_its_lease(&*leases),
            leases::a_lease_that_is_renewed_is_not_taken_over(&*leases),
            leases::a_completion_after_a_lost_lease_fails(&*leases),
            leases::a_completion_after_an_expired_untaken_lease_succeeds(&*leases),
        )
    };
    tokio::time::timeout(DEADLOCK, run)
        .await
        .expect("the inbox stands still: a claim waits for one that has ended");
}

/// Runs the cases of a store that forgets: after completions were forgotten, it reports that, also
/// to processes that did not delete them.
///
/// # Panics
/// If the store breaks the contract.
pub async fn check_forgetting(forgetting: Arc<dyn Forgetting>) {
    let run = forgetting::forgotten_completions_are_older_than_the_reported_time(&*forgetting);
    tokio::time::timeout(DEADLOCK, run)
        .await
        .expect("the inbox never forgets, although it was made to");
}

/// A duplicate returns the unsent events in order until they are reported as sent, then none.
async fn a_completed_delivery_is_a_duplicate_with_its_unsent_events(
    inbox: &dyn Inbox,
    has_outbox: bool,
) {
    let long = "x".repeat(100_000);
    for values in [&[][..], &["\0 text"], &["second", "first", &long]] {
        let published: Vec<OutgoingRecord> = values.iter().map(|value| record(value)).collect();
        let key = key("completed");
        let claim = fresh(inbox, &key, "it is new").await;
        let unsent = complete_with(claim, published.clone()).await;
        assert_eq!(
            unsent,
            left(published, has_outbox),
            "a store with an outbox publishes all of it, any other leaves all of it to the caller"
        );
        for _ in 0..2 {
            let again = duplicate(inbox, &key, "it was completed").await;
            assert_eq!(again, unsent, "what the caller had to publish comes back");
        }
        inbox.sent(&key);
        let begun = tokio::time::Instant::now();
        while !duplicate(inbox, &key, "it was completed").await.is_empty() {
            assert!(begun.elapsed() < SENT, "what was sent is not forgotten");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// An abandoned claim leaves no trace, however often it is repeated.
async fn abandoned_is_fresh_again(inbox: &dyn Inbox) {
    let key = key("abandoned");
    for _ in 0..2 {
        let claim = fresh(inbox, &key, "it was abandoned at most").await;
        claim.abandon().await.expect("a claim is given back");
    }
    complete(fresh(inbox, &key, "it was abandoned").await).await;
    duplicate(inbox, &key, "it was completed in the end").await;
}

/// A drop is an abandonment, in whichever order claim and transaction are dropped.
async fn dropped_is_fresh_again(inbox: &dyn Inbox) {
    let key = key("dropped");
    drop(fresh(inbox, &key, "it is new").await);
    let mut second = fresh(inbox, &key, "its claim was dropped").await;
    let transaction = second.transaction();
    drop(second);
    drop(transaction);
    let mut third = fresh(inbox, &key, "its claim was dropped before its transaction").await;
    let transaction = third.transaction();
    drop(transaction);
    drop(third);
    complete(fresh(inbox, &key, "it never was completed").await).await;
}

/// Each part of the key counts: a store that leaves one out loses the events of another handler.
async fn other_groups_handlers_and_sources_are_other_deliveries(inbox: &dyn Inbox) {
    let first = key("independent");
    complete(fresh(inbox, &first, "it is new").await).await;
    let others = [
        InboxKey {
            group: "another".to_owned(),
            ..first.clone()
        },
        InboxKey {
            handler: "independent too".to_owned(),
            ..first.clone()
        },
        InboxKey {
            source: "/another".to_owned(),
            ..first.clone()
        },
    ];
    for other in &others {
        complete(fresh(inbox, other, "only its sibling was completed").await).await;
    }
    for other in &others {
        duplicate(inbox, other, "it was completed").await;
    }
}

/// No text is special: not quotes, wildcards, case, composed characters, zero bytes or length. A
/// store that folds two of them suppresses an event that was never handled.
async fn any_text_is_an_identity(inbox: &dyn Inbox) {
    let run = key("text").id;
    let long = "x".repeat(100_000);
    let texts = [
        "",
        " ",
        "a'b\"c;--",
        "%_*?",
        "A",
        "a",
        "ä",
        "a\u{308}",
        "null\0byte",
        "\0",
        "🦀\n",
        &long,
    ];
    let keys: Vec<InboxKey> = texts
        .iter()
        .map(|text| InboxKey {
            id: format!("{run}{text}"),
            source: (*text).to_owned(),
            ..key("text")
        })
        .collect();
    for key in &keys {
        complete(fresh(inbox, key, "its text is another").await).await;
    }
    for key in &keys {
        duplicate(inbox, key, "it was completed").await;
    }
}

/// Of claims that race for one key, one is fresh and the others are duplicates of its completion.
async fn concurrent_claims_of_one_key_have_one_effect(inbox: &Arc<dyn Inbox>) {
    let key = key("race");
    let effects = Arc::new(AtomicU32::new(0));
    let racers: Vec<_> = (0..8)
        .map(|_| {
            let (inbox, key, effects) = (inbox.clone(), key.clone(), effects.clone());
            tokio::spawn(async move {
                if let Claimed::Fresh(claim) = claim(&*inbox, &key).await {
                    effects.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    complete(claim).await;
                }
            })
        })
        .collect();
    for racer in racers {
        racer.await.expect("no racer panics");
    }
    assert_eq!(
        effects.load(Ordering::SeqCst),
        1,
        "one claim of the key is fresh"
    );
}

/// More claims than a store has connections: each ends, whatever the others do with theirs.
async fn concurrent_claims_of_many_keys_all_end(inbox: &Arc<dyn Inbox>) {
    let tasks: Vec<_> = (0..64)
        .map(|n| {
            let inbox = inbox.clone();
            tokio::spawn(async move {
                let key = key("many");
                let claim = fresh(&*inbox, &key, "it is new").await;
                match n % 3 {
                    0 => drop(claim),
                    1 => claim.abandon().await.expect("a claim is given back"),
                    _ => complete(claim).await,
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("every claim ends");
    }
}

/// A store that names no transaction type hands none out.
async fn no_transaction_is_handed_out(inbox: &dyn Inbox) {
    let mut claim = fresh(inbox, &key("plain"), "it is new").await;
    assert!(claim.transaction().is_none());
}

/// Nothing of an effect is visible before the completion, and all of it after.
async fn effect_and_row_commit_together(inbox: &dyn Inbox, effects: &dyn Effects) {
    let key = key("together");
    let mut claim = fresh(inbox, &key, "it is new").await;
    let transaction = claim.transaction().expect("the store is transactional");
    assert!(
        claim.transaction().is_none(),
        "the transaction is handed out once"
    );
    effects.write(transaction, &key.id).await;
    assert_eq!(
        effects.count(&key.id).await,
        0,
        "nothing shows before the commit"
    );
    complete(claim).await;
    assert_eq!(effects.count(&key.id).await, 1);
    duplicate(inbox, &key, "it was completed").await;
}

/// An effect goes with its claim, by an abandonment and by a drop alike.
async fn an_effect_that_is_not_completed_is_undone(inbox: &dyn Inbox, effects: &dyn Effects) {
    let key = key("undone");
    for abandon in [true, false] {
        let mut claim = fresh(inbox, &key, "it never was completed").await;
        let transaction = claim.transaction().expect("the store is transactional");
        effects.write(transaction, &key.id).await;
        if abandon {
            claim.abandon().await.expect("a claim is given back");
        } else {
            drop(claim);
        }
    }
    complete(fresh(inbox, &key, "it never was completed").await).await;
    assert_eq!(
        effects.count(&key.id).await,
        0,
        "the failed attempts left nothing"
    );
}

/// A handler that keeps its transaction must not commit by accident, nor block the next claim.
async fn a_transaction_that_is_kept_commits_nothing(inbox: &dyn Inbox, effects: &dyn Effects) {
    let key = key("kept");
    let mut claim = fresh(inbox, &key, "it is new").await;
    let kept = claim.transaction();
    let error = claim.complete(Vec::new()).await;
    assert!(
        error.is_err(),
        "completing fails while the handler still holds its transaction"
    );
    drop(kept);
    complete(fresh(inbox, &key, "its completion failed").await).await;
    assert_eq!(effects.count(&key.id).await, 0);
}

/// Many at once, because they share a transaction if the store has group commit. Each of the others
/// keeps the events that it published.
async fn a_failure_beside_others_undoes_only_its_own_effect(
    inbox: &Arc<dyn Inbox>,
    effects: &Arc<dyn Effects>,
) {
    let keys: Vec<InboxKey> = (0..64).map(|_| key("beside")).collect();
    let deliver = |(at, key): (usize, InboxKey)| {
        let (inbox, effects) = (inbox.clone(), effects.clone());
        tokio::spawn(async move {
            let mut claim = fresh(&*inbox, &key, "it is new").await;
            let transaction = claim.transaction().expect("the store is transactional");
            effects.write(transaction, &key.id).await;
            match at % 4 {
                0 => drop(claim),
                1 => claim.abandon().await.expect("a claim is given back"),
                _ => drop(complete_with(claim, vec![record(&key.id)]).await),
            }
        })
    };
    let tasks: Vec<_> = keys.iter().cloned().enumerate().map(deliver).collect();
    for task in tasks {
        task.await.expect("every claim ends");
    }
    for (at, key) in keys.iter().enumerate() {
        let is_completed = at % 4 > 1;
        assert_eq!(effects.count(&key.id).await, u64::from(is_completed));
        match claim(&**inbox, key).await {
            Claimed::Duplicate { unsent } => {
                assert!(is_completed, "{key:?} failed");
                let own = left(vec![record(&key.id)], effects.has_outbox());
                assert_eq!(unsent, own, "{key:?} has the events that it published");
            }
            Claimed::Fresh(_) => assert!(!is_completed, "{key:?} was completed"),
        }
    }
}
