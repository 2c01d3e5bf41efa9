//! Groups on Apache Kafka: the mock cluster cannot list them.
//!
//! - `control`: running groups are paused, resumed, limited, and skip and retry records
//! - `parked`: waiting keys are listed, and dead letters return to their group alone
//! - `audit`: a group is proven, and missing, moved or unknown records are found, on each store
//! - `drill`: settled records are delivered again, and handlers that are not idempotent are named

mod audit;
mod control;
mod drill;
mod parked;

use crate::support::tool::{PATIENCE, run_on};
use evenkeel::testing::{TestKafka, eventually, real_kafka, unique};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::time::Duration;

/// Commits for a group that has no members.
pub(crate) async fn commit(kafka: &TestKafka, group: &str, topic: &str, offset: i64) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka.brokers())
        .set("group.id", group)
        .create()
        .expect("the settings are valid");
    let mut offsets = TopicPartitionList::new();
    offsets
        .add_partition_offset(topic, 0, Offset::Offset(offset))
        .expect("the offset is valid");
    tokio::task::spawn_blocking(move || consumer.commit(&offsets, CommitMode::Sync))
        .await
        .expect("it does not panic")
        .expect("the commit is accepted");
}

#[tokio::test]
async fn lag_counts_what_is_unsettled_and_judges_it() {
    let Some(kafka) = real_kafka().await else {
        return;
    };
    let (topic, group) = (unique("cli-lag"), unique("cli-lag-group"));
    kafka
        .create_topic(&topic, 1)
        .await
        .expect("the topic is new");
    let lines = "{\"order_id\":\"o-1\",\"reason\":\"r\"}\n".repeat(5);
    let publish = ["publish", "shop.order-cancelled.v1", "--topic", &topic];
    run_on(kafka, &publish, &lines).await.code(0);
    commit(kafka, &group, &topic, 2).await;

    let lag = ["groups", "lag", &group, "-o", "jsonl"];
    let run = run_on(kafka, &lag, "").await.code(0);
    let [row] = run.rows().try_into().expect("one partition");
    assert_eq!(
        (&row["topic"], &row["lag"]),
        (&topic.clone().into(), &3.into())
    );
    assert_eq!((&row["committed"], &row["high"]), (&2.into(), &5.into()));
    let age = row["age_ms"].as_i64().expect("the oldest has an age");
    assert!((0..600_000).contains(&age), "{age}");

    let judge = async |more: &[&str]| {
        let mut args = lag.to_vec();
        args.extend(more);
        run_on(kafka, &args, "").await
    };
    judge(&["--threshold", "3"]).await.code(0);
    let behind = judge(&["--threshold", "2"]).await.code(3);
    assert!(
        behind.stderr.contains("3 records behind"),
        "{}",
        behind.stderr
    );
    judge(&["--max-age", "1h"]).await.code(0);
    judge(&["--max-age", "1ms"]).await.code(3);

    commit(kafka, &group, &topic, 5).await;
    judge(&["--threshold", "0", "--max-age", "1ms"])
        .await
        .code(0);
}

#[tokio::test]
async fn kip_848_groups_are_listed_with_their_members() {
    let Some(kafka) = real_kafka().await else {
        return;
    };
    let (topic, group) = (unique("cli-kip848"), unique("cli-kip848-group"));
    let created = kafka.create_topic(&topic, 2).await;
    created.expect("the topic is new");
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka.brokers())
        .set("group.id", &group)
        .set("group.protocol", "consumer")
        .create()
        .expect("the settings are valid");
    consumer.subscribe(&[&topic]).expect("it subscribes");
    let (ends, ended) = std::sync::mpsc::channel::<()>();
    let poll = move || {
        while ended.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            let _ = consumer.poll(Duration::from_millis(50));
        }
    };
    let polling = std::thread::spawn(poll);
    let listed = ["groups", "list", "-o", "jsonl"];
    let row = eventually("the member has its partitions", PATIENCE, || async {
        let rows = run_on(kafka, &listed, "").await.code(0).rows();
        let row = rows.into_iter().find(|row| row["group"] == *group)?;
        (row["state"] == "Stable").then_some(row)
    })
    .await;
    assert_eq!(row["members"], 1, "{row}");
    let protocol = row["protocol"].as_str().expect("a protocol");
    assert!(protocol.contains("KIP-848"), "{protocol}");
    let described = run_on(kafka, &["groups", "describe", &group, "-o", "jsonl"], "").await;
    let rows = described.code(0).rows();
    let assignment = &rows[0]["members"][0]["assignment"][&topic];
    assert_eq!(*assignment, serde_json::json!([0, 1]), "{rows:?}");
    drop(ends);
    polling.join().expect("it does not panic");
}

#[tokio::test]
async fn groups_are_listed_and_described() {
    let Some(kafka) = real_kafka().await else {
        return;
    };
    let (topic, group) = (unique("cli-groups"), unique("cli-groups-group"));
    kafka
        .create_topic(&topic, 1)
        .await
        .expect("the topic is new");
    commit(kafka, &group, &topic, 0).await;

    let listed = run_on(kafka, &["groups", "list", "-o", "jsonl"], "").await;
    let rows = listed.code(0).rows();
    let row = rows.iter().find(|row| row["group"] == group.as_str());
    assert_eq!(row.expect("the group is listed")["state"], "Empty");

    let described = run_on(kafka, &["groups", "describe", &group], "").await;
    let described = described.code(0).stdout;
    let columns: Vec<&str> = described
        .lines()
        .find(|line| line.starts_with(&group))
        .expect("the group has a row")
        .split_whitespace()
        .collect();
    assert_eq!(columns[1..6], [topic.as_str(), "0", "0", "0", "0"]);

    let unknown = run_on(kafka, &["groups", "describe", "no-such-group"], "").await;
    assert!(unknown.code(1).stderr.contains("no-such-group"));
}
