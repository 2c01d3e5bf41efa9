//! The plan of a replay: the destination of each dead letter, counted before anything is published.
//!
//! The plan keeps counts and end offsets, not records: topics may be large. An execution reads the
//! dead letters again up to the same end offsets and decides the fate of each by the same rules.

use super::history::Histories;
use super::source::{Source, TopicDeadLetters};
use crate::dead_letters::select::Filter;
use crate::dead_letters::{DeadLetterError, DeadLetterRecord, End};
use crate::{Cluster, blocking};
use evenkeel::kafka::RecordPosition;
use evenkeel::kafka::reader::LogRecord;
use evenkeel::kafka::{KafkaError, is_topic_name};
use evenkeel::recovery::{Destination, ReplayLog};
use serde::Serialize;
use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The destination of dead letters.
///
/// ```
/// use evenkeel_ops::dead_letters::replay::Target;
///
/// assert_eq!("retry".parse::<Target>(), Ok(Target::Retry));
/// let topic = Target::Topic("shop.orders".to_owned());
/// assert_eq!("shop.orders".parse::<Target>(), Ok(topic));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Target {
    /// The retry topic of the group that dead-lettered them. If it does not exist, the topic on
    /// which they failed. The default.
    #[default]
    RetryOrSource,
    /// The retry topic of the group that dead-lettered them. No other group receives them, and they
    /// take the places that were held for them.
    Retry,
    /// The topic on which they failed. All its groups receive them; those without an inbox handle
    /// them again.
    Source,
    /// This topic, partitioned by key.
    Topic(String),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "retry-or-source" => Ok(Self::RetryOrSource),
            "retry" => Ok(Self::Retry),
            "source" => Ok(Self::Source),
            topic if is_topic_name(topic) => Ok(Self::Topic(topic.to_owned())),
            other => Err(format!("{other:?} is not a topic name")),
        }
    }
}

/// Selection and destination of a replay.
pub(super) struct ReplaySelection {
    pub(super) filter: Filter,
    pub(super) target: Target,
    /// Whether to include dead letters that were replayed before.
    pub(super) again: bool,
    /// Partition counts of all topics.
    pub(super) partitions: BTreeMap<String, usize>,
}

/// The fate of a dead letter. The plan counts by it, the execution publishes by it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The filter does not admit it.
    Excluded,
    /// It was replayed before.
    ReplayedBefore(Destination),
    /// It has no destination: its headers do not name the topic on which it failed, or there is no
    /// retry topic.
    WithoutDestination,
    /// It is replayed to this destination.
    Replay(Destination),
}

impl ReplaySelection {
    /// The fate of a dead letter, by its headers and the replays so far. Pure, so that plan and
    /// execution agree.
    pub(super) fn fate(&self, dead_letter: &DeadLetterRecord, replays: &ReplayLog) -> Fate {
        if !self.filter.admits(dead_letter) {
            return Fate::Excluded;
        }
        let count = |topic: &str| self.partitions.get(topic).copied().unwrap_or_default();
        let to = match &self.target {
            Target::RetryOrSource => Destination::retry(&dead_letter.failure, count)
                .or_else(|| Destination::source(&dead_letter.failure, count)),
            Target::Retry => Destination::retry(&dead_letter.failure, count),
            Target::Source => Destination::source(&dead_letter.failure, count),
            Target::Topic(topic) => Some(Destination {
                topic: topic.clone(),
                partition: None,
                is_retry: false,
            }),
        };
        let before = {
            let record = &dead_letter.record;
            replays.contains(record.partition, record.offset, record.timestamp_ms)
        };
        match to {
            Some(to) if before && !self.again => Fate::ReplayedBefore(to),
            Some(to) => Fate::Replay(to),
            None => Fate::WithoutDestination,
        }
    }
}

/// The dead letters of one topic for one destination, and their counts. Its serialised form is
/// stable.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Route {
    /// Name of the dead-letter topic.
    pub topic: String,
    /// Name of the destination topic.
    pub to: String,
    /// Number of dead letters to replay.
    #[serde(rename = "letters")]
    pub to_replay: u64,
    /// Number of dead letters that were replayed before and are not replayed again.
    pub replayed_before: u64,
    /// Number of dead letters that were replayed.
    pub replayed: u64,
    /// Number of dead letters that could not be replayed.
    pub failed: u64,
    /// Number of dead letters that were not tried, because an earlier one of their key failed.
    pub held_back: u64,
    /// Whether the replay was executed. False in a dry run.
    pub executed: bool,
}

/// The dead letters of one topic, with their counts by destination.
pub(super) struct Batch {
    pub(super) topic: String,
    pub(super) source: TopicDeadLetters,
    routes: BTreeMap<String, Route>,
}

impl Batch {
    /// The route to a destination.
    pub(super) fn route(&mut self, to: &str) -> &mut Route {
        self.routes.entry(to.to_owned()).or_insert_with(|| Route {
            topic: self.topic.clone(),
            to: to.to_owned(),
            to_replay: 0,
            replayed_before: 0,
            replayed: 0,
            failed: 0,
            held_back: 0,
            executed: false,
        })
    }

    /// The destinations.
    pub(super) fn destinations(&self) -> impl Iterator<Item = &String> {
        self.routes.keys()
    }

    /// Number of dead letters to replay.
    pub(super) fn to_replay(&self) -> u64 {
        self.routes.values().map(|route| route.to_replay).sum()
    }

    /// Reads the dead letters one by one.
    pub(super) fn read(
        &self,
        cluster: &Cluster,
        stop: CancellationToken,
    ) -> mpsc::Receiver<Result<LogRecord, DeadLetterError>> {
        self.source.stream(cluster, &self.topic, stop)
    }
}

/// The plan for all topics.
pub(super) struct Plan {
    pub(super) selection: Arc<ReplaySelection>,
    pub(super) batches: BTreeMap<String, Batch>,
    /// Number of dead letters without a destination, and the position of one of them.
    without_destination: Option<(u64, RecordPosition)>,
}

impl Plan {
    /// Reads all dead letters. `None` if cancelled before the end.
    pub(super) async fn read(
        cluster: &Cluster,
        source: Source,
        selection: ReplaySelection,
        histories: &mut Histories,
        stop: &CancellationToken,
    ) -> Result<Option<Self>, DeadLetterError> {
        let mut plan = Self {
            selection: Arc::new(selection),
            batches: BTreeMap::new(),
            without_destination: None,
        };
        for (topic, dead_letters) in source.by_topic {
            let replays = histories
                .get_mut(&topic)
                .map(|history| std::mem::take(&mut history.replays));
            let replays = replays.unwrap_or_default();
            let (cluster, stop) = (cluster.clone(), stop.clone());
            let read = move || {
                let end = plan.count_topic(&cluster, topic.clone(), dead_letters, &replays, &stop);
                (plan, topic, replays, end)
            };
            let (with_topic, topic, replays, end) = blocking::run(read).await;
            plan = with_topic;
            if let Some(history) = histories.get_mut(&topic) {
                history.replays = replays;
            }
            if end? == End::Stopped {
                return Ok(None);
            }
        }
        Ok(Some(plan))
    }

    /// Counts the dead letters of one topic. Fixes the end offsets up to which the execution reads.
    /// Blocks.
    fn count_topic(
        &mut self,
        cluster: &Cluster,
        topic: String,
        mut dead_letters: TopicDeadLetters,
        replays: &ReplayLog,
        stop: &CancellationToken,
    ) -> Result<End, KafkaError> {
        let mut batch = Batch {
            topic: topic.clone(),
            source: dead_letters.clone(),
            routes: BTreeMap::new(),
        };
        let end = dead_letters.for_each(cluster, &topic, stop, |record| {
            let dead_letter = DeadLetterRecord::new(record);
            match self.selection.fate(&dead_letter, replays) {
                Fate::Excluded => {}
                Fate::ReplayedBefore(to) => batch.route(&to.topic).replayed_before += 1,
                Fate::Replay(to) => batch.route(&to.topic).to_replay += 1,
                Fate::WithoutDestination => {
                    let example = || (0, dead_letter.position());
                    self.without_destination.get_or_insert_with(example).0 += 1;
                }
            }
            true
        });
        batch.source = dead_letters;
        self.batches.insert(topic, batch);
        end
    }

    /// Rejects a plan that cannot be executed: a dead letter without a destination, a destination
    /// that does not exist, or a topic that would be replayed to itself. The error contains a
    /// remedy.
    pub(super) fn check(&self) -> Result<(), DeadLetterError> {
        if let Some((count, example)) = &self.without_destination {
            return Err(DeadLetterError::NoDestination {
                count: *count,
                example: example.clone(),
            });
        }
        for batch in self.batches.values() {
            for to in batch.destinations() {
                if !self.selection.partitions.contains_key(to) {
                    return Err(KafkaError::UnknownTopic { topic: to.clone() }.into());
                }
                if *to == batch.topic {
                    let topic = to.clone();
                    return Err(DeadLetterError::OwnDestination { topic });
                }
            }
        }
        Ok(())
    }

    /// Number of dead letters to replay.
    pub(super) fn to_replay(&self) -> u64 {
        self.batches.values().map(Batch::to_replay).sum()
    }

    /// Number of dead letters that the filter admits, whether replayed before or not.
    pub(super) fn admitted(&self) -> u64 {
        let batches = self.batches.values();
        let routes = batches.flat_map(|batch| batch.routes.values());
        routes
            .map(|route| route.to_replay + route.replayed_before)
            .sum()
    }

    /// The routes of all topics.
    pub(super) fn routes(&self, executed: bool) -> Vec<Route> {
        let batches = self.batches.values();
        let routes = batches.flat_map(|batch| batch.routes.values().cloned());
        routes.map(|route| Route { executed, ..route }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_retry_source_or_a_topic_name() {
        let check = |text: &str, expected| assert_eq!(text.parse().ok(), expected, "{text}");
        check("source", Some(Target::Source));
        check("retry", Some(Target::Retry));
        check("retry-or-source", Some(Target::RetryOrSource));
        check("orders", Some(Target::Topic("orders".to_owned())));
        check("a b", None);
        check("", None);
    }
}
