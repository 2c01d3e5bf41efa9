//! Which handler receives a record, and which routers are refused.

use crate::event::{Event, EventType, Headers, Record, RecordBatchBuilder};
use crate::handler::{Context, Delivery, DeliveryScope, HandlerError, Outcome, Router, State};
use crate::inbox::MemoryInbox;
use crate::telemetry::captured_log::capture;
use std::sync::{Arc, Mutex};
use tower::Service;

#[derive(serde::Deserialize, serde::Serialize)]
struct Paid {
    cents: u64,
}

impl EventType for Paid {
    const TYPE: &'static str = "test.paid.v1";
    const TOPIC: &'static str = "test.payments";

    fn key(&self) -> String {
        "account".to_owned()
    }
}

#[derive(serde::Deserialize, serde::Serialize)]
struct Refunded {}

impl EventType for Refunded {
    const TYPE: &'static str = "test.refunded.v1";
    const TOPIC: &'static str = "test.payments";

    fn key(&self) -> String {
        "account".to_owned()
    }
}

type Pairs<'a> = &'a [(&'a str, &'a str)];

const OTHER: &str = "other.contract-created.v1";

fn delivery(pairs: Pairs<'_>, value: Option<&[u8]>) -> Delivery {
    let mut headers = Headers::new();
    for (name, value) in pairs {
        headers.push(name, Some(value.as_bytes()));
    }
    let mut batch = RecordBatchBuilder::new();
    let source = batch.source("payments".into(), 0);
    batch.push(source, 7, 0, None, value, headers.iter());
    let record = batch.build(None).record(0).expect("pushed");
    Delivery::new(record, 1, Arc::new(DeliveryScope::new("group")))
}

fn event<'a>(ty: &'a str, more: Pairs<'a>) -> Vec<(&'a str, &'a str)> {
    let mut pairs = vec![
        ("ce_specversion", "1.0"),
        ("ce_id", "1"),
        ("ce_source", "/s"),
        ("ce_type", ty),
    ];
    pairs.extend(more);
    pairs
}

/// The called handlers, in order.
#[derive(Clone, Default)]
struct CalledHandlers(Arc<Mutex<Vec<&'static str>>>);

impl CalledHandlers {
    fn record_call(&self, who: &'static str) {
        self.0.lock().unwrap().push(who);
    }
}

async fn paid(_: Event<Paid>, State(called): State<CalledHandlers>) {
    called.record_call("typed");
}

async fn raw(_: Record, State(called): State<CalledHandlers>) {
    called.record_call("raw");
}

async fn fallback(_: Record, State(called): State<CalledHandlers>) {
    called.record_call("fallback");
}

fn handle(router: &Router, delivery: Delivery) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let mut router = router.clone();
    let Ok(outcome) = runtime.expect("a runtime").block_on(router.call(delivery));
    outcome
}

/// The called handler of a record, or else its outcome.
fn called_or_outcome(router: &Router, pairs: Pairs<'_>, value: Option<&[u8]>) -> String {
    let called = CalledHandlers::default();
    let router = router.clone().with_state(called.clone());
    let with_inbox = router.clone().with_inbox(MemoryInbox::default());
    let fates = [router, with_inbox].map(|router| {
        router.validate().expect("it has what it needs");
        let outcome = handle(&router, delivery(pairs, value));
        match std::mem::take(&mut *called.0.lock().unwrap())[..] {
            [] => match outcome {
                Outcome::Dead(reason) => format!("dead: {}", reason.message),
                outcome => format!("{outcome:?}"),
            },
            [who] => who.to_owned(),
            ref many => panic!("{many:?}"),
        }
    });
    assert_eq!(fates[0], fates[1], "the same with an inbox and without");
    fates[0].clone()
}

#[test]
fn every_record_has_one_handler_or_one_outcome() {
    let typed = || Router::new().on(paid);
    let routers = [
        typed(),
        typed().raw(raw),
        typed().fallback(fallback),
        typed().raw(raw).fallback(fallback),
        Router::new().raw(raw),
        Router::new().fallback(fallback),
        Router::new().raw(raw).fallback(fallback),
    ];
    let check = |what: &str, pairs: Pairs<'_>, value: Option<&str>, expected: [&str; 7]| {
        let value = value.map(str::as_bytes);
        for (number, (router, expected)) in routers.iter().zip(expected).enumerate() {
            let fate = called_or_outcome(router, pairs, value);
            let is_so = fate == expected || expected == "dead" && fate.starts_with("dead: ");
            assert!(is_so, "{what}, router {number}: {fate}, not {expected}");
        }
    };
    let (t, r, f, i, d) = ("typed", "raw", "fallback", "Ignored", "dead");
    let good = Some(r#"{"cents":1}"#);
    check(
        "its type",
        &event(Paid::TYPE, &[]),
        good,
        [t, t, t, t, r, f, f],
    );
    let broken = &event(Paid::TYPE, &[("ce_id", "")]);
    check("its type, not valid", broken, good, [d, d, d, d, r, f, f]);
    let payload = Some("{");
    check(
        "its type, not JSON",
        &event(Paid::TYPE, &[]),
        payload,
        [d, d, d, d, r, f, f],
    );
    check(
        "another type",
        &event(OTHER, &[]),
        good,
        [i, i, f, f, r, f, f],
    );
    for more in [
        ("ce_id", ""),
        ("ce_source", ""),
        ("ce_specversion", "0.3"),
        ("ce_time", "9999-12-31T00:00:00Z"),
    ] {
        check(
            "another type, not valid",
            &event(OTHER, &[more]),
            None,
            [i, i, f, f, r, f, f],
        );
    }
    let partial = &[("ce_type", OTHER), ("ce_id", "1")];
    check(
        "another type, incomplete",
        partial,
        good,
        [i, r, f, r, r, f, r],
    );
    check("no event", &[], good, [d, r, f, r, r, f, r]);
    check("a tombstone", &[], None, [d, r, f, r, r, f, r]);
    let structured = &[("content-type", "application/cloudevents+json")];
    let other = r#"{"specversion":"1.0","id":["x"],"ext":1.5,"type":"other.v1","time":""}"#;
    check(
        "another type, structured",
        structured,
        Some(other),
        [i, i, f, f, r, f, f],
    );
    check(
        "structured, not JSON",
        structured,
        payload,
        [d, d, d, d, r, f, f],
    );
    let avro = &[("content-type", "application/cloudevents+avro")];
    check("another format", avro, payload, [d, r, f, r, r, f, r]);
}

#[test]
fn a_dead_letter_suggests_the_handler_to_add() {
    let router = Router::new().on(paid);
    let tombstone = called_or_outcome(&router, &[], None);
    assert!(tombstone.contains("tombstone"), "{tombstone}");
    assert!(tombstone.contains("Router::fallback"), "{tombstone}");
}

#[test]
fn two_handlers_for_one_thing_are_refused() {
    let check = |router: Router, expected: &str| {
        let router = router.with_state(CalledHandlers::default());
        let error = router.validate().expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
        // A router inside of a layer was not validated: its records wait.
        let outcome = handle(
            &router,
            delivery(&event(Paid::TYPE, &[]), Some(b"{\"cents\":1}")),
        );
        let Outcome::Retry(error) = outcome else {
            panic!("{expected}: {outcome:?}");
        };
        assert_eq!(error.dependency_name(), "router");
    };
    let again = async |_: Event<Paid>| {};
    check(Router::new().on(paid).on(again), "test.paid.v1");
    check(
        Router::new().on(paid).on_named("again", again),
        "test.paid.v1",
    );
    let refunded = async |_: Event<Refunded>| {};
    let named = |router: Router| router.on_named("payer", refunded);
    check(named(Router::new().on_named("payer", again)), "payer");
    check(Router::new().raw(raw).raw(raw), "raw");
    check(Router::new().fallback(raw).fallback(raw), "fallback");
    check(Router::new().raw(raw).on_named("raw", again), "raw");
    check(
        Router::new().on_named("fallback", again).fallback(raw),
        "fallback",
    );
}

#[test]
fn a_router_has_a_state_of_each_type() {
    #[derive(Clone)]
    struct Limit(u64);
    let both = async |event: Event<Paid>,
                      State(limit): State<Limit>,
                      State(called): State<CalledHandlers>| {
        if event.data.cents < limit.0 {
            called.record_call("typed");
        }
    };
    let router = Router::new()
        .on(both)
        .with_state(Limit(1))
        .with_state(Limit(5));
    let fate = called_or_outcome(&router, &event(Paid::TYPE, &[]), Some(b"{\"cents\":3}"));
    assert_eq!(fate, "typed");
    let missing = Router::new().on(both).with_state(Limit(5)).validate();
    let message = missing.expect_err("a state is missing").to_string();
    assert!(message.contains("CalledHandlers"), "{message}");
}

#[test]
fn a_type_without_a_handler_is_logged_once() {
    let router = Router::new().on(async |_: Event<Paid>| {});
    let log = capture(
        tracing_subscriber::fmt().with_max_level(tracing::Level::WARN),
        || {
            for ty in [OTHER, OTHER, "other.v2", OTHER] {
                let outcome = handle(&router.clone(), delivery(&event(ty, &[]), None));
                assert!(matches!(outcome, Outcome::Ignored));
            }
        },
    );
    assert_eq!(log.lines().count(), 2, "{log}");
    assert!(log.contains(OTHER) && log.contains("other.v2"), "{log}");
}

#[test]
fn the_inbox_identifies_fallback_records_by_their_position() {
    let router = Router::new()
        .fallback(
            async |_: Record, context: Context| -> Result<(), HandlerError> {
                assert_eq!(context.offset(), 7);
                Ok(())
            },
        )
        .with_inbox(MemoryInbox::default());
    let deliver = |id| handle(&router, delivery(&event(OTHER, &[("ce_id", id)]), None));
    assert!(matches!(deliver("1"), Outcome::Done));
    assert!(
        matches!(deliver("2"), Outcome::Duplicate),
        "of the same place"
    );
}
