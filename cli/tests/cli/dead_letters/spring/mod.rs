//! Spring Kafka: the dead letters of its own recoverer are listed, shown and replayed, and its
//! listener reads one of evenkeel.

use crate::support::dead_letters::Mailbox;
use evenkeel::consumer::{Consumer, ConsumerSettings, StopWhen};
use evenkeel::event::{OutgoingRecord, Record};
use evenkeel::handler::{HandlerError, Router};
use evenkeel::testing::{JavaProgram, Libraries, required, unique};
use serde_json::json;
use std::time::Duration;

/// Spring's start and the compilation before it take a few seconds each on a slow machine.
const WITHIN: Duration = Duration::from_secs(90);

/// The Spring application; none where it cannot be run.
async fn spring() -> Option<JavaProgram> {
    let libraries = Libraries::Project {
        name: "spring-kafka-3.3.9",
        pom: include_str!("pom.xml"),
    };
    let source = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/cli/dead_letters/spring/Spring.java"
    );
    required(JavaProgram::new(source, libraries).await)
}

fn order(mailbox: &Mailbox, key: &str, partition: i32) -> OutgoingRecord {
    OutgoingRecord {
        topic: mailbox.source.clone(),
        partition: Some(partition),
        key: Some(key.to_owned().into()),
        value: Some(format!("{{\"number\":{partition}}}").into()),
        headers: [
            (b"ce_id".as_slice(), Some(key.as_bytes())),
            (b"ce_type", Some(b"test.happened.v1")),
        ]
        .into_iter()
        .collect(),
        timestamp_ms: None,
    }
}

#[tokio::test]
async fn dead_letters_of_springs_recoverer_are_listed_shown_and_replayed() {
    let (Some(mailbox), Some(spring)) = (Mailbox::new(2).await, spring().await) else {
        return;
    };
    mailbox
        .publish([
            order(&mailbox, "a", 0),
            order(&mailbox, "b", 1),
            order(&mailbox, "c", 1),
        ])
        .await;
    let brokers = mailbox.kafka.brokers();
    let (source, group, letters) = (&mailbox.source, &mailbox.group, &mailbox.letters);
    let fails = ["fail", brokers, source, group, "3", letters];
    spring
        .run(&fails, WITHIN)
        .await
        .expect("Spring writes three dead letters");

    let rows = mailbox.listed().await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    let row = &rows[0];
    assert_eq!(
        (&row["family"], &row["class"], &row["count"]),
        (
            &json!("spring"),
            &json!("java.lang.IllegalStateException"),
            &json!(3)
        )
    );
    let message = row["message"].as_str().unwrap_or_default();
    assert!(message.contains("Listener failed"), "{message}");

    let shown = mailbox
        .run(&["dlq", "show", &format!("{letters}/1@1")])
        .await
        .code(0)
        .stdout;
    for expected in [
        format!("failed on      {source}/1@1"),
        format!("group          {group}"),
        "class          java.lang.IllegalStateException".to_owned(),
        "! kafka_dlt-original-offset".to_owned(),
        "{\"number\":1}".to_owned(),
    ] {
        assert!(shown.contains(&expected), "{expected}: {shown}");
    }

    let replay = ["dlq", "replay", letters, "--execute"];
    mailbox.run(&replay).await.code(0);
    let records = mailbox.read(source).await;
    let mut seen: Vec<(i32, i64, String, bool)> = records
        .iter()
        .map(|record| {
            let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default());
            let names = record.headers.iter().map(|(name, _)| name);
            let is_clean = names
                .into_iter()
                .all(|name| !name.starts_with(b"kafka_dlt-"));
            (
                record.partition,
                record.offset,
                key.into_owned(),
                is_clean && record.headers.last("ce_id") == record.key.as_deref(),
            )
        })
        .collect();
    seen.sort();
    let row = |partition, offset, key: &str| (partition, offset, key.to_owned(), true);
    assert_eq!(
        seen,
        [
            row(0, 0, "a"),
            row(0, 1, "a"),
            row(1, 0, "b"),
            row(1, 1, "c"),
            row(1, 2, "b"),
            row(1, 3, "c")
        ],
        "each went back to its partition, once, in order"
    );
}

#[tokio::test]
async fn springs_listener_reads_a_dead_letter_of_evenkeel() {
    let (Some(mailbox), Some(spring)) = (Mailbox::new(1).await, spring().await) else {
        return;
    };
    mailbox.publish([order(&mailbox, "a", 0)]).await;
    let mut settings = ConsumerSettings::new(&mailbox.group, [&mailbox.source]);
    settings.stop_when = StopWhen::UntilEnd;
    let router =
        Router::new().raw(async |_: Record| Err::<(), _>(HandlerError::permanent("no card")));
    let consumer = Consumer::new(mailbox.kafka.config(), settings, router)
        .expect("the settings of the consumer are valid");
    let report = consumer.run(Default::default()).await.expect("a run");
    assert_eq!(report.dead_letters, 1);

    let reads = [
        "read",
        mailbox.kafka.brokers(),
        &mailbox.letters,
        &unique("spring"),
        "1",
    ];
    let printed = spring.run(&reads, WITHIN).await.expect("a letter");
    let lines: Vec<&str> = printed.lines().collect();
    for expected in [
        "key=a",
        "value={\"number\":0}",
        "ce_id=a",
        "__dlq.errors.offset=0",
        "__dlq.errors.partition=0",
        "__dlq.errors.delivery.count=1",
        "__dlq.errors.message=no card",
        "evenkeel.dlq.error.class=permanent",
        "evenkeel.dlq.error.stage=handler",
        &format!("__dlq.errors.topic={}", mailbox.source),
        &format!("__dlq.errors.group={}", mailbox.group),
    ] {
        assert!(lines.contains(&expected), "{expected}: {printed}");
    }
}
