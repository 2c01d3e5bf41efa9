//! A service in Node.js beside the shop, with KafkaJS: each reads the other's events.
//!
//! Needs `node`, and KafkaJS in `tests/node/node_modules`: `npm install --prefix consumers/tests/node`.

use crate::process::{Daemon, WITHIN};
use evenkeel::event::Event;
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::testing::{ChildProcess, KafkaKind, StartError, TestKafka, eventually, required};
use shop_consumers::orderboard::{State, queries};
use shop_schemas::{OrderLine, OrderPlaced, topics};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const ORDERS: usize = 20;

/// The daemons that bring an order to its end.
const DAEMONS: [(&str, &str); 4] = [
    ("payments", env!("CARGO_BIN_EXE_payments")),
    ("inventory", env!("CARGO_BIN_EXE_inventory")),
    ("shipping", env!("CARGO_BIN_EXE_shipping")),
    ("orderboard", env!("CARGO_BIN_EXE_orderboard")),
];

fn service() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node/service.mjs")
}

/// Whether the Node.js service can run.
fn installed() -> Result<(), StartError> {
    let modules = service().with_file_name("node_modules/lz4js");
    let node = std::process::Command::new("node").arg("--version").output();
    match node {
        Err(error) => Err(missing(error.to_string())),
        Ok(_) if !modules.exists() => Err(missing(
            "KafkaJS is missing: npm install --prefix consumers/tests/node".to_owned(),
        )),
        Ok(_) => Ok(()),
    }
}

fn missing(reason: String) -> StartError {
    StartError::Unavailable {
        kind: "node",
        reason,
    }
}

/// Runs the service to its end. Returns its output's lines.
async fn run(arguments: &[&str]) -> Vec<serde_json::Value> {
    let mut command = ChildProcess::command("node");
    command.arg(service()).args(arguments);
    let process = ChildProcess::start(command).expect("node starts");
    let output = process.finished(WITHIN).await.code(0);
    let lines = output.stdout.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().expect("lines of JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafkajs_service_and_the_shop_read_each_other() {
    if required(installed()).is_none() {
        return;
    }
    let Some(kafka) = required(TestKafka::start(KafkaKind::Auto).await) else {
        return;
    };
    for topic in topics() {
        kafka.create_topic(&topic.name, 4).await.expect("a topic");
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = |service: &str| dir.path().join(format!("{service}.db"));
    let published = run(&["publish", kafka.brokers(), &ORDERS.to_string()]).await;
    assert_eq!(published.len(), ORDERS);

    let mut daemons = Vec::new();
    for (service, binary) in DAEMONS {
        daemons.push(Daemon::start(binary, kafka.brokers(), &path(service), &[]));
    }
    let board = path("orderboard");
    eventually("every order of Node.js ends", WITHIN, || ended(&board)).await;

    // Without stock, each order is rejected by inventory, which Node.js reads.
    let stock = run(&["read", kafka.brokers(), "shop.stock", &ORDERS.to_string()]).await;
    let partition_of: BTreeMap<&str, i64> = published
        .iter()
        .map(|order| {
            (
                text(order, "key"),
                order["partition"].as_i64().expect("one"),
            )
        })
        .collect();
    for event in &stock {
        assert_eq!(text(event, "type"), "shop.stock-rejected.v1");
        assert_eq!(event["data"]["order_id"], event["key"]);
        let own = partition_of.get(text(event, "key"));
        assert_eq!(own, event["partition"].as_i64().as_ref(), "{event}");
    }

    // The same keys, published by Rust, are in the partitions that KafkaJS chose.
    let publisher = Publisher::new(&kafka.config(), PublisherSettings::new("/shop/test"));
    let publisher = publisher.expect("a publisher");
    for (key, partition) in partition_of {
        let event = Event::new(publisher.source(), order(key));
        let receipt = publisher.publish(&event).await.expect("published");
        assert_eq!(i64::from(receipt.partition), partition, "{key}");
    }
    for daemon in &daemons {
        daemon.stop();
    }
    for daemon in daemons {
        daemon.ends_cleanly().await;
    }
}

fn text<'a>(line: &'a serde_json::Value, name: &str) -> &'a str {
    line[name]
        .as_str()
        .unwrap_or_else(|| panic!("{name} in {line}"))
}

fn order(order_id: &str) -> OrderPlaced {
    OrderPlaced {
        order_id: order_id.to_owned(),
        customer_id: "customer-rust".to_owned(),
        lines: vec![OrderLine {
            article: "tea".to_owned(),
            quantity: 1,
            price_cents: 100,
        }],
        total_cents: 100,
        placed_at: "2026-01-01T00:00:00Z".to_owned(),
    }
}

async fn ended(store: &Path) -> Option<()> {
    let mut store = queries::open(store).await.ok()?;
    let lines = queries::orders(&mut store, Some(State::Rejected))
        .await
        .ok()?;
    (lines.len() == ORDERS).then_some(())
}
