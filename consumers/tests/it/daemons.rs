//! The whole shop: the real binaries, two instances of some, on a separate Apache Kafka.

use crate::process::{Daemon, WITHIN};
use evenkeel::event::{Event, EventType};
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::testing::{KafkaKind, eventually, real_kafka};
use shop_consumers::inventory;
use shop_consumers::orderboard::{State, queries};
use shop_schemas::{OrderCancelled, OrderLine, OrderPlaced, StockReceived, topics};
use std::path::Path;

const ORDERS: usize = 30;
const DELIVERIES: usize = 5;

/// The binaries, with the number of instances on the service's store.
const DAEMONS: [(&str, &str, usize); 5] = [
    ("payments", env!("CARGO_BIN_EXE_payments"), 1),
    ("inventory", env!("CARGO_BIN_EXE_inventory"), 2),
    ("shipping", env!("CARGO_BIN_EXE_shipping"), 2),
    ("notifications", env!("CARGO_BIN_EXE_notifications"), 1),
    ("orderboard", env!("CARGO_BIN_EXE_orderboard"), 1),
];

/// Publishes every event twice with the same identity, like a producer that missed the first
/// acknowledgement.
async fn publish_twice<T: EventType>(publisher: &Publisher, data: T) {
    let event = Event::new(publisher.source(), data);
    for _ in 0..2 {
        publisher.publish(&event).await.unwrap();
    }
}

/// Publishes orders, of which every third is too expensive and every fifth is cancelled, and stock
/// for some of them. Returns the number of cancelled orders.
async fn shop_for(publisher: &Publisher) -> usize {
    for delivery in 0..DELIVERIES {
        let received = StockReceived {
            article: "tea".to_owned(),
            quantity: 3,
            delivery_id: format!("d-{delivery}"),
        };
        publish_twice(publisher, received).await;
    }
    let mut cancellations = 0;
    for order in 0..ORDERS {
        let order_id = format!("o-{order}");
        let expensive = order % 3 == 0;
        let placed = OrderPlaced {
            order_id: order_id.clone(),
            customer_id: "c-1".to_owned(),
            lines: vec![OrderLine {
                article: "tea".to_owned(),
                quantity: 1,
                price_cents: 100,
            }],
            total_cents: if expensive { 600_000 } else { 100 },
            placed_at: "2026-01-01T00:00:00Z".to_owned(),
        };
        publish_twice(publisher, placed).await;
        if order % 5 == 0 {
            let reason = "changed my mind".to_owned();
            publish_twice(publisher, OrderCancelled { order_id, reason }).await;
            cancellations += 1;
        }
    }
    cancellations
}

async fn ended(store: &Path) -> Option<()> {
    let mut store = queries::open(store).await.ok()?;
    let lines = queries::orders(&mut store, None).await.ok()?;
    let over = [
        State::Shipped,
        State::Cancelled,
        State::Declined,
        State::Rejected,
    ];
    let over = over.map(State::as_str);
    (lines.len() == ORDERS && lines.iter().all(|line| over.contains(&line.state.as_str())))
        .then_some(())
}

/// Effects of a service by event type: their number, and the number of repeated effects.
async fn effects(store: &Path, ty: &str) -> (usize, usize) {
    let mut store = queries::open(store).await.unwrap();
    let (all, distinct): (i64, i64) = sqlx::query_as(
        "SELECT count(*), count(DISTINCT source || ' ' || id) FROM effects WHERE type LIKE ?",
    )
    .bind(ty)
    .fetch_one(&mut store)
    .await
    .unwrap();
    let all = usize::try_from(all).unwrap();
    (all, all - usize::try_from(distinct).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_has_one_effect_per_service_and_orders_end() {
    let Some(kafka) = real_kafka().await else {
        return;
    };
    if kafka.kind() == KafkaKind::Auto {
        eprintln!(
            "skipped: the shop's names are fixed, and a Kafka named by the environment may have a shop"
        );
        return;
    }
    for topic in topics() {
        kafka.create_topic(&topic.name, 4).await.unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |service: &str| dir.path().join(format!("{service}.db"));
    let mut daemons = Vec::new();
    for (service, binary, instances) in DAEMONS {
        for _ in 0..instances {
            daemons.push(Daemon::start(binary, kafka.brokers(), &path(service), &[]));
        }
    }
    let publisher = Publisher::new(&kafka.config(), PublisherSettings::new("/shop/test")).unwrap();
    let cancellations = shop_for(&publisher).await;
    let board = path("orderboard");
    eventually("every order ends", WITHIN, || ended(&board)).await;
    // The state of the board does not include services that lag behind it: wait for the events that
    // each must handle.
    let told = ORDERS + cancellations;
    for (service, ty, expected) in [
        ("payments", "shop.order-%", told),
        ("inventory", "shop.order-%", told),
        ("inventory", "shop.stock-received.v1", DELIVERIES),
        ("inventory", "shop.payment-declined.v1", ORDERS / 3),
        ("notifications", "shop.order-%", told),
        ("notifications", "shop.payment-%", ORDERS),
        ("orderboard", "shop.order-%", told),
        ("shipping", "shop.order-cancelled.v1", cancellations),
    ] {
        let store = path(service);
        eventually(
            &format!("{service} handles {expected} {ty}"),
            WITHIN,
            || async { (effects(&store, ty).await.0 == expected).then_some(()) },
        )
        .await;
    }
    daemons.iter().for_each(Daemon::stop);
    for daemon in daemons {
        daemon.ends_cleanly().await;
    }
    for (service, _, _) in DAEMONS {
        let (all, twice) = effects(&path(service), "%").await;
        assert_eq!(twice, 0, "{service}");
        assert!(all > 0, "{service}");
    }
    for (service, binary, _) in DAEMONS {
        let store = path(service);
        let until_end = async || {
            let daemon = Daemon::start(binary, kafka.brokers(), &store, &["--until-end"]);
            daemon.ends_cleanly().await;
        };
        // Events without a waiting order may have arrived after the stop.
        until_end().await;
        let before = effects(&store, "%").await.0;
        until_end().await;
        assert_eq!(effects(&store, "%").await.0, before, "{service}");
    }
    let mut stock = queries::open(&path("inventory")).await.unwrap();
    assert_eq!(inventory::audit(&mut stock).await.unwrap(), []);
}
