//! The suite that every store with [`Completions`] passes.
//!
//! Each case uses keys of its own, so the suite runs on a store that is not empty. A failed case
//! panics with its name.

use super::{Completion, Completions};
use crate::event::ContentDigest;
use crate::inbox::{Claim, Claimed, Inbox, InboxKey};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Tolerated difference between the store's clock and the clock of this process.
const SKEW: Duration = Duration::from_secs(60);

/// Runs the whole suite on a store of the group `group`, which `inbox` writes and `completions`
/// reads.
///
/// # Panics
/// If the store breaks the contract.
///
/// # Examples
/// ```no_run
/// use evenkeel::inbox::{MemoryInbox, completions};
///
/// # async fn example() {
/// let inbox = MemoryInbox::default();
/// completions::conformance::check("group", &inbox, &inbox).await;
/// # }
/// ```
pub async fn check(group: &str, inbox: &dyn Inbox, completions: &dyn Completions) {
    only_completed_deliveries_are_reported(group, inbox, completions).await;
    answers_come_in_the_order_of_the_keys(group, inbox, completions).await;
    others_are_other_deliveries(group, inbox, completions).await;
    any_text_is_found_again(group, inbox, completions).await;
    handlers_are_known_by_their_completions(group, inbox, completions).await;
    the_content_of_an_event_is_reported(group, inbox, completions).await;
}

fn key(group: &str, handler: &str) -> InboxKey {
    InboxKey::new(
        group,
        handler,
        "/conformance",
        uuid::Uuid::now_v7().to_string(),
    )
}

async fn claim(inbox: &dyn Inbox, key: &InboxKey) -> Box<dyn Claim> {
    match inbox.claim(key).await.expect("a claim is answered") {
        Claimed::Fresh(claim) => claim,
        Claimed::Duplicate { .. } => panic!("{key:?} is new"),
    }
}

/// Claims a key that is new, and completes it without events.
async fn complete(inbox: &dyn Inbox, key: &InboxKey) {
    let completed = claim(inbox, key).await.complete(Vec::new()).await;
    completed.expect("a claim completes");
}

/// Reads completions, one for each key.
async fn read_completions(
    completions: &dyn Completions,
    keys: &[InboxKey],
) -> Vec<Option<Completion>> {
    let reported = completions.completed(keys).await;
    let reported = reported.expect("the store answers");
    assert_eq!(reported.len(), keys.len(), "an answer for each key");
    reported
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_millis() as i64
}

/// Neither an abandoned nor an open claim is a completion. The time is near the clock of this
/// process.
async fn only_completed_deliveries_are_reported(
    group: &str,
    inbox: &dyn Inbox,
    completions: &dyn Completions,
) {
    assert_eq!(read_completions(completions, &[]).await, []);
    let [never, abandoned, open, done] = std::array::from_fn(|_| key(group, "told"));
    let given_back = claim(inbox, &abandoned).await.abandon().await;
    given_back.expect("a claim is given back");
    complete(inbox, &done).await;
    let held = claim(inbox, &open).await;
    let reported = read_completions(completions, &[never, abandoned, open.clone(), done]).await;
    assert_eq!(reported[..3], [None, None, None]);
    let at = reported[3].expect("it was completed").at_ms;
    let skew = SKEW.as_millis() as i64;
    assert!(
        (at - now_ms()).abs() < skew,
        "{at} is when it was completed"
    );
    held.complete(Vec::new()).await.expect("a claim completes");
    assert!(read_completions(completions, &[open]).await[0].is_some());
}

/// More keys than any store accepts in one statement.
async fn answers_come_in_the_order_of_the_keys(
    group: &str,
    inbox: &dyn Inbox,
    completions: &dyn Completions,
) {
    let keys: Vec<InboxKey> = (0..3_000).map(|_| key(group, "order")).collect();
    let chosen = [0, 1, 7, 1_023, 1_024, 1_025, 2_048, 2_999];
    for at in chosen {
        complete(inbox, &keys[at]).await;
    }
    let reported = read_completions(completions, &keys).await;
    let found: Vec<usize> = (0..keys.len())
        .filter(|at| reported[*at].is_some())
        .collect();
    assert_eq!(found, chosen);
    let twice = [keys[1].clone(), keys[2].clone(), keys[1].clone()];
    let reported = read_completions(completions, &twice).await;
    assert!(reported[0].is_some() && reported[0] == reported[2] && reported[1].is_none());
}

/// A key that differs in one part is another delivery, also if only case or a space differ.
async fn others_are_other_deliveries(
    group: &str,
    inbox: &dyn Inbox,
    completions: &dyn Completions,
) {
    let done = key(group, "others");
    complete(inbox, &done).await;
    let others = [
        InboxKey {
            group: format!("not {group}"),
            ..done.clone()
        },
        InboxKey {
            handler: "others too".to_owned(),
            ..done.clone()
        },
        InboxKey {
            source: "/another".to_owned(),
            ..done.clone()
        },
        InboxKey {
            id: done.id.to_uppercase() + " ",
            ..done
        },
    ];
    assert_eq!(read_completions(completions, &others).await, [None; 4]);
}

/// The reading side encodes keys like the writing side, whatever text they contain.
async fn any_text_is_found_again(group: &str, inbox: &dyn Inbox, completions: &dyn Completions) {
    let run = key(group, "text").id;
    let long = "x".repeat(100_000);
    let texts = ["", "a'b\"c;--", "%_*?", "ä", "null\0byte", "🦀\n", &long];
    let keys = texts.map(|text| InboxKey {
        id: format!("{run}{text}"),
        source: text.to_owned(),
        ..key(group, "text")
    });
    for key in &keys {
        complete(inbox, key).await;
    }
    let reported = read_completions(completions, &keys).await;
    for (text, reported) in texts.iter().zip(reported) {
        assert!(reported.is_some(), "{:?}", &text[..text.len().min(20)]);
    }
}

/// The content of the first completion is reported, whatever content the question names.
async fn the_content_of_an_event_is_reported(
    group: &str,
    inbox: &dyn Inbox,
    completions: &dyn Completions,
) {
    let said = Some(ContentDigest::of_event("test.said.v1", b"a"));
    let with = |content| InboxKey {
        content,
        ..key(group, "content")
    };
    let keys = [with(said), with(None)];
    for key in &keys {
        complete(inbox, key).await;
    }
    let other = InboxKey {
        content: Some(ContentDigest::of_event("test.said.v1", b"b")),
        ..keys[0].clone()
    };
    let reported = read_completions(completions, &[keys[0].clone(), keys[1].clone(), other]).await;
    let contents = reported
        .into_iter()
        .map(|reported| reported.expect("it was completed").content);
    let contents: Vec<_> = contents.collect();
    assert_eq!(
        contents,
        [said, None, said],
        "what the first one said is kept"
    );
}

/// A handler counts once it completed a delivery; one that only claimed does not.
async fn handlers_are_known_by_their_completions(
    group: &str,
    inbox: &dyn Inbox,
    completions: &dyn Completions,
) {
    let run = key(group, "").id;
    let handlers = ["done", "given back", "never"].map(|name| format!("{name} {run}"));
    complete(inbox, &key(group, &handlers[0])).await;
    let given_back = claim(inbox, &key(group, &handlers[1])).await.abandon();
    given_back.await.expect("a claim is given back");
    let known = completions.has_handlers(group, &handlers).await;
    assert_eq!(known.expect("the store answers"), [true, false, false]);
    let other = format!("not {group}");
    let known = completions.has_handlers(&other, &handlers).await;
    assert_eq!(known.expect("the store answers"), [false; 3]);
    let knows = async |group| completions.has_group(group).await.expect("an answer");
    assert!(knows(group).await && !knows(&other).await);
}
