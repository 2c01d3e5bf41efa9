//! The suite that every store passes which can be asked for completions.
//!
//! Each case uses keys of its own, so that it runs on a store that is not empty. A case that does not hold panics and says which.

use super::{Completion, Completions};
use crate::event::ContentDigest;
use crate::inbox::{Claim, Claimed, Inbox, InboxKey};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How far the store's clock may be from ours.
const SKEW: Duration = Duration::from_secs(60);

/// Runs the whole suite on a store of the group `group`, which `inbox` writes and `completions` reads.
///
/// # Panics
/// When the store breaks the contract.
pub async fn check(group: &str, inbox: &dyn Inbox, completions: &dyn Completions) {
    only_what_is_completed_is_told(group, inbox, completions).await;
    answers_come_in_the_order_of_the_keys(group, inbox, completions).await;
    others_are_other_deliveries(group, inbox, completions).await;
    any_text_is_found_again(group, inbox, completions).await;
    handlers_are_known_by_what_they_completed(group, inbox, completions).await;
    what_an_event_said_is_told(group, inbox, completions).await;
}

fn key(group: &str, handler: &str) -> InboxKey {
    InboxKey {
        group: group.to_owned(),
        handler: handler.to_owned(),
        source: "/conformance".to_owned(),
        id: uuid::Uuid::now_v7().to_string(),
        content: None,
    }
}

async fn claim(inbox: &dyn Inbox, key: &InboxKey) -> Box<dyn Claim> {
    match inbox.claim(key).await.expect("a claim is answered") {
        Claimed::Fresh(claim) => claim,
        Claimed::Duplicate { .. } => panic!("{key:?} is new"),
    }
}

async fn complete(inbox: &dyn Inbox, key: &InboxKey) {
    let completed = claim(inbox, key).await.complete(Vec::new()).await;
    completed.expect("a claim completes");
}

async fn ask(completions: &dyn Completions, keys: &[InboxKey]) -> Vec<Option<Completion>> {
    let told = completions.completed(keys).await;
    let told = told.expect("the store answers");
    assert_eq!(told.len(), keys.len(), "an answer for each key");
    told
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_millis() as i64
}

async fn only_what_is_completed_is_told(
    group: &str,
    inbox: &dyn Inbox,
    completions: &dyn Completions,
) {
    assert_eq!(ask(completions, &[]).await, []);
    let [never, abandoned, open, done] = std::array::from_fn(|_| key(group, "told"));
    let given_back = claim(inbox, &abandoned).await.abandon().await;
    given_back.expect("a claim is given back");
    complete(inbox, &done).await;
    let held = claim(inbox, &open).await;
    let told = ask(completions, &[never, abandoned, open.clone(), done]).await;
    assert_eq!(told[..3], [None, None, None]);
    let at = told[3].expect("it was completed").at_ms;
    let skew = SKEW.as_millis() as i64;
    assert!(
        (at - now_ms()).abs() < skew,
        "{at} is when it was completed"
    );
    held.complete(Vec::new()).await.expect("a claim completes");
    assert!(ask(completions, &[open]).await[0].is_some());
}

/// More than any store takes at once.
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
    let told = ask(completions, &keys).await;
    let found: Vec<usize> = (0..keys.len()).filter(|at| told[*at].is_some()).collect();
    assert_eq!(found, chosen);
    let twice = [keys[1].clone(), keys[2].clone(), keys[1].clone()];
    let told = ask(completions, &twice).await;
    assert!(told[0].is_some() && told[0] == told[2] && told[1].is_none());
}

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
    assert_eq!(ask(completions, &others).await, [None; 4]);
}

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
    let told = ask(completions, &keys).await;
    for (text, told) in texts.iter().zip(told) {
        assert!(told.is_some(), "{:?}", &text[..text.len().min(20)]);
    }
}

async fn what_an_event_said_is_told(group: &str, inbox: &dyn Inbox, completions: &dyn Completions) {
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
    let told = ask(completions, &[keys[0].clone(), keys[1].clone(), other]).await;
    let contents = told
        .into_iter()
        .map(|told| told.expect("it was completed").content);
    let contents: Vec<_> = contents.collect();
    assert_eq!(
        contents,
        [said, None, said],
        "what the first one said is kept"
    );
}

async fn handlers_are_known_by_what_they_completed(
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
