//! Requests for the groups' positions, by long-lived clients. Each is one request to each broker
//! for all of its partitions.
//!
//! They are plain clients that join no group and commit nothing. One requests topics and their
//! offsets, and one for each group requests its commits, so that no group waits for another. The
//! end of a run depends on these numbers, so they do not come from the library under audit.
//!
//! A request for the offsets of several partitions is as slow as the slowest of them: the client
//! first waits until it knows the leaders of all topics, for as long as the request may take. If a
//! leader rejects one partition, as it does just after the topic was created, the whole request
//! fails, and the client forgets the topic's leaders: the next request waits for them again.
//! [`log_requests`](super::log_requests) decides which partitions share a request.

use crate::shop::services::{SERVICES, is_read_by};
use anyhow::Context;
use evenkeel::kafka::KafkaConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Time limit of a request. A request that waits for a leader or a coordinator ends in time for the
/// next one to have fresh numbers. It is longer than a broker that works needs on a busy machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// A partition: its topic and its number.
pub(super) type Place = (String, i32);

/// What is known of each partition of a request, or why it was refused. Partitions without an
/// answer are left out.
pub(super) type Answers<T> = BTreeMap<Place, KafkaResult<T>>;

/// The offsets of a partition that has records from `first` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogBounds {
    pub(super) first: i64,
    /// The offset after the last record.
    pub(super) end: i64,
}

/// The clients. All methods block for at most [`ANSWER_WITHIN`], and may run at the same time.
pub(super) struct Brokers {
    topics: BaseConsumer,
    /// By service.
    groups: BTreeMap<&'static str, BaseConsumer>,
}

impl Brokers {
    /// Makes the clients. They connect with their first request.
    pub(super) fn new(kafka: &KafkaConfig) -> anyhow::Result<Self> {
        let client = |group: &str| -> anyhow::Result<BaseConsumer> {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", &kafka.brokers);
            for (name, value) in &kafka.properties {
                config.set(name, value);
            }
            config
                .set("group.id", group)
                .set("enable.auto.commit", "false")
                .set("log_level", "0");
            config.create().context("cannot make a client")
        };
        let groups = SERVICES.iter();
        let groups = groups.map(|(service, _)| anyhow::Ok((*service, client(service)?)));
        Ok(Self {
            // It makes no use of its group.
            topics: client("shop-demo-monitoring")?,
            groups: groups.collect::<anyhow::Result<_>>()?,
        })
    }

    /// The partitions that the groups read. The client of the topics also learns their leaders
    /// again, which it does not by itself for a partition that had none.
    pub(super) fn partitions(&self) -> anyhow::Result<BTreeSet<Place>> {
        let metadata = self.topics.fetch_metadata(None, ANSWER_WITHIN)?;
        let is_read = |topic: &str| SERVICES.iter().any(|(name, _)| is_read_by(name, topic));
        let mut places = BTreeSet::new();
        let topics = metadata.topics().iter();
        for topic in topics.filter(|topic| is_read(topic.name())) {
            let numbers = topic.partitions().iter().map(|partition| partition.id());
            places.extend(numbers.map(|number| (topic.name().to_owned(), number)));
        }
        Ok(places)
    }

    /// The first and the end offsets of these partitions.
    ///
    /// # Errors
    /// If one of the leaders rejects a partition or does not answer.
    pub(super) fn log_bounds(&self, places: &[Place]) -> anyhow::Result<Answers<LogBounds>> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        let firsts = self.offsets(places, Offset::Beginning, deadline)?;
        let mut ends = self.offsets(places, Offset::End, deadline)?;
        let bounds = firsts.into_iter().filter_map(|(place, first)| {
            let end = ends.remove(&place)?;
            let bounds = first.and_then(|first| end.map(|end| LogBounds { first, end }));
            Some((place, bounds))
        });
        Ok(bounds.collect())
    }

    /// The committed offsets of a service for those of the partitions that it reads. `None` for a
    /// partition without a commit.
    ///
    /// # Errors
    /// If the group's coordinator does not answer.
    pub(super) fn committed(
        &self,
        service: &str,
        places: &BTreeSet<Place>,
    ) -> anyhow::Result<Answers<Option<i64>>> {
        let client = self.groups.get(service).context("it is no service")?;
        let own = places
            .iter()
            .filter(|(topic, _)| is_read_by(service, topic));
        let answered = client.committed_offsets(list(own), ANSWER_WITHIN)?;
        Ok(answers(&answered, |offset| Some(number(offset))))
    }

    fn offsets(
        &self,
        places: &[Place],
        at: Offset,
        deadline: Instant,
    ) -> anyhow::Result<Answers<i64>> {
        let mut list = list(places.iter());
        list.set_all_offsets(at)?;
        let within = deadline.saturating_duration_since(Instant::now());
        let answered = self.topics.offsets_for_times(list, within)?;
        Ok(answers(&answered, number))
    }
}

/// The reason for a failed request. `None` for one that had no answer in time: it is only late, as
/// the age of its numbers shows, and it is sent again.
pub(super) fn fault(error: &anyhow::Error) -> Option<String> {
    let client = error.downcast_ref::<KafkaError>();
    let is_late = matches!(
        client.and_then(KafkaError::rdkafka_error_code),
        Some(RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::TimedOutQueue)
    );
    (!is_late).then(|| format!("{error:#}"))
}

fn list<'a>(places: impl Iterator<Item = &'a Place>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (topic, partition) in places {
        list.add_partition(topic, *partition);
    }
    list
}

/// The offset of an answer. `None` for a symbolic one.
fn number(offset: Offset) -> Option<i64> {
    match offset {
        Offset::Offset(number) => Some(number),
        _ => None,
    }
}

/// The answers by partition. Partitions for which `value` is `None` are left out.
fn answers<T>(list: &TopicPartitionList, value: impl Fn(Offset) -> Option<T>) -> Answers<T> {
    let elements = list.elements();
    let answer = elements.iter().filter_map(|element| {
        let place = (element.topic().to_owned(), element.partition());
        let answer = match element.error() {
            Ok(()) => Ok(value(element.offset())?),
            Err(error) => Err(error),
        };
        Some((place, answer))
    });
    answer.collect()
}
