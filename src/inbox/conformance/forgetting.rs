//! Cases about forgotten completions.

use super::{Forgetting, claim, complete, duplicate, fresh, key};
use crate::inbox::{Claimed, Inbox, InboxKey};
use jiff::Timestamp;
use std::time::Duration;

/// Pause between two reads of a store that must forget soon.
const LOOK: Duration = Duration::from_millis(20);

fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// The reported time is never after a completion that the store still remembers.
pub(super) async fn remembered_completions_are_not_reported_as_forgotten(inbox: &dyn Inbox) {
    let key = key("remembered");
    complete(fresh(inbox, &key, "it is new").await).await;
    let completed_ms = now_ms();
    duplicate(inbox, &key, "it was completed just now").await;
    let before_ms = inbox.forgotten_before_ms();
    assert!(
        before_ms.is_none_or(|before_ms| before_ms <= completed_ms),
        "{key:?} was completed at {completed_ms} and is remembered, but what is older than \
         {before_ms:?} is said to be forgotten"
    );
}

/// The reported time is after every forgotten completion, also in a process that opened the store
/// later.
pub(super) async fn forgotten_completions_are_older_than_the_reported_time(
    forgetting: &dyn Forgetting,
) {
    let earlier = forgetting.open().await;
    let key = key("forgotten");
    let appended_ms = now_ms();
    complete(fresh(&*earlier, &key, "it is new").await).await;
    forgetting.forget().await;
    until_forgotten(&*earlier, &key).await;
    // A store opened later has observed nothing of it, and reads it with its first claim.
    let later = forgetting.open().await;
    until_forgotten(&*later, &key).await;
    let (before_ms, now_ms) = (later.forgotten_before_ms(), now_ms());
    assert!(
        before_ms.is_some_and(|before_ms| (appended_ms + 1..=now_ms).contains(&before_ms)),
        "an event of {appended_ms} was forgotten, and what is completed from {now_ms} on is not; \
         but what is older than {before_ms:?} is said to be"
    );
}

/// Claims until the key is fresh, and gives the claim back.
async fn until_forgotten(inbox: &dyn Inbox, key: &InboxKey) {
    loop {
        match claim(inbox, key).await {
            Claimed::Fresh(claim) => {
                claim.abandon().await.expect("a claim is given back");
                return;
            }
            Claimed::Duplicate { .. } => tokio::time::sleep(LOOK).await,
        }
    }
}
