//! The turns of a transaction that deliveries share, as each store tests them.

use super::*;
use crate::inbox::Inbox;

/// Begins a transaction with claims of these keys, which nobody has completed.
pub(in crate::inbox) async fn claimed<S: GroupStore>(store: &S, keys: &[InboxKey]) -> S::Open {
    let open = store.begin().await.unwrap();
    let claimed = store.claim(open, keys, Level::Parallel).await;
    let (open, known) = claimed.unwrap();
    assert!(known.iter().all(|known| matches!(known, Known::Nothing)));
    open
}

/// Ends a transaction.
pub(in crate::inbox) async fn commit<S: GroupStore>(store: &S, mut open: S::Open) {
    store.prepare(&mut open).await.unwrap();
    store.commit(open).await.unwrap();
}

/// Checks that replies are stored at the end of a transaction, with their own deliveries. `store`
/// is that of `inbox`, which has no outbox.
pub(in crate::inbox) async fn check_replies<S: GroupStore>(
    inbox: &dyn Inbox,
    store: &S,
    key: fn(&str) -> InboxKey,
) {
    let ids = ["1", "2", "3", "4"];
    let mut open = claimed(store, &ids.map(key)).await;
    for id in ids {
        let published = match id {
            "3" => Vec::new(),
            _ => vec![conformance::record(id)],
        };
        let unsent = store.stage(&mut open, &key(id), published.clone());
        assert_eq!(unsent, published, "without an outbox the caller publishes");
        if id == "2" {
            store.undo_turn(&mut open, &key(id)).await.unwrap();
        }
        store.keep_turn(&mut open).await.unwrap();
    }
    commit(store, open).await;
    for (id, expected) in [("1", Some(1)), ("2", None), ("3", Some(0)), ("4", Some(1))] {
        let unsent = match inbox.claim(&key(id)).await.unwrap() {
            Claimed::Fresh(_) => None,
            Claimed::Duplicate { unsent } => Some(unsent),
        };
        let expected = expected.map(|count| vec![conformance::record(id); count]);
        assert_eq!(unsent, expected, "{id}");
    }
}
