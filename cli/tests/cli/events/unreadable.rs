//! A batch that no client can read is named with its position, and other partitions continue.

// The library's tests do more kinds of damage than the tool's.
#[allow(dead_code)]
#[path = "../../../../tests/it/support/damage.rs"]
mod damage;

use crate::groups::commit;
use crate::support::tool::run_on;
use damage::{Damage, Damageable};
use evenkeel::consumer::{Consumer, ConsumerSettings, StopWhen};
use evenkeel::event::{Event, EventType};
use evenkeel::handler::Router;
use evenkeel::inbox::SqliteInbox;
use evenkeel::kafka::KafkaConfig;
use evenkeel::testing::required;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn an_unreadable_batch_is_named_and_other_topics_are_shown() {
    let Some(broker) = required(Damageable::start().await) else {
        return;
    };
    let kafka = &broker.kafka;
    for topic in ["torn", "sound"] {
        let created = kafka.create_topic(topic, 1).await;
        created.expect("the topic is new");
        let publish = ["publish", "shop.order-cancelled.v1", "--topic", topic];
        let lines = "{\"order_id\":\"o-1\",\"reason\":\"r\"}\n".repeat(3);
        let mut args = publish.to_vec();
        args.extend(["-X", "batch.num.messages=1"]);
        run_on(kafka, &args, &lines).await.code(0);
        commit(kafka, "readers", topic, 1).await;
    }
    broker.damage("torn", 1, Damage::Codec(5));

    let consume = ["consume", "torn", "sound", "--until-end", "-f", "%t@%o\\n"];
    let shown = run_on(kafka, &consume, "").await.code(1);
    let mut lines: Vec<&str> = shown.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["sound@0", "sound@1", "sound@2", "torn@0"]);
    let named = "torn/0 cannot be read at offset 1: its batch is compressed with codec 5";
    assert!(shown.stderr.contains(named), "{}", shown.stderr);

    let lag = ["groups", "lag", "readers", "--max-age", "1h", "-o", "jsonl"];
    let lag = run_on(kafka, &lag, "").await.code(3);
    assert!(lag.stderr.contains(named), "{}", lag.stderr);
    let rows = lag.rows();
    let of = |topic: &str| rows.iter().find(|row| row["topic"] == topic);
    assert_eq!(of("sound").expect("a row")["unreadable"], json!(null));
    let torn = of("torn").expect("a row")["unreadable"].as_str();
    assert!(torn.expect("a reason").contains(named), "{torn:?}");
    let table = run_on(kafka, &["groups", "lag", "readers"], "")
        .await
        .code(0);
    assert!(table.stdout.contains("unreadable"), "{}", table.stdout);

    // The store knows the group by what it handles of the sound topic.
    let folder = tempfile::tempdir().expect("a temporary folder is created");
    let path = folder.path().join("store.db");
    handle_all(&kafka.config(), "sound", &path).await;
    commit(kafka, "readers", "torn", 3).await;
    let address = format!("sqlite:{}", path.display());
    let audit = [
        "audit", "--group", "readers", "--topic", "torn", "--store", &address, "-o", "json",
    ];
    let audited = run_on(kafka, &audit, "").await.code(3);
    let report: Value = serde_json::from_str(&audited.stdout).expect("the text is JSON");
    assert_eq!(report["total"]["records"], 2, "{report}");
    assert_eq!(report["unreadable"]["count"], 1, "{report}");
    assert_eq!(report["unreadable"]["listed"][0]["offset"], 1, "{report}");
}

#[derive(Serialize, Deserialize)]
struct Cancelled {
    order_id: String,
}

impl EventType for Cancelled {
    const TYPE: &'static str = "shop.order-cancelled.v1";
    const TOPIC: &'static str = "sound";

    fn key(&self) -> String {
        self.order_id.clone()
    }
}

/// Handles a topic to its end.
async fn handle_all(kafka: &KafkaConfig, topic: &str, store: &Path) {
    let inbox = SqliteInbox::open(store, "readers", "").await;
    let router = Router::new()
        .on(async |_: Event<Cancelled>| {})
        .with_inbox(inbox.expect("the store opens"));
    let mut settings = ConsumerSettings::new("readers", [topic]);
    settings.stop_when = StopWhen::UntilEnd;
    let consumer = Consumer::new(kafka.clone(), settings, router)
        .expect("the settings of the consumer are valid");
    let report = consumer.run(CancellationToken::new()).await;
    assert_eq!(report.expect("it ends well").settled, 2);
}
