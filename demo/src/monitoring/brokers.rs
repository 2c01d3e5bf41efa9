//! Requests for the groups' positions, by long-lived clients. Each is one request to each broker
//! for all partitions.
//!
//! They are plain clients, one for each group, that join no group and commit nothing. The end of a
//! run depends on these numbers, so they do not come from the library under audit.

use crate::cluster::Offsets;
use crate::shop::services::{SERVICES, is_read_by};
use anyhow::Context;
use evenkeel::kafka::KafkaConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::time::Duration;

/// Time limit of a request. It is longer than a broker that works needs on a busy machine.
const WITHIN: Duration = Duration::from_secs(10);

/// The clients, by service. All methods block, and may run at the same time.
pub(crate) struct Brokers(BTreeMap<&'static str, BaseConsumer>);

impl Brokers {
    /// Makes the clients. They connect with their first request.
    pub(crate) fn new(kafka: &KafkaConfig) -> anyhow::Result<Self> {
        let client = |group: &'static str| {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", &kafka.brokers);
            for (name, value) in &kafka.properties {
                config.set(name, value);
            }
            config
                .set("group.id", group)
                .set("enable.auto.commit", "false")
                .set("log_level", "0");
            let client: BaseConsumer = config.create().context("cannot make a client")?;
            anyhow::Ok((group, client))
        };
        let services = SERVICES.iter().map(|(service, _)| client(service));
        Ok(Self(services.collect::<anyhow::Result<_>>()?))
    }

    /// The partitions that the groups read, with their first offsets.
    pub(crate) fn first_offsets(&self) -> anyhow::Result<Offsets> {
        let metadata = self.any()?.fetch_metadata(None, WITHIN)?;
        let is_read = |topic: &str| SERVICES.iter().any(|(name, _)| is_read_by(name, topic));
        let mut list = TopicPartitionList::new();
        let topics = metadata.topics().iter();
        for topic in topics.filter(|topic| is_read(topic.name())) {
            for partition in topic.partitions() {
                list.add_partition(topic.name(), partition.id());
            }
        }
        self.offsets(list, Offset::Beginning)
    }

    /// The end offsets of these partitions.
    pub(crate) fn end_offsets(&self, partitions: &Offsets) -> anyhow::Result<Offsets> {
        self.offsets(list(partitions.keys()), Offset::End)
    }

    /// The committed offsets of a service for those of the partitions that it reads. Partitions
    /// without a commit are left out.
    pub(crate) fn committed(&self, service: &str, partitions: &Offsets) -> anyhow::Result<Offsets> {
        let client = self.0.get(service).context("it is no service")?;
        let own = list(
            partitions
                .keys()
                .filter(|(topic, _)| is_read_by(service, topic)),
        );
        let mut committed = Offsets::new();
        for element in client.committed_offsets(own, WITHIN)?.elements() {
            element.error()?;
            if let Offset::Offset(offset) = element.offset() {
                let place = (element.topic().to_owned(), element.partition());
                committed.insert(place, offset);
            }
        }
        Ok(committed)
    }

    fn offsets(&self, mut list: TopicPartitionList, at: Offset) -> anyhow::Result<Offsets> {
        let mut offsets = Offsets::new();
        // The client rejects an empty list.
        if list.count() == 0 {
            return Ok(offsets);
        }
        list.set_all_offsets(at)?;
        for element in self.any()?.offsets_for_times(list, WITHIN)?.elements() {
            element.error()?;
            let place = (element.topic().to_owned(), element.partition());
            offsets.insert(place, element.offset().to_raw().unwrap_or_default().max(0));
        }
        Ok(offsets)
    }

    /// The client of any group, for requests that concern none.
    fn any(&self) -> anyhow::Result<&BaseConsumer> {
        self.0.values().next().context("the shop has no service")
    }
}

fn list<'a>(partitions: impl Iterator<Item = &'a (String, i32)>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (topic, partition) in partitions {
        list.add_partition(topic, *partition);
    }
    list
}
