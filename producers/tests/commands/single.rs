//! One event per command, its receipt, and the errors of publishing.

use crate::shop::{Shop, orders, run_alone, stock};
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn placed_and_cancelled_orders_are_where_their_receipts_say() {
    let shop = Shop::open().await;
    let place = [
        "place",
        "--customer",
        "c-1",
        "--line",
        "article-001:2:870",
        "--line",
        "article-002:1:1240",
    ];
    let placed = shop
        .run(orders(), &[&place[..], &["--output", "json"]].concat())
        .await;
    assert_eq!(placed.code, Some(0), "{placed}");
    let receipt = placed.json();
    let order_id = receipt["order_id"]
        .as_str()
        .expect("an order id")
        .to_owned();
    let cancelled = shop
        .run(
            orders(),
            &[
                "cancel", &order_id, "--reason", "twice", "--output", "jsonl",
            ],
        )
        .await;
    assert_eq!(cancelled.code, Some(0), "{cancelled}");
    assert_eq!(cancelled.stdout.lines().count(), 1);

    let events = shop.published("shop.orders").await;
    let types: Vec<_> = events.iter().map(|event| event.ty.as_str()).collect();
    assert_eq!(types, ["shop.order-placed.v1", "shop.order-cancelled.v1"]);
    let order = &events[0];
    assert_eq!(order.key, order_id);
    assert_eq!(order.source, "/shop/orders");
    assert_eq!(order.data["total_cents"], 2 * 870 + 1240);
    assert_eq!(receipt["event_id"], json!(order.id));
    assert_eq!(receipt["topic"], "shop.orders");
    assert_eq!(receipt["partition"], order.partition);
    assert_eq!(receipt["offset"], order.offset);
    assert_eq!(cancelled.json()["event_id"], json!(events[1].id));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ids_given_are_the_ids_published() {
    let shop = Shop::open().await;
    let order = ["place", "--customer", "c-1", "--line", "article-001:2:870"];
    let ids = ["--order-id", "o-1", "--event-id", "e-1"];
    let placed = shop.run(orders(), &[&order[..], &ids].concat()).await;
    assert_eq!(placed.code, Some(0), "{placed}");
    assert!(
        placed.stdout.contains("o-1") && placed.stdout.contains("e-1"),
        "{placed}"
    );
    let events = shop.published("shop.orders").await;
    assert_eq!(
        (events[0].id.as_str(), events[0].key.as_str()),
        ("e-1", "o-1")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn filling_delivers_every_article_once_with_repeatable_ids() {
    let shop = Shop::open().await;
    for _ in 0..2 {
        let filled = shop
            .run(
                stock(),
                &[
                    "fill",
                    "--quantity",
                    "10",
                    "--delivery-id",
                    "d-1",
                    "--output",
                    "json",
                ],
            )
            .await;
        assert_eq!(filled.code, Some(0), "{filled}");
        assert_eq!(filled.json().as_array().map(Vec::len), Some(50));
    }
    let received = shop.run(stock(), &["receive", "article-001", "5"]).await;
    assert_eq!(received.code, Some(0), "{received}");
    let events = shop.published("shop.deliveries").await;
    assert_eq!(events.len(), 101);
    let ids: std::collections::HashSet<_> = events.iter().map(|event| &event.id).collect();
    assert_eq!(ids.len(), 51);
    assert!(events.iter().all(|event| event.ty == "shop.stock-received.v1" && event.key == event.data["article"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_payload_is_refused_without_showing_its_value() {
    let shop = Shop::open().await;
    let placed = shop
        .run(
            orders(),
            &[
                "place",
                "--customer",
                "no good id",
                "--line",
                "article-001:2:870",
            ],
        )
        .await;
    assert_eq!(placed.code, Some(1), "{placed}");
    assert!(placed.stderr.contains("/customer_id"), "{placed}");
    assert!(!placed.stderr.contains("no good id"), "{placed}");
    assert!(shop.published("shop.orders").await.is_empty());
}

#[tokio::test]
async fn brokers_that_cannot_be_reached_are_named_within_seconds() {
    let started = Instant::now();
    let arguments = [
        "receive",
        "article-001",
        "5",
        "-b",
        "127.0.0.1:1",
        "--connect-timeout",
        "2s",
    ];
    let received = run_alone(stock(), &arguments).await;
    assert_eq!(received.code, Some(4), "{received}");
    assert!(received.stderr.contains("127.0.0.1:1"), "{received}");
    assert!(received.stdout.is_empty(), "{received}");
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn arguments_that_make_no_sense_are_wrong_usage() {
    let check = async |arguments: &[&str], expected: &str| {
        let finished = run_alone(orders(), arguments).await;
        assert_eq!(finished.code, Some(2), "{arguments:?}: {finished}");
        assert!(
            finished.stderr.contains(expected),
            "{arguments:?}: {finished}"
        );
    };
    check(
        &["place", "--customer", "c-1", "--line", "article-001"],
        "ARTICLE:QUANTITY:PRICE_CENTS",
    )
    .await;
    check(&["import", "orders.txt"], "--format").await;
    check(&["import"], "--format").await;
    check(&["simulate", "--for", "60"], "unit").await;
    check(&["simulate", "--cancel-share", "2"], "from 0 to 1").await;
    check(
        &["cancel", "o-1", "--reason", "r", "-X", "acks"],
        "acks: a property is written",
    )
    .await;
    check(&["cancel", "o-1", "--reason", "r", "-X", "acks=0"], "acks").await;
}
