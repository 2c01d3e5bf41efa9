//! Dead letters grouped by cause: number, failure and time range.
//!
//! A topic may hold millions of dead letters and has few causes: the message without its numbers
//! and ids ([`error_fingerprint`]), with topic, family, class and stage. Replayed dead letters are
//! counted apart, so that a cause whose dead letters were all replayed shows as done.

use super::record::read;
use super::select::Filter;
use super::{DeadLetterError, DeadLetterRecord, End, replay_log};
use crate::{Cluster, blocking};
use evenkeel::kafka::admin::Admin;
use evenkeel::recovery::{Family, ReplayLog, error_fingerprint};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use tokio_util::sync::CancellationToken;

/// The attributes that dead letters of one cause share. Two causes of one service may look alike
/// without their numbers and ids: the grouping is for people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[non_exhaustive]
pub struct Cause {
    /// Name of the dead-letter topic.
    pub topic: String,
    /// The framework that wrote the dead letters. `None` if unknown.
    pub family: Option<Family>,
    /// Class of the failure.
    pub class: Option<String>,
    /// Stage of the failure.
    pub stage: Option<String>,
    /// Message of the failure, without its numbers and ids.
    pub message: String,
}

/// The dead letters of one cause. Its serialised form is stable.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct CauseGroup {
    /// The shared cause.
    #[serde(flatten)]
    pub cause: Cause,
    /// Number of dead letters.
    pub count: u64,
    /// Number of them that were replayed.
    pub replayed: u64,
    /// Time of the first failure.
    pub first: Option<Timestamp>,
    /// Time of the latest failure.
    pub last: Option<Timestamp>,
    /// Position of the latest dead letter.
    pub example: String,
}

/// The dead letters of topics, grouped by cause.
#[derive(Debug)]
#[non_exhaustive]
pub struct Causes {
    /// Groups by topic. Within a topic, the largest group comes first.
    pub groups: Vec<CauseGroup>,
    /// For each topic, the number of records without failure headers. They are no dead letters.
    pub others: BTreeMap<String, u64>,
}

impl Causes {
    /// The number of dead letters that were not replayed.
    pub fn not_replayed(&self) -> u64 {
        let groups = self.groups.iter();
        groups.map(|group| group.count - group.replayed).sum()
    }
}

/// Groups the dead letters of `topics` that `filter` admits. Returns `None` if `stop` is cancelled
/// first. Reads the topics whole, on a blocking thread, and keeps only the groups in memory.
///
/// # Errors
/// If a request to the cluster fails.
pub async fn causes(
    cluster: &Cluster,
    admin: &Admin,
    topics: Vec<String>,
    filter: Filter,
    stop: &CancellationToken,
) -> Result<Option<Causes>, DeadLetterError> {
    let replays = replay_log::read_all(cluster, admin, &topics).await?;
    let (cluster, stop) = (cluster.clone(), stop.clone());
    let group = move || {
        let mut groups = Groups::default();
        let mut others = BTreeMap::<String, u64>::new();
        let end = read(&cluster, &topics, &stop, |record| {
            let dead_letter = DeadLetterRecord::new(record);
            if dead_letter.failure.family.is_none() {
                let topic = dead_letter.record.topic.to_string();
                *others.entry(topic).or_default() += 1;
            } else if filter.admits(&dead_letter) {
                groups.add(&dead_letter, &replays);
            }
            Ok::<bool, DeadLetterError>(true)
        })?;
        Ok((end != End::Stopped).then(|| Causes {
            groups: groups.sorted(),
            others,
        }))
    };
    blocking::run(group).await
}

/// The groups while the topics are read.
#[derive(Default)]
struct Groups(BTreeMap<Cause, CauseGroup>);

impl Groups {
    /// Adds a dead letter to the group of its cause. The example of a group is its latest dead
    /// letter, whose original the topic most probably still has.
    fn add(&mut self, dead_letter: &DeadLetterRecord, replays: &BTreeMap<String, ReplayLog>) {
        let failure = &dead_letter.failure;
        let position = dead_letter.position();
        let cause = Cause {
            topic: position.topic.clone(),
            family: failure.family,
            class: failure.class.clone(),
            stage: failure.stage.clone(),
            message: error_fingerprint(failure.message.as_deref().unwrap_or_default()),
        };
        let replayed = replays.get(&position.topic).is_some_and(|replays| {
            let written_ms = dead_letter.record.timestamp_ms;
            replays.contains(position.partition, position.offset, written_ms)
        });
        let time = dead_letter.time();
        let group = self.0.entry(cause.clone()).or_insert_with(|| CauseGroup {
            cause,
            count: 0,
            replayed: 0,
            first: None,
            last: None,
            example: String::new(),
        });
        group.count += 1;
        group.replayed += u64::from(replayed);
        group.first = group.first.into_iter().chain(time).min();
        if group.example.is_empty() || time >= group.last {
            group.example = position.to_string();
        }
        group.last = group.last.into_iter().chain(time).max();
    }

    /// Groups by topic. Within a topic, the largest group comes first.
    fn sorted(self) -> Vec<CauseGroup> {
        let mut groups: Vec<CauseGroup> = self.0.into_values().collect();
        groups.sort_by(|one, other| {
            let topics = one.cause.topic.cmp(&other.cause.topic);
            topics.then(other.count.cmp(&one.count))
        });
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel::event::Headers;
    use evenkeel::kafka::reader::{LogRecord, TimestampKind};

    fn dead_letter(offset: i64, message: &str, time: &str) -> DeadLetterRecord {
        let mut headers = Headers::new();
        headers.push("__dlq.errors.message", Some(message.as_bytes()));
        headers.push("evenkeel.dlq.error.timestamp", Some(time.as_bytes()));
        DeadLetterRecord::new(LogRecord {
            topic: "dlq.g.t".into(),
            partition: 0,
            offset,
            timestamp_kind: TimestampKind::Absent,
            timestamp_ms: None,
            key: None,
            value: None,
            headers,
        })
    }

    #[test]
    fn similar_messages_are_one_group_with_times_and_example() {
        let mut groups = Groups::default();
        let times = [
            "2026-01-02T00:00:00Z",
            "2026-01-03T00:00:00Z",
            "2026-01-01T00:00:00Z",
        ];
        groups.add(&dead_letter(9, "no stock", times[0]), &BTreeMap::new());
        for (offset, time) in times.iter().enumerate() {
            let message = format!("card {offset} refused");
            groups.add(
                &dead_letter(offset as i64, &message, time),
                &BTreeMap::new(),
            );
        }
        let groups = groups.sorted();
        let seen: Vec<(&str, u64, &str)> = groups
            .iter()
            .map(|group| {
                (
                    group.cause.message.as_str(),
                    group.count,
                    group.example.as_str(),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("card <n> refused", 3, "dlq.g.t/0@1"),
                ("no stock", 1, "dlq.g.t/0@9")
            ]
        );
        assert_eq!(groups[0].first, times[2].parse().ok());
        assert_eq!(groups[0].last, times[1].parse().ok());
    }
}
