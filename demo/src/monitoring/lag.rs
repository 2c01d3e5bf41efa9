//! The lag of every group, read from the brokers once per second, with long-lived clients and one
//! request for all partitions.
//!
//! The library's lag creates a client for each call and also reads the ages of records. On a
//! machine that is busy with eight daemons, one call for five groups took longer than a minute.

use crate::shop::services::SERVICES;
use anyhow::Context;
use evenkeel::kafka::KafkaConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Time limit of a request to the brokers.
const WITHIN: Duration = Duration::from_secs(10);

/// The clients, by service.
#[derive(Clone)]
pub(crate) struct Lags(Arc<Vec<(&'static str, BaseConsumer)>>);

/// The positions of the groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Positions {
    /// By service, the number of records that it has not settled, parked or not.
    pub(crate) lag: BTreeMap<&'static str, i64>,
    /// Number of records that all groups have settled.
    pub(crate) settled: i64,
    /// Sum of the end offsets of the topics that the groups read.
    pub(crate) end: i64,
}

impl Lags {
    pub(crate) fn new(kafka: &KafkaConfig) -> anyhow::Result<Self> {
        let client = |group: &'static str| {
            let mut config = ClientConfig::new();
            config
                .set("bootstrap.servers", &kafka.brokers)
                .set("group.id", group)
                .set("enable.auto.commit", "false")
                .set("log_level", "0");
            let client = config.create().context("cannot make a client")?;
            Ok((group, client))
        };
        let clients: anyhow::Result<Vec<_>> = SERVICES
            .iter()
            .map(|(service, _)| client(service))
            .collect();
        Ok(Self(Arc::new(clients?)))
    }

    /// Reads the positions. Blocks.
    pub(crate) fn look(&self) -> anyhow::Result<Positions> {
        let Some((_, any)) = self.0.first() else {
            return Ok(Positions::default());
        };
        let metadata = any.fetch_metadata(None, WITHIN)?;
        let topics: BTreeMap<&str, usize> = metadata
            .topics()
            .iter()
            .map(|topic| (topic.name(), topic.partitions().len()))
            .collect();
        let list = |is_read: &dyn Fn(&str) -> bool| {
            let mut list = TopicPartitionList::new();
            for (topic, partitions) in topics.iter().filter(|(topic, _)| is_read(topic)) {
                for partition in 0..*partitions {
                    list.add_partition(topic, i32::try_from(partition).unwrap_or(i32::MAX));
                }
            }
            list
        };
        // Read before the end offsets, so that no group is ahead of its topic's end.
        let mut committed = Vec::new();
        for (service, client) in self.0.iter() {
            let own = list(&|topic| reads(service, topic) || waits(service, topic));
            let offsets = client.committed_offsets(own, WITHIN)?;
            committed.push((*service, offsets));
        }
        let any_reads = |topic: &str| {
            let mut services = SERVICES.iter().map(|(service, _)| service);
            services.any(|service| reads(service, topic) || waits(service, topic))
        };
        let all = list(&any_reads);
        let [begin, end] = [Offset::Beginning, Offset::End].map(|at| offsets(any, all.clone(), at));
        let (begin, end) = (begin?, end?);
        let mut positions = Positions::default();
        for (service, offsets) in committed {
            let mut lag = 0;
            for element in offsets.elements() {
                let place = (element.topic().to_owned(), element.partition());
                let (from, to) = (begin.get(&place).copied(), end.get(&place).copied());
                let (from, to) = (from.unwrap_or_default(), to.unwrap_or_default());
                let next = match element.offset() {
                    Offset::Offset(offset) => offset.clamp(from, to.max(from)),
                    _ => from,
                };
                lag += to - next;
                positions.settled += next;
            }
            positions.lag.insert(service, lag);
        }
        let is_source = |(topic, _): &&(String, i32)| !topic.starts_with("retry.");
        positions.end = end
            .iter()
            .filter(|(place, _)| is_source(place))
            .map(|(_, end)| end)
            .sum();
        Ok(positions)
    }
}

/// Whether a service reads a topic.
fn reads(service: &str, topic: &str) -> bool {
    let mut services = SERVICES.iter().filter(|(name, _)| *name == service);
    services.any(|(_, subscriptions)| subscriptions.iter().any(|(name, _)| *name == topic))
}

/// Whether a topic is a retry topic of a service.
fn waits(service: &str, topic: &str) -> bool {
    let rest = topic.strip_prefix("retry.");
    let rest = rest.and_then(|rest| rest.strip_prefix(service));
    rest.is_some_and(|rest| rest.starts_with('.'))
}

fn offsets(
    client: &BaseConsumer,
    mut list: TopicPartitionList,
    at: Offset,
) -> anyhow::Result<BTreeMap<(String, i32), i64>> {
    list.set_all_offsets(at)?;
    let mut offsets = BTreeMap::new();
    for element in client.offsets_for_times(list, WITHIN)?.elements() {
        element.error()?;
        let place = (element.topic().to_owned(), element.partition());
        offsets.insert(place, element.offset().to_raw().unwrap_or_default().max(0));
    }
    Ok(offsets)
}
