//! The shop's topics and groups on the brokers: made ready, and the last topic read.

use super::services::SERVICES;
use crate::measure::run::raw_config;
use crate::spec::Spec;
use anyhow::{Context, bail};
use evenkeel::event::EventType;
use evenkeel::kafka::admin::{Admin, NewTopic};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};
use shop_schemas::ShipmentDispatched;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Time limit of a request, and for new topics to have leaders.
const WITHIN: Duration = Duration::from_secs(30);
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// How long a stopped reader takes at most to notice it.
const POLL_MAX: Duration = Duration::from_millis(100);

/// Creates the declared topics. Existing ones are used unchanged.
///
/// # Errors
/// If a group of the shop has members: they would take a part of the orders.
pub(super) async fn prepare(spec: &Spec) -> anyhow::Result<()> {
    let admin = Admin::connect(&spec.kafka()?, WITHIN).await?;
    for service in &SERVICES {
        let group = admin.describe_group(service.name).await?;
        let members = group.map_or(0, |group| group.members.len());
        if members > 0 {
            bail!(
                "the group {} already has {members} members: stop them, or use another Kafka",
                service.name
            );
        }
    }
    let declared = shop_schemas::topics().iter().map(|topic| {
        NewTopic::new(topic.name.clone())
            .with_partitions(topic.partitions)
            .with_setting("retention.ms", topic.retention_ms.to_string())
    });
    let topics: Vec<NewTopic> = declared.collect();
    admin.create_topics(&topics).await?;
    for topic in &topics {
        wait_for_leaders(&admin, &topic.name).await?;
    }
    Ok(())
}

/// Brokers report a topic as created before its partitions have leaders.
async fn wait_for_leaders(admin: &Admin, topic: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + WITHIN;
    loop {
        let described = admin.describe_topic(topic).await;
        let has_leaders = match &described {
            Ok(topic) => topic.partitions.iter().all(|p| p.leader >= 0),
            Err(_) => false,
        };
        if has_leaders {
            return Ok(());
        }
        if Instant::now() > deadline {
            described.with_context(|| format!("cannot describe {topic}"))?;
            bail!("{topic} has partitions without a leader");
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

/// Reads the last event of each order, from now on. Dropping it ends the reader.
pub(super) struct Dispatches {
    stop: DropGuard,
    reading: JoinHandle<anyhow::Result<()>>,
}

impl Dispatches {
    /// Calls `arrived` with the key of each event as soon as it comes.
    pub(super) async fn read(
        spec: &Spec,
        arrived: impl Fn(&[u8]) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let admin = Admin::connect(&spec.kafka()?, WITHIN).await?;
        let topic = admin.describe_topic(ShipmentDispatched::TOPIC).await?;
        let mut ends = TopicPartitionList::new();
        for partition in &topic.partitions {
            let end = Offset::Offset(partition.high);
            ends.add_partition_offset(&topic.name, partition.partition, end)?;
        }
        let consumer: BaseConsumer = raw_config(spec).create()?;
        consumer.assign(&ends)?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let reading = tokio::task::spawn_blocking(move || {
            while !stopped.is_cancelled() {
                if let Some(record) = consumer.poll(POLL_MAX) {
                    arrived(record?.key().unwrap_or_default());
                }
            }
            anyhow::Ok(())
        });
        Ok(Self {
            stop: stop.drop_guard(),
            reading,
        })
    }

    /// Ends the reader.
    ///
    /// # Errors
    /// If it could not read.
    pub(super) async fn end(self) -> anyhow::Result<()> {
        drop(self.stop);
        self.reading.await?
    }
}
