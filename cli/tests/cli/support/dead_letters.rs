//! Helper: a topic, a group, and dead letters of every family.

use super::tool::{PATIENCE, command, run_on, start};
use evenkeel::event::{Headers, OutgoingRecord};
use evenkeel::kafka::reader::LogRecord;
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::testing::{
    ChildProcess, Finished, TestKafka, eventually, read_topic, real_kafka, unique,
};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use std::time::Duration;

/// How long a test waits for an expected state.
const WITHIN: Duration = Duration::from_secs(30);

/// A topic, and the dead letters that a group wrote of its records.
pub(crate) struct Mailbox {
    pub(crate) kafka: &'static TestKafka,
    pub(crate) group: String,
    /// The topic on which records failed.
    pub(crate) source: String,
    /// The dead-letter topic.
    pub(crate) letters: String,
}

impl Mailbox {
    /// Empty topics; none where there is no Apache Kafka.
    pub(crate) async fn new(partitions: i32) -> Option<Self> {
        let kafka = real_kafka().await?;
        let (group, source) = (unique("payments"), unique("orders"));
        let letters = format!("dlq.{group}.{source}");
        for topic in [&source, &letters] {
            let created = kafka.create_topic(topic, partitions).await;
            created.expect("the topic is new");
        }
        Some(Self {
            kafka,
            group,
            source,
            letters,
        })
    }

    /// Deletes the dead-letter topic, and creates it again.
    pub(crate) async fn remake(&self) {
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", self.kafka.brokers())
            .create()
            .expect("an admin");
        let deleted = admin.delete_topics(&[&self.letters], &AdminOptions::new());
        deleted
            .await
            .expect("the cluster answers")
            .remove(0)
            .expect("the topic is deleted");
        eventually("the topic can be created again", WITHIN, || async {
            self.kafka.create_topic(&self.letters, 1).await.ok()
        })
        .await;
    }

    /// A dead letter of evenkeel: the record of that number failed on partition 0 of its topic.
    pub(crate) fn letter(
        &self,
        key: &str,
        number: usize,
        class: &str,
        message: &str,
    ) -> OutgoingRecord {
        let offset = number.to_string();
        let id = format!("id-{number}");
        self.written(
            key,
            number,
            &[
                ("ce_specversion", b"1.0"),
                ("ce_id", id.as_bytes()),
                ("ce_source", b"/test"),
                ("ce_type", b"test.happened.v1"),
                ("__dlq.errors.topic", self.source.as_bytes()),
                ("__dlq.errors.partition", b"0"),
                ("__dlq.errors.offset", offset.as_bytes()),
                ("__dlq.errors.group", self.group.as_bytes()),
                ("__dlq.errors.delivery.count", b"3"),
                ("__dlq.errors.message", message.as_bytes()),
                ("evenkeel.dlq.error.class", class.as_bytes()),
                ("evenkeel.dlq.error.stage", b"handler"),
                ("evenkeel.dlq.error.timestamp", b"2026-11-21T10:11:12Z"),
                ("evenkeel.dlq.error.service", b"payments-1"),
            ],
        )
    }

    /// An event in partition 0 of the source topic.
    pub(crate) fn event(&self, ty: &str, id: &str, key: &str, number: usize) -> OutgoingRecord {
        let headers: [(&str, &[u8]); 4] = [
            ("ce_specversion", b"1.0"),
            ("ce_id", id.as_bytes()),
            ("ce_source", b"/test"),
            ("ce_type", ty.as_bytes()),
        ];
        OutgoingRecord {
            topic: self.source.clone(),
            ..self.written(key, number, &headers)
        }
    }

    /// A dead letter with these headers in partition 0.
    pub(crate) fn written(
        &self,
        key: &str,
        number: usize,
        headers: &[(&str, &[u8])],
    ) -> OutgoingRecord {
        OutgoingRecord {
            topic: self.letters.clone(),
            partition: Some(0),
            key: Some(key.to_owned().into()),
            value: Some(format!("{{\"number\":{number}}}").into()),
            headers: headers
                .iter()
                .map(|(name, value)| (name.as_bytes(), Some(*value)))
                .collect(),
            timestamp_ms: None,
        }
    }

    /// Waits until a group has settled everything of the source topic.
    pub(crate) async fn settled_by(&self, group: &str) {
        let lag = ["groups", "lag", group, "-o", "jsonl"];
        eventually("the group has settled everything", PATIENCE, || async {
            let rows = self.run(&lag).await.rows();
            let mut own = rows.iter().filter(|row| row["topic"] == self.source);
            let first = own.next()?;
            (first["lag"] == 0 && own.all(|row| row["lag"] == 0)).then_some(())
        })
        .await;
    }

    /// Publishes records, and returns when all are acknowledged.
    pub(crate) async fn publish(&self, records: impl IntoIterator<Item = OutgoingRecord>) {
        let settings = PublisherSettings::new("/test");
        let publisher = Publisher::new(&self.kafka.config(), settings)
            .expect("the settings of the publisher are valid");
        let mut pending = Vec::new();
        for record in records {
            pending.push(
                publisher
                    .enqueue_record(record)
                    .await
                    .expect("the buffer takes the record"),
            );
        }
        for receipt in pending {
            receipt.await.expect("the brokers acknowledge the record");
        }
    }

    /// Dead letters of `keys` keys in turn, over all partitions of their topic, each key on one.
    pub(crate) async fn publish_letters(&self, count: usize, keys: usize, partitions: usize) {
        let letter = |number: usize| {
            let key = number % keys;
            let mut letter = self.letter(&format!("k{key}"), number, "transient", "timed out");
            let partition = key % partitions;
            letter.partition = Some(partition as i32);
            letter.headers.push(
                "__dlq.errors.partition",
                Some(partition.to_string().as_bytes()),
            );
            letter
        };
        self.publish((0..count).map(letter)).await;
    }

    /// The dead letters as `dlq list` groups them.
    pub(crate) async fn listed(&self) -> Vec<serde_json::Value> {
        let list = ["dlq", "list", &self.letters, "-o", "jsonl"];
        self.run(&list).await.code(0).rows()
    }

    /// Replays all dead letters.
    pub(crate) async fn replay(&self) -> Finished {
        let replay = ["dlq", "replay", &self.letters, "--execute"];
        self.run(&replay).await.code(0)
    }

    /// Runs a command to the end.
    pub(crate) async fn run(&self, args: &[&str]) -> Finished {
        run_on(self.kafka, args, "").await
    }

    /// Starts to replay the dead letters.
    pub(crate) fn start_replay(&self, more: &[&str]) -> ChildProcess {
        let mut command = command(&["dlq", "replay", &self.letters, "--execute"]);
        command
            .args(more)
            .env("KAFKA_BOOTSTRAP_SERVERS", self.kafka.brokers());
        start(command)
    }

    /// Everything that a topic holds.
    pub(crate) async fn read(&self, topic: &str) -> Vec<LogRecord> {
        read_topic(&self.kafka.config(), topic, WITHIN).await
    }

    /// Waits until that many records were replayed.
    pub(crate) async fn reach(&self, records: usize) {
        eventually(&format!("{records} records went back"), WITHIN, || async {
            (self.read(&self.source).await.len() >= records).then_some(())
        })
        .await;
    }

    /// Asserts that each of `count` records was replayed once, and those of each key in their order.
    #[track_caller]
    pub(crate) fn assert_once_and_in_order(records: &[LogRecord], count: usize, keys: usize) {
        let mut seen: Vec<usize> = records.iter().map(number_of).collect();
        for key in 0..keys {
            let of_key = seen.iter().filter(|number| *number % keys == key);
            assert!(of_key.is_sorted(), "key {key}: {seen:?}");
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..count).collect::<Vec<_>>());
    }
}

/// The number in a record's value.
pub(crate) fn number_of(record: &LogRecord) -> usize {
    let value = record.value.as_deref().expect("a value");
    let value: serde_json::Value = serde_json::from_slice(value).expect("the bytes are JSON");
    usize::try_from(value["number"].as_u64().expect("a number")).expect("a small one")
}

/// A header's value as text.
pub(crate) fn header(headers: &Headers, name: &str) -> Option<String> {
    let value = headers.last(name)?;
    Some(String::from_utf8_lossy(value).into_owned())
}
