//! The Kafka of a measurement, and its data, which is prepared once.

use crate::measure::result_check::{key, value};
use crate::order_event::{OrderEvent, SOURCE};
use crate::spec::{Data, Form};
use anyhow::{Context, anyhow, bail};
use evenkeel::event::derived_id;
use evenkeel::kafka::KafkaConfig;
use evenkeel::kafka::admin::{Admin, NewTopic};
use evenkeel::testing::{KafkaKind, TestKafka};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::DefaultProducerContext;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(15);
/// Time limit for the brokers to acknowledge the rest of the data.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(120);
/// Memory for records that are not yet sent: 100,000 large ones, librdkafka's limit, would take
/// gigabytes.
const BUFFER_KIB: &str = "65536";

/// The Kafka of a measurement. A started one ends when the value is dropped.
pub(crate) struct Cluster {
    pub(crate) config: KafkaConfig,
    pub(crate) description: String,
    _started: Option<TestKafka>,
}

impl Cluster {
    /// Uses the Kafka at `brokers`, or finds or starts one. Rejects the mock cluster: it lives in
    /// the measured process and keeps 5 MiB per partition.
    pub(crate) async fn get(brokers: Option<&str>) -> anyhow::Result<Self> {
        if let Some(brokers) = brokers {
            return Ok(Self {
                config: KafkaConfig::new(brokers),
                description: format!("Kafka at {brokers}"),
                _started: None,
            });
        }
        let kafka = TestKafka::start(KafkaKind::Auto).await?;
        if kafka.kind() == KafkaKind::Mock {
            bail!(
                "no Apache Kafka to measure with: {}; name one with --brokers",
                kafka.description()
            );
        }
        Ok(Self {
            config: kafka.config(),
            description: kafka.description().to_owned(),
            _started: Some(kafka),
        })
    }

    /// Returns the topic with `data`. Writes the data unless an earlier measurement has.
    pub(crate) async fn prepare(&self, data: Data) -> anyhow::Result<String> {
        let Data {
            records,
            size,
            partitions,
            keys,
            form,
        } = data;
        let form = match form {
            Form::Plain => "plain",
            Form::Event => "events",
            Form::Derived => "derived",
        };
        let topic = format!("evenkeel-bench.{form}.{records}x{size}.{partitions}p.{keys}k");
        if self.create(&topic, partitions).await? {
            eprintln!("writing {records} records of {size} bytes to {topic}");
            let config = self.config.clone();
            let name = topic.clone();
            tokio::task::spawn_blocking(move || write(&config, &name, data)).await??;
        }
        let admin = Admin::connect(&self.config, TIMEOUT).await?;
        let description = admin.describe_topic(&topic).await?;
        let found: i64 = description.partitions.iter().map(|p| p.high - p.low).sum();
        if found.unsigned_abs() != records {
            bail!(
                "{topic} holds {found} records instead of {records}: delete it, it is written again"
            );
        }
        Ok(topic)
    }

    /// Creates a topic without retention limits. Returns false if it exists.
    pub(crate) async fn create(&self, topic: &str, partitions: i32) -> anyhow::Result<bool> {
        let admin = Admin::connect(&self.config, TIMEOUT).await?;
        let new = NewTopic::new(topic)
            .with_partitions(partitions)
            .with_setting("retention.ms", "-1");
        let (created, _) = admin.create_topics(&[new]).await?;
        Ok(!created.is_empty())
    }

    /// Deletes a topic to which a contestant wrote.
    pub(crate) async fn delete(&self, topic: &str) -> anyhow::Result<()> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.config.brokers);
        let admin: AdminClient<DefaultClientContext> = config.create()?;
        let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
        for deleted in admin.delete_topics(&[topic], &options).await? {
            deleted.map_err(|(topic, error)| anyhow!("cannot delete {topic}: {error}"))?;
        }
        Ok(())
    }
}

/// Writes the data to an empty topic. Returns when the brokers acknowledged all of it.
pub(crate) fn write(kafka: &KafkaConfig, topic: &str, data: Data) -> anyhow::Result<()> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &kafka.brokers);
    for (name, value) in &kafka.properties {
        config.set(name, value);
    }
    config
        .set("enable.idempotence", "true")
        .set("linger.ms", "20")
        .set("queue.buffering.max.kbytes", BUFFER_KIB);
    let producer: ThreadedProducer<DefaultProducerContext> = config.create()?;
    for number in 0..data.records {
        let (place, within) = (number / data.keys as u64, number % data.keys as u64);
        let key_number = mixed(within as usize, data.keys);
        let key = key(key_number);
        let (value, headers) = match data.form {
            Form::Plain => (value(place, data.size).into_bytes(), None),
            Form::Event => {
                let (value, headers) = OrderEvent::new(key_number, place, data.size).encoded()?;
                (value, Some(headers))
            }
            Form::Derived => {
                let id = derived_id(SOURCE, &number.to_string(), "bench", 0);
                let sample = OrderEvent::new(key_number, place, data.size);
                let (value, headers) = sample.encoded_with_id(id)?;
                (value, Some(headers))
            }
        };
        let mut record = BaseRecord::to(topic)
            .partition((key_number % data.partitions as usize) as i32)
            .key(&key)
            .payload(&value);
        if let Some(headers) = headers {
            record = record.headers(headers);
        }
        while let Err((error, refused)) = producer.send(record) {
            let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
            if error != full {
                return Err(error).context("cannot write the data");
            }
            // A single thread sends, so waiting for room cannot change the order.
            std::thread::sleep(Duration::from_millis(5));
            record = refused;
        }
    }
    producer
        .flush(FLUSH_TIMEOUT)
        .context("the data was not acknowledged")
}

/// A permutation of the keys, so that neighbouring records have unrelated keys.
fn mixed(number: usize, keys: usize) -> usize {
    let stride = (keys / 2..)
        .find(|stride| gcd(*stride, keys) == 1)
        .unwrap_or(1);
    number * stride % keys
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn mixed_keys_are_all_keys() {
        for keys in [1, 2, 3, 10, 97, 10_000] {
            let all: BTreeSet<usize> = (0..keys).map(|number| mixed(number, keys)).collect();
            assert_eq!(all, (0..keys).collect(), "{keys}");
        }
    }
}
