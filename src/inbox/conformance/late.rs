//! Cases of deliveries whose handlers name no transaction.

use super::{DEADLOCK, complete_with, duplicate, fresh, key, record};
use crate::inbox::{Claim, Claimed, Inbox, InboxKey};

/// Claims for a handler that names no transaction.
async fn claim(inbox: &dyn Inbox, key: &InboxKey) -> Claimed {
    let claimed = inbox.claim_without_transaction(key).await;
    claimed.expect("a claim is answered")
}

/// Claims so a key that must be fresh.
async fn late(inbox: &dyn Inbox, key: &InboxKey, why: &str) -> Box<dyn Claim> {
    match claim(inbox, key).await {
        Claimed::Fresh(claim) => claim,
        Claimed::Duplicate { .. } => panic!("{key:?} is reported as a duplicate, but {why}"),
    }
}

/// Such a claim hands out no transaction, and is otherwise like any other.
pub(super) async fn without_a_transaction_completed_is_a_duplicate_too(inbox: &dyn Inbox) {
    let key = key("late");
    let mut claim = late(inbox, &key, "it is new").await;
    assert!(claim.transaction().is_none(), "none was asked for");
    claim.abandon().await.expect("a claim is given back");
    let claim = late(inbox, &key, "its claim was abandoned").await;
    let unsent = complete_with(claim, vec![record("1")]).await;
    assert_eq!(duplicate(inbox, &key, "it was completed").await, unsent);
    match self::claim(inbox, &key).await {
        Claimed::Duplicate { unsent: again } => assert_eq!(again, unsent),
        Claimed::Fresh(_) => panic!("it was completed"),
    }
}

/// While such claims are open, claims of other keys and of the same key succeed; the first
/// completion is kept.
pub(super) async fn without_a_transaction_nothing_is_held(inbox: &dyn Inbox) {
    let run = async {
        let key = key("late-held");
        let first = late(inbox, &key, "it is new").await;
        let second = late(inbox, &key, "nothing of it is completed").await;
        let other = fresh(inbox, &self::key("late-other"), "it is new").await;
        complete_with(other, Vec::new()).await;
        let third = fresh(inbox, &key, "nothing of it is completed").await;
        let unsent = complete_with(third, vec![record("of the third")]).await;
        for late in [first, second] {
            let left = complete_with(late, vec![record("too late")]).await;
            assert_eq!(left, unsent, "what was completed first stands");
        }
        assert_eq!(duplicate(inbox, &key, "it was completed").await, unsent);
    };
    let ended = tokio::time::timeout(DEADLOCK / 2, run).await;
    ended.expect("a claim without a transaction holds others up");
}
