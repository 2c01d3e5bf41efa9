//! The Kafka that is measured against, and the data on it, prepared once.

use crate::check::{key, value};
use anyhow::{Context, bail};
use evenkeel::kafka::KafkaConfig;
use evenkeel::kafka::admin::{Admin, NewTopic};
use evenkeel::testing::{KafkaKind, TestKafka};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::DefaultProducerContext;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(15);
/// How long the brokers may take to acknowledge what is left of the data.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(120);

/// The Kafka of a measurement; what was started for it ends when this is dropped.
pub(crate) struct Cluster {
    pub(crate) config: KafkaConfig,
    pub(crate) description: String,
    _started: Option<TestKafka>,
}

/// The data of a topic: `records` records, each key's share in order, keys mixed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Data {
    pub(crate) records: u64,
    pub(crate) size: usize,
    pub(crate) partitions: i32,
    pub(crate) keys: usize,
}

impl Cluster {
    /// Takes the Kafka at `brokers`, or finds or starts one. The mock cluster does not do: it lives in the process that is
    /// measured and keeps 5 MiB a partition.
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
                "a measurement needs Apache Kafka, and there is none: {}",
                kafka.description()
            );
        }
        Ok(Self {
            config: kafka.config(),
            description: kafka.description().to_owned(),
            _started: Some(kafka),
        })
    }

    /// Returns the topic that holds `data`; writes it unless an earlier measurement has.
    pub(crate) async fn prepare(&self, data: Data) -> anyhow::Result<String> {
        let Data {
            records,
            size,
            partitions,
            keys,
        } = data;
        let topic = format!("evenkeel-bench.{records}x{size}.{partitions}p.{keys}k");
        let admin = Admin::connect(&self.config, TIMEOUT).await?;
        let new = NewTopic {
            name: topic.clone(),
            partitions,
            replication: -1,
            config: [("retention.ms".to_owned(), "-1".to_owned())].into(),
        };
        let (created, _) = admin.create_topics(&[new]).await?;
        if !created.is_empty() {
            let config = self.config.clone();
            let name = topic.clone();
            tokio::task::spawn_blocking(move || write(&config, &name, data)).await??;
        }
        let description = admin.describe_topic(&topic).await?;
        let found: i64 = description.partitions.iter().map(|p| p.high - p.low).sum();
        if found.unsigned_abs() != records {
            bail!(
                "{topic} holds {found} records instead of {records}: delete it, it is written again"
            );
        }
        Ok(topic)
    }
}

fn write(kafka: &KafkaConfig, topic: &str, data: Data) -> anyhow::Result<()> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &kafka.brokers);
    for (name, value) in &kafka.properties {
        config.set(name, value);
    }
    config
        .set("enable.idempotence", "true")
        .set("linger.ms", "20");
    let producer: ThreadedProducer<DefaultProducerContext> = config.create()?;
    for number in 0..data.records {
        let (place, within) = (number / data.keys as u64, number % data.keys as u64);
        let key_number = mixed(within as usize, data.keys);
        let (key, value) = (key(key_number), value(place, data.size));
        let mut record = BaseRecord::to(topic)
            .partition((key_number % data.partitions as usize) as i32)
            .key(&key)
            .payload(&value);
        while let Err((error, refused)) = producer.send(record) {
            let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
            if error != full {
                return Err(error).context("cannot write the data");
            }
            // One thread sends, so waiting for room cannot change the order.
            std::thread::sleep(Duration::from_millis(5));
            record = refused;
        }
    }
    producer
        .flush(FLUSH_TIMEOUT)
        .context("the data was not acknowledged")
}

/// A permutation of the keys, so that neighbours on the log have little to do with each other.
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
