//! Dead letters of other frameworks, as these wrote them: `foreign/` holds the dead letters and the
//! programs that made them.
//!
//! The tests publish them to their own Kafka. Only the topic on which the records failed is
//! renamed.

use crate::support::dead_letters::{Mailbox, header, number_of};
use evenkeel::event::{Headers, OutgoingRecord};
use evenkeel::kafka::admin::Admin;
use evenkeel::kafka::reader::LogRecord;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Spring Kafka 3.3.9, `@RetryableTopic(attempts = "3")`: partition 1, then 0.
const RETRYABLE: &str = include_str!("retryable.json");
/// Kafka 4.4.0, a share group that rejects, without and with `errors.deadletterqueue.copy.record.enable`.
const SHARE_BARE: &str = include_str!("share-bare.json");
const SHARE_COPIED: &str = include_str!("share-copied.json");
/// Kafka Streams 4.2.0.
const STREAMS: &str = include_str!("streams.json");

fn bytes(value: &Value) -> Option<Vec<u8>> {
    let text = value.as_str()?;
    let bits = text.bytes().filter(|byte| *byte != b'=').map(|byte| {
        let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        digits
            .iter()
            .position(|digit| *digit == byte)
            .expect("every byte is a base64 digit") as u32
    });
    let mut decoded = Vec::new();
    let (mut buffer, mut held) = (0_u32, 0);
    for six in bits {
        (buffer, held) = (buffer << 6 | six, held + 6);
        if held >= 8 {
            held -= 8;
            decoded.push((buffer >> held) as u8);
        }
    }
    Some(decoded)
}

/// The dead letters of a file, of records that failed on the mailbox's topic.
fn letters(mailbox: &Mailbox, fixture: &str, topic_header: &str) -> Vec<OutgoingRecord> {
    let fixture: Vec<Value> = serde_json::from_str(fixture).expect("a fixture");
    let letter = |letter: &Value| {
        let mut headers = Headers::new();
        for pair in letter["headers"].as_array().expect("headers") {
            let name = pair[0].as_str().expect("a name");
            let value = match name == topic_header {
                true => Some(mailbox.source.clone().into_bytes()),
                false => bytes(&pair[1]),
            };
            headers.push(name, value.as_deref());
        }
        OutgoingRecord {
            topic: mailbox.letters.clone(),
            partition: Some(0),
            key: bytes(&letter["key"]).map(Into::into),
            value: bytes(&letter["value"]).map(Into::into),
            headers,
            timestamp_ms: None,
        }
    };
    fixture.iter().map(letter).collect()
}

/// The records that failed, as the programs published them.
fn originals(mailbox: &Mailbox, partition: impl Fn(usize) -> i32) -> Vec<OutgoingRecord> {
    let original = |number: usize| {
        let key = format!("o-{number}");
        OutgoingRecord {
            topic: mailbox.source.clone(),
            partition: Some(partition(number)),
            headers: [(b"ce_id".as_slice(), Some(key.as_bytes()))]
                .into_iter()
                .collect(),
            ..mailbox.written(&key, number, &[])
        }
    };
    (0..2).map(original).collect()
}

/// Key, number, partition and header names of replayed records.
fn replayed(records: &[LogRecord]) -> Vec<(String, usize, i32, Vec<String>)> {
    let row = |record: &LogRecord| {
        let names = record
            .headers
            .iter()
            .map(|(name, _)| String::from_utf8_lossy(name).into_owned());
        let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
        let names = names
            .filter(|name| !name.starts_with("evenkeel.dlq.repla"))
            .collect();
        (key, number_of(record), record.partition, names)
    };
    let mut rows: Vec<_> = records.iter().map(row).collect();
    rows.sort();
    rows
}

#[tokio::test]
async fn springs_non_blocking_retries_are_listed_shown_and_replayed() {
    let Some(mailbox) = Mailbox::new(2).await else {
        return;
    };
    mailbox
        .publish(originals(&mailbox, |number| number as i32))
        .await;
    mailbox
        .publish(letters(&mailbox, RETRYABLE, "kafka_original-topic"))
        .await;
    let rows = mailbox.listed().await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    let row = &rows[0];
    assert_eq!(
        (&row["family"], &row["class"], &row["count"]),
        (
            &json!("spring"),
            &json!("java.lang.IllegalStateException"),
            &json!(2)
        )
    );
    assert!(
        row["message"]
            .as_str()
            .is_some_and(|text| text.contains("Listener failed")),
        "{row}"
    );

    let shown = mailbox
        .run(&["dlq", "show", &format!("{}/0@0", mailbox.letters)])
        .await
        .code(0)
        .stdout;
    for expected in [
        format!("failed on      {}/1@0", mailbox.source),
        "group          billing".to_owned(),
        "attempts       3".to_owned(),
        "! kafka_exception-stacktrace".to_owned(),
        "  ce_id = o-1".to_owned(),
    ] {
        assert!(shown.contains(&expected), "{expected}: {shown}");
    }
    mailbox.replay().await;
    let records = mailbox.read(&mailbox.source).await;
    let back: Vec<_> = records
        .into_iter()
        .filter(|record| record.offset == 1)
        .collect();
    let names = vec!["ce_id".to_owned()];
    assert_eq!(
        replayed(&back),
        [
            ("o-0".to_owned(), 0, 0, names.clone()),
            ("o-1".to_owned(), 1, 1, names)
        ]
    );
}

#[tokio::test]
async fn kafka_streams_dead_letters_are_listed_and_replayed() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    mailbox
        .publish(letters(&mailbox, STREAMS, "__streams.errors.topic"))
        .await;
    let rows = mailbox.listed().await;
    assert_eq!(rows[0]["family"], "streams");
    assert_eq!(rows[0]["class"], "java.lang.IllegalStateException");
    mailbox.replay().await;
    let names = vec!["ce_id".to_owned()];
    let back = replayed(&mailbox.read(&mailbox.source).await);
    assert_eq!(
        back,
        [
            ("o-0".to_owned(), 0, 0, names.clone()),
            ("o-1".to_owned(), 1, 0, names)
        ]
    );
}

/// Kafka copies no headers, and without a setting of the group neither key nor value.
#[tokio::test]
async fn dead_letters_of_share_groups_are_replayed_with_their_records() {
    for fixture in [SHARE_BARE, SHARE_COPIED] {
        let Some(mailbox) = Mailbox::new(1).await else {
            return;
        };
        mailbox.publish(originals(&mailbox, |_| 0)).await;
        mailbox
            .publish(letters(&mailbox, fixture, "__dlq.errors.topic"))
            .await;
        let at = format!("{}/0@1", mailbox.letters);
        let shown = mailbox.run(&["dlq", "show", &at]).await.code(0).stdout;
        assert!(
            shown.contains("{\"number\":1}") && shown.contains("ce_id = o-1"),
            "{shown}"
        );
        mailbox.replay().await;
        let back = replayed(&mailbox.read(&mailbox.source).await[2..]);
        let names = vec!["ce_id".to_owned()];
        assert_eq!(
            back,
            [
                ("o-0".to_owned(), 0, 0, names.clone()),
                ("o-1".to_owned(), 1, 0, names)
            ]
        );
    }
}

/// Without it, the dead letter is not replayed.
#[tokio::test]
async fn an_empty_share_group_dead_letter_needs_its_record() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    mailbox.publish(originals(&mailbox, |_| 0)).await;
    mailbox
        .publish(letters(&mailbox, SHARE_BARE, "__dlq.errors.topic"))
        .await;
    let admin = Admin::connect(&mailbox.kafka.config(), Duration::from_secs(30))
        .await
        .expect("the admin client connects");
    let deleted = admin
        .delete_records(&mailbox.source, &BTreeMap::from([(0, 1)]))
        .await;
    deleted.expect("the records are deleted");
    let run = mailbox
        .run(&["dlq", "replay", &mailbox.letters, "--execute"])
        .await
        .code(1);
    let gone = format!("its original at {}/0@0 is gone", mailbox.source);
    assert!(run.stderr.contains(&gone), "{}", run.stderr);
    assert!(
        run.stderr.contains("replayed 1, failed 1"),
        "{}",
        run.stderr
    );
    let records = mailbox.read(&mailbox.source).await;
    assert_eq!(records.len(), 2, "the one that is left, and its replay");
    assert_eq!(header(&records[1].headers, "ce_id").as_deref(), Some("o-1"));
}

/// A dead letter with key and value is replayed without headers if its record is gone.
#[tokio::test]
async fn copied_share_group_dead_letters_are_replayed_without_their_records() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    mailbox
        .publish(letters(&mailbox, SHARE_COPIED, "__dlq.errors.topic"))
        .await;
    mailbox.replay().await;
    let back = replayed(&mailbox.read(&mailbox.source).await);
    assert_eq!(
        back,
        [
            ("o-0".to_owned(), 0, 0, vec![]),
            ("o-1".to_owned(), 1, 0, vec![])
        ]
    );
}
