//! Cases about an event's content: another event with the same id is detected.

use super::{complete, duplicate, fresh, key};
use crate::event::ContentDigest;
use crate::inbox::{Claimed, Inbox, InboxError, InboxKey};

/// The key with the digest of an event that says this, or with unknown content.
fn with_content(key: &InboxKey, what: Option<&str>) -> InboxKey {
    let digest = |what: &str| ContentDigest::of_event("test.said.v1", what.as_bytes());
    InboxKey {
        content: what.map(digest),
        ..key.clone()
    }
}

fn is_reused(claimed: &Result<Claimed, InboxError>) -> bool {
    matches!(claimed, Err(InboxError::Reused))
}

/// The first completion decides the content of an id. A claim that was abandoned leaves no content
/// behind.
pub(super) async fn another_event_with_a_known_id_is_detected(inbox: &dyn Inbox) {
    let first = with_content(&key("content"), Some("first"));
    let other = with_content(&first, Some("other"));
    // The content of a delivery that was not completed is not kept.
    let claim = fresh(inbox, &other, "it is new").await;
    claim.abandon().await.expect("a claim is given back");
    complete(fresh(inbox, &first, "it was abandoned").await).await;
    for _ in 0..2 {
        duplicate(inbox, &first, "it was completed").await;
        assert!(is_reused(&inbox.claim(&other).await));
        assert!(is_reused(&inbox.claim_without_transaction(&other).await));
    }
    let claimed = inbox.claim_without_transaction(&first).await;
    let is_duplicate = matches!(claimed, Ok(Claimed::Duplicate { .. }));
    assert!(is_duplicate, "it was completed");
}

/// Rows of earlier releases and handlers without digests match any content.
pub(super) async fn unknown_content_is_never_different(inbox: &dyn Inbox) {
    for (completed, claimed) in [(None, Some("said")), (Some("said"), None), (None, None)] {
        let key = key("unknown content");
        let first = with_content(&key, completed);
        complete(fresh(inbox, &first, "it is new").await).await;
        duplicate(inbox, &with_content(&key, claimed), "it was completed").await;
    }
}

/// A reused id is the error of its own delivery; the rest of the batch is claimed and completed.
pub(super) async fn a_batch_continues_without_another_event_of_a_known_id(inbox: &dyn Inbox) {
    let Some(batches) = inbox.batches() else {
        return;
    };
    let [first, second] = ["first", "second"].map(|what| with_content(&key(what), Some(what)));
    complete(fresh(inbox, &first, "it is new").await).await;
    let other = with_content(&first, Some("other"));
    let keys = [other.clone(), second.clone(), first.clone()];
    let claimed = batches.claim_batch(&keys[..2]).await;
    let claimed = claimed.expect("a batch is claimed");
    assert!(matches!(
        claimed.known[..],
        [Some(Err(InboxError::Reused)), None]
    ));
    let claim = claimed.claim.expect("one is fresh");
    let completed = claim.complete(vec![Some(Vec::new())]).await;
    completed.expect("a batch completes");
    duplicate(inbox, &second, "it was completed").await;
    duplicate(inbox, &first, "it was completed before").await;
    assert!(is_reused(
        &inbox.claim(&with_content(&second, Some("other"))).await
    ));
}
