//! The suite that every store passes.
//!
//! Owns the contract of [`AcceptStore`] as executable cases, and the events and requests of tests.
//! Knows no store: each provides a [`Subject`] without a relay.

use super::error::AcceptError;
use super::port::{
    AcceptRequest, AcceptStore, Accepted, AcceptedEvent, IdempotencyClaim, StoredAnswer,
};
use bytes::Bytes;
use evenkeel::event::{Headers, OutgoingRecord, new_id};
use evenkeel::inbox::BoxFuture;
use evenkeel::testing::{eventually, unique};
use futures_util::FutureExt;
use futures_util::future::join_all;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The topic of all events.
pub(crate) const TOPIC: &str = "gateway-conformance";

/// Longer than any step takes on a busy machine.
pub(crate) const WITHIN: Duration = Duration::from_secs(30);

/// Longer than the suite takes.
const SUITE_LIMIT: Duration = Duration::from_secs(120);

const SOURCE: &str = "/callers/shop";
const TYPE: &str = "shop.order-placed.v1";

/// A store under test.
pub(crate) trait Subject: Send + Sync {
    fn store(&self) -> Arc<dyn AcceptStore>;

    /// The keys and values of all records, in the outbox or on the topic; in their order.
    fn records(&self) -> BoxFuture<'_, Vec<(String, String)>>;
}

/// An event of this key, id and value.
pub(crate) fn event(key: &str, id: &str, value: &str) -> AcceptedEvent {
    let mut headers = Headers::new();
    let attributes = [
        ("ce_specversion", "1.0"),
        ("ce_id", id),
        ("ce_source", SOURCE),
        ("ce_type", TYPE),
    ];
    for (name, attribute) in attributes {
        headers.push(name, Some(attribute.as_bytes()));
    }
    AcceptedEvent {
        source: SOURCE.to_owned(),
        id: id.to_owned(),
        ty: TYPE.to_owned(),
        fingerprint: Sha256::digest(format!("{TYPE}\0{key}\0{value}")).into(),
        record: OutgoingRecord {
            topic: TOPIC.to_owned(),
            partition: None,
            key: Some(Bytes::copy_from_slice(key.as_bytes())),
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            headers,
            timestamp_ms: None,
        },
    }
}

/// A request without a key and a deadline.
pub(crate) fn request(events: Vec<AcceptedEvent>) -> AcceptRequest {
    AcceptRequest {
        events,
        idempotency: None,
        answer: answer(),
        deadline: None,
    }
}

/// The answer to all requests.
pub(crate) fn answer() -> StoredAnswer {
    StoredAnswer {
        status: 202,
        headers: vec![("location".to_owned(), "/events/1".to_owned())],
        body: Bytes::from_static(b"{\"events\":[]}"),
    }
}

/// A key of a caller, used with this content.
pub(crate) fn claim(principal: &str, key: &str, content: u8) -> IdempotencyClaim {
    IdempotencyClaim {
        principal: principal.to_owned(),
        key: key.to_owned(),
        fingerprint: [content; 32],
    }
}

/// A request with a key.
pub(crate) fn keyed(claim: IdempotencyClaim, events: Vec<AcceptedEvent>) -> AcceptRequest {
    AcceptRequest {
        idempotency: Some(claim),
        ..request(events)
    }
}

/// Runs the whole suite on an empty store.
pub(crate) async fn check(subject: &dyn Subject) {
    let run = async {
        events_become_records_in_their_order(subject).await;
        concurrent_requests_keep_the_order_of_their_calls(subject).await;
        many_callers_are_accepted_at_once(subject).await;
        an_accepted_event_is_found_by_id_and_source(subject).await;
        a_request_after_its_deadline_is_not_accepted(subject).await;
        a_dropped_request_can_be_repeated(subject).await;
        match subject.store().keeps_identities() {
            true => check_identities(subject).await,
            false => a_key_is_refused_without_identities(subject).await,
        }
        the_backlog_counts_what_the_brokers_do_not_have(subject).await;
    };
    let run = tokio::time::timeout(SUITE_LIMIT, Box::pin(run));
    run.await.expect("the store does not stand still");
}

async fn check_identities(subject: &dyn Subject) {
    a_repeated_key_gets_the_same_answer_and_no_second_record(subject).await;
    a_key_with_another_content_is_refused(subject).await;
    a_repeated_event_is_accepted_without_a_second_record(subject).await;
    a_batch_with_a_reused_id_is_refused_as_a_whole(subject).await;
    a_hundred_concurrent_repetitions_publish_once(&[subject]).await;
    text_that_a_database_cannot_hold_is_rejected(subject).await;
}

/// Checks two gateways on one store.
pub(crate) async fn check_shared(one: &dyn Subject, other: &dyn Subject) {
    let run = async {
        a_hundred_concurrent_repetitions_publish_once(&[one, other]).await;
        concurrent_repetitions_of_ids_publish_once(one, other).await;
    };
    let run = tokio::time::timeout(SUITE_LIMIT, Box::pin(run));
    run.await.expect("the store does not stand still");
}

/// The values of a key's records.
async fn values(subject: &dyn Subject, key: &str) -> Vec<String> {
    let records = subject.records().await.into_iter();
    let of_key = records.filter(|(of, _)| of == key);
    of_key.map(|(_, value)| value).collect()
}

fn is_new(outcome: &Result<Accepted, AcceptError>) -> bool {
    matches!(outcome, Ok(Accepted::New))
}

async fn events_become_records_in_their_order(subject: &dyn Subject) {
    let key = unique("batch");
    let events = ["1", "2", "3"].map(|value| event(&key, &new_id(), value));
    let accepted = subject.store().accept(request(events.to_vec())).await;
    assert!(is_new(&accepted), "{accepted:?}");
    assert_eq!(values(subject, &key).await, ["1", "2", "3"]);
}

async fn concurrent_requests_keep_the_order_of_their_calls(subject: &dyn Subject) {
    let (key, store) = (unique("calls"), subject.store());
    let in_order: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let calls = in_order.iter().map(|value| {
        let event = event(&key, &new_id(), value);
        store.accept(request(vec![event]))
    });
    for accepted in join_all(calls).await {
        assert!(is_new(&accepted), "{accepted:?}");
    }
    assert_eq!(values(subject, &key).await, in_order);
}

async fn many_callers_are_accepted_at_once(subject: &dyn Subject) {
    let (key, store) = (unique("callers"), subject.store());
    let calls = (0..300).map(|n| {
        let mut event = event(&key, &new_id(), "1");
        event.source = format!("/callers/{n}");
        store.accept(request(vec![event]))
    });
    for accepted in join_all(calls).await {
        assert!(is_new(&accepted), "{accepted:?}");
    }
    assert_eq!(values(subject, &key).await.len(), 300);
}

async fn an_accepted_event_is_found_by_id_and_source(subject: &dyn Subject) {
    let (key, id, store) = (unique("found"), new_id(), subject.store());
    let accepted = store.accept(request(vec![event(&key, &id, "1")])).await;
    assert!(is_new(&accepted), "{accepted:?}");
    let id = id.as_str();
    for (id, source, is_found) in [
        (id, None, true),
        (id, Some(SOURCE), true),
        (id, Some("/other"), false),
        ("no such id", None, false),
        ("zero\0", None, false),
    ] {
        let places = store.find(id, source).await.expect("the store answers");
        assert_eq!(
            places.len(),
            usize::from(is_found),
            "{id} {source:?}: {places:?}"
        );
        let Some(place) = places.first() else {
            continue;
        };
        let names = (
            place.source.as_str(),
            place.ty.as_str(),
            place.topic.as_str(),
        );
        assert_eq!(names, (SOURCE, TYPE, TOPIC));
        assert_eq!(
            (place.id.as_str(), place.key.as_deref()),
            (id, Some(key.as_bytes()))
        );
        assert!(place.accepted_ms > 0);
        // There is no relay.
        let is_on_log = !store.keeps_identities();
        assert_eq!(
            (place.in_outbox, place.position.is_some()),
            (!is_on_log, is_on_log)
        );
    }
}

async fn a_request_after_its_deadline_is_not_accepted(subject: &dyn Subject) {
    let (key, id, store) = (unique("late"), new_id(), subject.store());
    let mut late = request(vec![event(&key, &id, "1")]);
    late.deadline = Some(Instant::now());
    let refused = store.accept(late).await;
    assert!(
        matches!(refused, Err(AcceptError::DeadlineExceeded)),
        "{refused:?}"
    );
    assert!(
        store
            .find(&id, None)
            .await
            .expect("the store answers")
            .is_empty()
    );
    assert!(values(subject, &key).await.is_empty());
    let mut in_time = request(vec![event(&key, &id, "1")]);
    in_time.deadline = Some(Instant::now() + WITHIN);
    let accepted = store.accept(in_time).await;
    assert!(is_new(&accepted), "{accepted:?}");
}

async fn a_dropped_request_can_be_repeated(subject: &dyn Subject) {
    let store = subject.store();
    for polls in 0..6 {
        let (key, id) = (unique("dropped"), new_id());
        let mut dropped = store.accept(request(vec![event(&key, &id, "1")]));
        for _ in 0..polls {
            if (&mut dropped).now_or_never().is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(dropped);
        let accepted = store.accept(request(vec![event(&key, &id, "1")])).await;
        assert!(is_new(&accepted), "{accepted:?}");
        let records = values(subject, &key).await.len();
        let allowed = if store.keeps_identities() {
            1..=1
        } else {
            1..=2
        };
        assert!(allowed.contains(&records), "{records} after {polls} polls");
    }
}

async fn a_repeated_key_gets_the_same_answer_and_no_second_record(subject: &dyn Subject) {
    let (key, id, store) = (unique("repeated"), new_id(), subject.store());
    let first = keyed(claim("shop", &key, 1), vec![event(&key, &id, "1")]);
    let accepted = store.accept(first.clone()).await;
    assert!(is_new(&accepted), "{accepted:?}");
    // The repetition has a new event id, as if the gateway gave it one, and another answer.
    let mut again = keyed(claim("shop", &key, 1), vec![event(&key, &new_id(), "1")]);
    again.answer = StoredAnswer {
        status: 200,
        headers: Vec::new(),
        body: Bytes::new(),
    };
    let repeated = store.accept(again).await.expect("it is repeated");
    assert_eq!(repeated, Accepted::Repeated(answer()));
    assert_eq!(values(subject, &key).await, ["1"]);
    // The key of another caller is another key.
    let other = keyed(claim("bank", &key, 2), vec![event(&key, &new_id(), "2")]);
    let accepted = store.accept(other).await;
    assert!(is_new(&accepted), "{accepted:?}");
    assert_eq!(values(subject, &key).await, ["1", "2"]);
}

async fn a_key_with_another_content_is_refused(subject: &dyn Subject) {
    let (key, store) = (unique("reused"), subject.store());
    let first = keyed(claim("shop", &key, 1), vec![event(&key, &new_id(), "1")]);
    let accepted = store.accept(first).await;
    assert!(is_new(&accepted), "{accepted:?}");
    let other = keyed(claim("shop", &key, 2), vec![event(&key, &new_id(), "2")]);
    let refused = store.accept(other).await;
    assert!(
        matches!(refused, Err(AcceptError::Reused { .. })),
        "{refused:?}"
    );
    assert_eq!(values(subject, &key).await, ["1"]);
}

async fn a_repeated_event_is_accepted_without_a_second_record(subject: &dyn Subject) {
    let (key, id, store) = (unique("event"), new_id(), subject.store());
    for _ in 0..2 {
        let accepted = store.accept(request(vec![event(&key, &id, "1")])).await;
        assert!(is_new(&accepted), "{accepted:?}");
    }
    // The same id of another source is another event.
    let mut other = event(&key, &id, "2");
    other.source = "/callers/bank".to_owned();
    let accepted = store.accept(request(vec![other])).await;
    assert!(is_new(&accepted), "{accepted:?}");
    assert_eq!(values(subject, &key).await, ["1", "2"]);
    assert_eq!(
        store
            .find(&id, None)
            .await
            .expect("the store answers")
            .len(),
        2
    );
}

async fn a_batch_with_a_reused_id_is_refused_as_a_whole(subject: &dyn Subject) {
    let (key, id, store) = (unique("whole"), new_id(), subject.store());
    let accepted = store.accept(request(vec![event(&key, &id, "1")])).await;
    assert!(is_new(&accepted), "{accepted:?}");
    let (before, after) = (new_id(), new_id());
    let batch = [(&before, "2"), (&id, "other"), (&after, "3")];
    let batch = batch.map(|(id, value)| event(&key, id, value)).to_vec();
    let refused = store
        .accept(keyed(claim("shop", &key, 1), batch.clone()))
        .await;
    assert!(
        matches!(refused, Err(AcceptError::Reused { .. })),
        "{refused:?}"
    );
    assert_eq!(values(subject, &key).await, ["1"]);
    assert!(
        store
            .find(&before, None)
            .await
            .expect("the store answers")
            .is_empty()
    );
    // The key was not kept: the corrected request may use it.
    let corrected = vec![batch[0].clone(), event(&key, &id, "1"), batch[2].clone()];
    let accepted = store.accept(keyed(claim("shop", &key, 2), corrected)).await;
    assert!(is_new(&accepted), "{accepted:?}");
    assert_eq!(values(subject, &key).await, ["1", "2", "3"]);
}

async fn a_hundred_concurrent_repetitions_publish_once(subjects: &[&dyn Subject]) {
    let key = unique("hundred");
    let repetition = || keyed(claim("shop", &key, 1), vec![event(&key, &new_id(), "1")]);
    let stores: Vec<_> = subjects.iter().map(|subject| subject.store()).collect();
    let calls = (0..100).map(|n| stores[n % stores.len()].accept(repetition()));
    let mut new = 0;
    for outcome in join_all(calls).await {
        match outcome {
            Ok(Accepted::New) => new += 1,
            Ok(Accepted::Repeated(repeated)) => assert_eq!(repeated, answer()),
            Err(AcceptError::InProgress) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(new, 1);
    for (subject, store) in subjects.iter().zip(&stores) {
        let repeated = store.accept(repetition()).await.expect("it is repeated");
        assert_eq!(repeated, Accepted::Repeated(answer()));
        assert_eq!(values(*subject, &key).await, ["1"]);
    }
}

async fn concurrent_repetitions_of_ids_publish_once(one: &dyn Subject, other: &dyn Subject) {
    let (key, stores) = (unique("ids"), [one.store(), other.store()]);
    let ids: Vec<String> = (0..20).map(|_| new_id()).collect();
    let calls = (0..100).map(|n| {
        // Batches that overlap, in different orders.
        let mut events = [n, n + 3, n + 7].map(|n| event(&key, &ids[n % ids.len()], "1"));
        if n % 2 == 1 {
            events.reverse();
        }
        stores[n % 2].accept(request(events.to_vec()))
    });
    for outcome in join_all(calls).await {
        assert!(is_new(&outcome), "{outcome:?}");
    }
    assert_eq!(values(one, &key).await.len(), ids.len());
}

async fn text_that_a_database_cannot_hold_is_rejected(subject: &dyn Subject) {
    let (key, store) = (unique("zero"), subject.store());
    for request in [
        request(vec![event(&key, "zero\0", "1")]),
        keyed(
            claim("shop", "zero\0", 1),
            vec![event(&key, &new_id(), "1")],
        ),
    ] {
        let rejected = store.accept(request).await;
        assert!(
            matches!(rejected, Err(AcceptError::Rejected(_))),
            "{rejected:?}"
        );
    }
    assert!(values(subject, &key).await.is_empty());
}

async fn a_key_is_refused_without_identities(subject: &dyn Subject) {
    let key = unique("none");
    let keyed = keyed(claim("shop", &key, 1), vec![event(&key, &new_id(), "1")]);
    let refused = subject.store().accept(keyed).await;
    assert!(
        matches!(refused, Err(AcceptError::NoIdentities)),
        "{refused:?}"
    );
    assert!(values(subject, &key).await.is_empty());
}

async fn the_backlog_counts_what_the_brokers_do_not_have(subject: &dyn Subject) {
    let store = subject.store();
    let records = subject.records().await.len() as u64;
    let (waiting, is_old) = match store.keeps_identities() {
        true => (records, true),
        false => (0, false),
    };
    eventually("the backlog is measured", WITHIN, || async {
        let backlog = store.backlog();
        let is_expected = backlog.events == waiting && backlog.oldest_age.is_some() == is_old;
        is_expected.then_some(())
    })
    .await;
    let drained = store.backlog().drained;
    assert_eq!(drained > 0, !store.keeps_identities(), "{drained}");
}
