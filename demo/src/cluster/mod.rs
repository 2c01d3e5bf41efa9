//! The Kafka of the run (started, found or named), its topics, and their end offsets at the start
//! of the run.
//!
//! [`broker`]: the broker under chaos.

pub(crate) mod broker;

use crate::args::Args;
use crate::shop::services::SERVICES;
use anyhow::{Context, bail};
use evenkeel::kafka::KafkaConfig;
use evenkeel::kafka::admin::{Admin, NewTopic};
use evenkeel::testing::{KafkaKind, TestKafka};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Time limit of an admin request.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Offsets by topic and partition.
pub(crate) type Offsets = BTreeMap<(String, i32), i64>;

/// The Kafka of the run. A started one ends when the value is dropped.
pub(crate) struct Cluster {
    pub(crate) config: KafkaConfig,
    /// The kind of Kafka and the reason for the choice, in one line.
    pub(crate) description: String,
    pub(crate) admin: Admin,
    started: Option<TestKafka>,
}

impl Cluster {
    /// Connects to the brokers that `args` names, or finds or starts a Kafka.
    pub(crate) async fn get(args: &Args) -> anyhow::Result<Self> {
        let (config, description, started) = match &args.brokers {
            Some(brokers) => {
                let description = format!("Kafka at {brokers} (named by --brokers)");
                (KafkaConfig::new(brokers), description, None)
            }
            None => {
                let kafka = TestKafka::start(args.kafka.into()).await?;
                (kafka.config(), kafka.description().to_owned(), Some(kafka))
            }
        };
        let admin = Admin::connect(&config, TIMEOUT).await?;
        Ok(Self {
            config,
            description,
            admin,
            started,
        })
    }

    /// Creates the declared topics. Existing topics are used unchanged.
    pub(crate) async fn create_topics(&self) -> anyhow::Result<()> {
        if let Some(mock) = self.mock() {
            for topic in shop_schemas::topics() {
                mock.create_topic(&topic.name, topic.partitions).await?;
                // Only the owner of a mock cluster can create topics on it.
                for service in &topic.consumers {
                    for kind in ["dlq", "retry"] {
                        let own = format!("{kind}.{service}.{}", topic.name);
                        mock.create_topic(&own, topic.partitions).await?;
                    }
                }
            }
            return Ok(());
        }
        let topics: Vec<NewTopic> = shop_schemas::topics()
            .iter()
            .map(|topic| {
                NewTopic::new(topic.name.clone())
                    .with_partitions(topic.partitions)
                    .with_setting("retention.ms", topic.retention_ms.to_string())
            })
            .collect();
        self.admin.create_topics(&topics).await?;
        for topic in &topics {
            self.await_leaders(&topic.name).await?;
        }
        Ok(())
    }

    /// Waits until every partition of `topic` answers requests for its offsets: brokers report a
    /// topic as created before it has leaders.
    async fn await_leaders(&self, topic: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let description = self.admin.describe_topic(topic).await;
            let description = match description {
                Ok(topic) if topic.partitions.iter().all(|p| p.leader >= 0) => return Ok(()),
                other => other.map(drop),
            };
            if deadline <= Instant::now() {
                description.with_context(|| format!("cannot describe {topic}"))?;
                bail!("{topic} has partitions without a leader");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Fails if other members of the shop's groups run on the cluster: the audit cannot see the
    /// stores with their effects.
    pub(crate) async fn refuse_strangers(&self) -> anyhow::Result<()> {
        if self.mock().is_some() {
            return Ok(());
        }
        for (service, _) in SERVICES {
            let members = self
                .admin
                .describe_group(service)
                .await?
                .map_or(0, |group| group.members.len());
            if members > 0 {
                bail!(
                    "the group {service} already has {members} members; stop them, or use another \
                     Kafka: the audit needs every store"
                );
            }
        }
        Ok(())
    }

    /// The topics that the audit reads: the declared ones, and the existing dead-letter topics.
    pub(crate) async fn audited_topics(&self) -> anyhow::Result<Vec<String>> {
        let mut topics: Vec<String> = shop_schemas::topics()
            .iter()
            .map(|topic| topic.name.clone())
            .collect();
        let all = self.admin.topics().await?;
        topics.extend(
            all.into_iter()
                .filter(|topic| dead_letters_of(topic).is_some()),
        );
        Ok(topics)
    }

    /// The number of records that wait in the services' retry topics, by service.
    pub(crate) async fn parked(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let existing = self.admin.topics().await?;
        let mut waiting = BTreeMap::new();
        for (service, _) in SERVICES {
            let prefix = format!("retry.{service}.");
            let own = existing.iter().filter(|topic| topic.starts_with(&prefix));
            let topics: Vec<String> = own.cloned().collect();
            let mut records = 0;
            // Without a topic, the lag would be that of all topics.
            if !topics.is_empty() {
                let partitions = self.admin.group_lag(service, &topics).await?;
                records = partitions.iter().map(|partition| partition.lag).sum();
            }
            waiting.insert((*service).to_owned(), records.unsigned_abs());
        }
        Ok(waiting)
    }

    /// The first and the end offsets of `topics`.
    pub(crate) async fn bounds(&self, topics: &[String]) -> anyhow::Result<(Offsets, Offsets)> {
        let (mut low, mut high) = (Offsets::new(), Offsets::new());
        for topic in topics {
            let description = self.admin.describe_topic(topic).await;
            let description = description.with_context(|| format!("cannot describe {topic}"))?;
            for partition in description.partitions {
                let place = (topic.clone(), partition.partition);
                low.insert(place.clone(), partition.low);
                high.insert(place, partition.high);
            }
        }
        Ok((low, high))
    }

    /// The broker, if it can be frozen: the demo started it as a separate process.
    pub(crate) fn freezable(&self) -> Option<&TestKafka> {
        self.started.as_ref().filter(|kafka| kafka.can_freeze())
    }

    fn mock(&self) -> Option<&TestKafka> {
        self.started
            .as_ref()
            .filter(|kafka| kafka.kind() == KafkaKind::Mock)
    }
}

/// The service whose dead letters `topic` contains. `None` for any other topic.
pub(crate) fn dead_letters_of(topic: &str) -> Option<&'static str> {
    let rest = topic.strip_prefix("dlq.")?;
    SERVICES
        .iter()
        .map(|(service, _)| *service)
        .find(|service| {
            rest.strip_prefix(service)
                .is_some_and(|rest| rest.starts_with('.'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_topic_names_its_service() {
        assert_eq!(
            dead_letters_of("dlq.payments.shop.orders"),
            Some("payments")
        );
        assert_eq!(dead_letters_of("dlq.paymentsx.shop.orders"), None);
        assert_eq!(dead_letters_of("dlq.strangers.shop.orders"), None);
        assert_eq!(dead_letters_of("shop.orders"), None);
    }
}
