//! One trace over the processes of the shop, as a collector receives it: from the request at the
//! gateway to the last message, with a record that waited in the retry topic.
//!
//! - `build_or_find`: the shop's programs, as the demo finds them
//! - `collector`: takes the spans, and checks the protocol
//! - `shop`: the processes
//! - `tree`: a trace's spans as a tree

#[path = "../../src/shop/build_or_find.rs"]
mod build_or_find;
mod collector;
mod shop;
mod tree;

use collector::{Collector, Received};
use evenkeel::event::Event;
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::testing::{eventually, read_topic};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::json;
use shop::{Shop, WITHIN};
use shop_schemas::StockReceived;
use std::time::Duration;
use tree::{Trace, hex};

/// A trace whose caller does not sample it.
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

/// The customer whose payments the provider fails to answer, for a while.
const PARKED: &str = "customer-parked";

/// Delivers stock, and waits until the inventory has it.
async fn fill(shop: &Shop, collector: &Collector) {
    let settings = PublisherSettings::new("/shop/traces");
    let publisher = Publisher::new(&shop.kafka.config(), settings).expect("valid settings");
    let stock = StockReceived {
        article: "tea".to_owned(),
        quantity: 10,
        delivery_id: "d-1".to_owned(),
    };
    let event = Event::new(publisher.source(), stock);
    let published = publisher.publish(&event).await;
    published.expect("the stock is published");
    eventually("the inventory has stock", WITHIN, || async {
        let handled = collector.named("inventory", "process shop.deliveries");
        (!handled.is_empty()).then_some(())
    })
    .await;
}

/// Waits until the trace has a span of this name.
async fn reach(collector: &Collector, trace: &str, service: &str, name: &str) {
    let what = format!("{service} has a span {name} in the trace {trace}");
    eventually(&what, WITHIN, || async {
        let found = collector.named(service, name);
        let is_of = |found: &Received| hex(&found.span.trace_id) == trace;
        found.iter().any(is_of).then_some(())
    })
    .await;
}

/// Two orders: one that the caller does not sample, and one whose record is parked in the retry
/// topic. Returns the trace of the second, when all its effects are there.
async fn sell(shop: &Shop, collector: &Collector) -> String {
    let failing = json!({"behaviour": "failing", "customer_id": PARKED, "status": 500});
    shop.provider_behaves(&failing).await;
    let unsampled = shop.order("customer-unsampled", Some(UNSAMPLED)).await;
    assert_eq!(unsampled, UNSAMPLED[3..35], "the caller's trace");
    let trace = shop.order(PARKED, None).await;
    reach(
        collector,
        &trace,
        "payments",
        "send retry.payments.shop.orders",
    )
    .await;
    shop.provider_behaves(&json!({"behaviour": "normal"})).await;
    reach(collector, &trace, "notifications", "process shop.shipments").await;
    eventually("both orders are dispatched", WITHIN, || async {
        (dispatched(shop).await.len() == 2).then_some(())
    })
    .await;
    trace
}

/// The `traceparent` of each dispatched order.
async fn dispatched(shop: &Shop) -> Vec<String> {
    let records = read_topic(&shop.kafka.config(), "shop.shipments", WITHIN).await;
    let traces = records.iter().map(|record| {
        let traceparent = record.headers.last("traceparent").expect("a trace");
        String::from_utf8_lossy(traceparent).into_owned()
    });
    traces.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_one_trace_from_request_to_last_message() {
    let (collector, url) = Collector::start().await;
    let shop = Box::pin(Shop::start(&url)).await;
    fill(&shop, &collector).await;
    let id = Box::pin(sell(&shop, &collector)).await;
    let dispatched = dispatched(&shop).await;
    let asked = shop.asked.clone();
    shop.stop().await;

    let trace = Trace::of(&id, collector.spans());
    println!("the trace {id}:\n{trace}");
    assert_eq!(collector.faults(), Vec::<String>::new());
    assert_whole(&trace);
    assert_steps(&trace);
    assert_retry(&trace, &asked.of(&id));
    assert_attributes(&trace);
    let quietly = asked.of(&UNSAMPLED[3..35]);
    assert!(!quietly.is_empty(), "the provider is asked in the trace");
    let is_unsampled = |traceparent: &String| traceparent.ends_with("-00");
    assert!(quietly.iter().all(is_unsampled), "{quietly:?}");
    let unsampled = Trace::of(&UNSAMPLED[3..35], collector.spans());
    assert_eq!(unsampled.spans().len(), 0, "not sampled:\n{unsampled}");
    for (trace_id, flags) in [(&UNSAMPLED[3..35], "00"), (id.as_str(), "01")] {
        let found = dispatched.iter().find(|text| text[3..35] == *trace_id);
        let found = found.expect("both orders are dispatched");
        assert_eq!(&found[53..], flags, "the caller's decision is passed on");
    }
}

/// One root, and no parent or link to a span that is missing.
fn assert_whole(trace: &Trace) {
    let root = trace.only("gateway", "POST /orders");
    for found in trace.spans() {
        let (name, parent) = (&found.span.name, &found.span.parent_span_id);
        let is_root = found.span.span_id == root.span.span_id;
        assert_eq!(parent.is_empty(), is_root, "{name} in\n{trace}");
        assert!(
            is_root || trace.by_id(parent).is_some(),
            "the parent of {name} is missing in\n{trace}"
        );
        for link in &found.span.links {
            assert_eq!(link.trace_id, found.span.trace_id, "a link of {name}");
            let linked = trace.by_id(&link.span_id);
            assert!(
                linked.is_some(),
                "a link of {name} leads nowhere in\n{trace}"
            );
        }
    }
}

/// Every step from the request to the last message, each below the one that caused it.
fn assert_steps(trace: &Trace) {
    let last = trace.only("notifications", "process shop.shipments");
    let expected = [
        ("notifications", "process shop.shipments"),
        ("shipping", "process shop.payments"),
        ("payments", "process shop.orders"),
        ("gateway", "POST /orders"),
    ];
    let expected = expected.map(|(service, name)| (service.to_owned(), name.to_owned()));
    assert_eq!(trace.ancestry(last), expected, "in\n{trace}");

    let request = trace.only("gateway", "POST /orders");
    let paid = trace.only("payments", "process shop.orders");
    let reserved = trace.only("inventory", "process shop.orders");
    let shipped = trace.only("shipping", "process shop.payments");
    for (service, name, parent, kind) in [
        ("gateway", "send shop.orders", request, SpanKind::Producer),
        (
            "notifications",
            "process shop.orders",
            request,
            SpanKind::Consumer,
        ),
        (
            "inventory",
            "process shop.orders",
            request,
            SpanKind::Consumer,
        ),
        ("inventory", "send shop.stock", reserved, SpanKind::Producer),
        (
            "shipping",
            "process shop.stock",
            reserved,
            SpanKind::Consumer,
        ),
        (
            "payments",
            "process shop.orders",
            request,
            SpanKind::Consumer,
        ),
        ("payments", "send shop.payments", paid, SpanKind::Producer),
        (
            "notifications",
            "process shop.payments",
            paid,
            SpanKind::Consumer,
        ),
        (
            "shipping",
            "process shop.payments",
            paid,
            SpanKind::Consumer,
        ),
        (
            "shipping",
            "send shop.shipments",
            shipped,
            SpanKind::Producer,
        ),
        (
            "notifications",
            "process shop.shipments",
            shipped,
            SpanKind::Consumer,
        ),
    ] {
        let found = trace.only(service, name);
        let id = &found.span.parent_span_id;
        assert_eq!(*id, parent.span.span_id, "{service}: {name} in\n{trace}");
        assert_eq!(found.span.kind, kind as i32, "{service}: {name}");
        let (start, cause) = (found.span.start_time_unix_nano, &parent.span);
        assert!(start >= cause.start_time_unix_nano, "{service}: {name}");
        assert!(!found.has_failed(), "{service}: {name} in\n{trace}");
    }
}

/// The provider failed, the record waited in the retry topic, and its retry is linked. `asked` are
/// the contexts that the provider received.
fn assert_retry(trace: &Trace, asked: &[String]) {
    let request = trace.only("gateway", "POST /orders");
    let queries = trace.named("payments", "POST /payments");
    let (answered, failed) = queries.split_last().expect("the provider is asked");
    assert!(failed.len() >= 2, "attempts in place, in\n{trace}");
    assert!(failed.iter().all(|query| query.has_failed()), "in\n{trace}");
    assert_eq!(answered.attribute("http.response.status_code"), "200");
    for (query, attempt) in queries.iter().zip(0_usize..) {
        assert_eq!(query.span.parent_span_id, request.span.span_id);
        assert_eq!(query.span.kind, SpanKind::Client as i32);
        let repeated = query.attribute("http.request.resend_count");
        assert_eq!(
            repeated.parse::<usize>().unwrap_or(0),
            attempt,
            "in\n{trace}"
        );
    }
    for query in failed {
        assert_eq!(query.attribute("error.type"), "500");
    }
    let sent = queries.iter().map(|query| {
        let (trace_id, id) = (hex(&query.span.trace_id), hex(&query.span.span_id));
        format!("00-{trace_id}-{id}-01")
    });
    assert_eq!(
        asked,
        sent.collect::<Vec<_>>(),
        "what the provider received"
    );

    let served = trace.named("payment-provider", "POST /payments");
    assert_eq!(served.len(), queries.len(), "in\n{trace}");
    for (query, served) in queries.iter().zip(served) {
        assert_eq!(
            served.span.parent_span_id, query.span.span_id,
            "in\n{trace}"
        );
        assert_eq!(served.span.kind, SpanKind::Server as i32);
        assert_eq!(served.has_failed(), query.has_failed(), "in\n{trace}");
    }

    let parked = trace.only("payments", "send retry.payments.shop.orders");
    assert_eq!(parked.span.parent_span_id, request.span.span_id);
    let retried = trace.only("payments", "process shop.orders");
    let links: Vec<_> = retried
        .span
        .links
        .iter()
        .map(|link| &link.span_id)
        .collect();
    assert_eq!(
        links,
        [&request.span.span_id],
        "time passed before the retry"
    );
    let attempt = retried.attribute("evenkeel.attempt");
    assert_eq!(attempt, queries.len().to_string(), "attempts go on");
    let waited = retried.span.start_time_unix_nano - parked.span.end_time_unix_nano;
    let waited = Duration::from_nanos(waited);
    assert!(waited >= Duration::from_secs(5), "it waited {waited:?}");
}

/// The attributes of OpenTelemetry's conventions for messaging, and nothing of the order.
fn assert_attributes(trace: &Trace) {
    for (service, name, attributes) in [
        (
            "gateway",
            "send shop.orders",
            [
                ("messaging.operation.name", "send"),
                ("messaging.operation.type", "send"),
                ("messaging.destination.name", "shop.orders"),
                ("messaging.consumer.group.name", ""),
            ],
        ),
        (
            "payments",
            "process shop.orders",
            [
                ("messaging.operation.name", "process"),
                ("messaging.operation.type", "process"),
                ("messaging.destination.name", "shop.orders"),
                ("messaging.consumer.group.name", "payments"),
            ],
        ),
    ] {
        let found = trace.only(service, name);
        for (key, expected) in attributes {
            assert_eq!(found.attribute(key), expected, "{key} of {service}: {name}");
        }
        assert_eq!(found.attribute("messaging.system"), "kafka");
        for key in [
            "messaging.destination.partition.id",
            "messaging.kafka.offset",
        ] {
            let number = found.attribute(key).parse::<u64>();
            assert!(number.is_ok(), "{key} of {service}: {name} is a number");
        }
        assert!(
            !found.attribute("messaging.message.id").is_empty(),
            "{name}"
        );
    }
    let request = trace.only("gateway", "POST /orders");
    assert_eq!(request.attribute("http.route"), "/orders");
    assert_eq!(request.attribute("http.response.status_code"), "202");
    let all = format!("{:?}", trace.spans());
    assert!(!all.contains(PARKED), "no span has a part of the order");
}
