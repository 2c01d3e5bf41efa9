//! What a replay would do: where each letter goes, counted before anything is published.

use super::leftovers::Memories;
use super::source::{Letters, Source};
use crate::commands::dlq::Cluster;
use crate::commands::dlq::letters::{End, Letter};
use crate::commands::dlq::select::Filter;
use crate::output::Row;
use crate::stop::Stop;
use evenkeel::kafka::reader::LogRecord;
use evenkeel::kafka::{KafkaError, is_topic_name};
use evenkeel::recovery::{Destination, Replays};
use serde::Serialize;
use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Where letters go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// To the retry topic of the group that gave them up, and where there is none to where they failed.
    RetryOrSource,
    /// To that retry topic.
    Retry,
    /// Where they failed.
    Source,
    /// This topic, by key.
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
            other => Err(format!("{other:?} is no topic's name")),
        }
    }
}

/// What is replayed, and where to.
pub(super) struct Choice {
    pub(super) filter: Filter,
    pub(super) target: Target,
    /// Also what was replayed before.
    pub(super) again: bool,
    /// Partition counts of all topics.
    pub(super) partitions: BTreeMap<String, usize>,
}

/// What becomes of a letter.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is none of those that are asked for.
    Unwanted,
    /// It was replayed before.
    Before(Destination),
    /// It does not say where it failed.
    Homeless,
    /// It goes there.
    Goes(Destination),
}

impl Choice {
    pub(super) fn fate(&self, letter: &Letter, replays: &Replays) -> Fate {
        if !self.filter.admits(letter) {
            return Fate::Unwanted;
        }
        let count = |topic: &str| self.partitions.get(topic).copied().unwrap_or_default();
        let to = match &self.target {
            Target::RetryOrSource => Destination::retry(&letter.failure, count)
                .or_else(|| Destination::source(&letter.failure, count)),
            Target::Retry => Destination::retry(&letter.failure, count),
            Target::Source => Destination::source(&letter.failure, count),
            Target::Topic(topic) => Some(Destination {
                topic: topic.clone(),
                partition: None,
                is_retry: false,
            }),
        };
        let before = {
            let record = &letter.record;
            replays.contains(record.partition, record.offset, record.timestamp_ms)
        };
        match to {
            Some(to) if before && !self.again => Fate::Before(to),
            Some(to) => Fate::Goes(to),
            None => Fate::Homeless,
        }
    }
}

/// The letters of one topic for one destination, and what became of them.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Way {
    topic: String,
    to: String,
    /// Letters to replay.
    pub(super) letters: u64,
    /// Letters that were replayed before, and are left alone.
    pub(super) replayed_before: u64,
    pub(super) replayed: u64,
    pub(super) failed: u64,
    /// Not tried, because an earlier letter of their key failed.
    pub(super) held_back: u64,
    /// Whether it was carried out; false in a dry run.
    executed: bool,
}

impl Row for Way {
    const COLUMNS: &'static [&'static str] = &[
        "topic",
        "to",
        "letters",
        "replayed before",
        "replayed",
        "failed",
        "held back",
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![vec![
            self.topic.clone(),
            self.to.clone(),
            self.letters.to_string(),
            self.replayed_before.to_string(),
            self.replayed.to_string(),
            self.failed.to_string(),
            self.held_back.to_string(),
        ]]
    }
}

/// The letters of one topic.
pub(super) struct Batch {
    pub(super) topic: String,
    pub(super) letters: Letters,
    ways: BTreeMap<String, Way>,
}

impl Batch {
    /// What is known about the letters for a destination.
    pub(super) fn way(&mut self, to: &str) -> &mut Way {
        self.ways.entry(to.to_owned()).or_insert_with(|| Way {
            topic: self.topic.clone(),
            to: to.to_owned(),
            letters: 0,
            replayed_before: 0,
            replayed: 0,
            failed: 0,
            held_back: 0,
            executed: false,
        })
    }

    /// The destinations.
    pub(super) fn destinations(&self) -> impl Iterator<Item = &String> {
        self.ways.keys()
    }

    /// Letters to replay.
    pub(super) fn letters(&self) -> u64 {
        self.ways.values().map(|way| way.letters).sum()
    }

    /// The letters, one after the other.
    pub(super) fn read(
        &self,
        cluster: &Cluster,
        stop: Stop,
    ) -> mpsc::Receiver<anyhow::Result<LogRecord>> {
        self.letters.stream(cluster, &self.topic, stop)
    }
}

/// What would be done.
pub(super) struct Plan {
    pub(super) choice: Arc<Choice>,
    pub(super) batches: BTreeMap<String, Batch>,
    /// How many letters do not say where they failed, and one of them.
    homeless: Option<(u64, String)>,
}

impl Plan {
    /// Looks at all letters; none when a signal came before the end.
    pub(super) async fn make(
        cluster: &Cluster,
        source: Source,
        choice: Choice,
        memories: &mut Memories,
        stop: &Stop,
    ) -> anyhow::Result<Option<Self>> {
        let mut plan = Self {
            choice: Arc::new(choice),
            batches: BTreeMap::new(),
            homeless: None,
        };
        for (topic, letters) in source.by_topic {
            let replays = memories
                .get_mut(&topic)
                .map(|memory| std::mem::take(&mut memory.replays));
            let replays = replays.unwrap_or_default();
            let (cluster, stop) = (cluster.clone(), stop.clone());
            let look = move || {
                let end = plan.look(&cluster, topic.clone(), letters, &replays, &stop);
                (plan, topic, replays, end)
            };
            let (looked, topic, replays, end) = tokio::task::spawn_blocking(look).await?;
            plan = looked;
            if let Some(memory) = memories.get_mut(&topic) {
                memory.replays = replays;
            }
            if let End::Stopped(_) = end? {
                return Ok(None);
            }
        }
        Ok(Some(plan))
    }

    fn look(
        &mut self,
        cluster: &Cluster,
        topic: String,
        mut letters: Letters,
        replays: &Replays,
        stop: &Stop,
    ) -> anyhow::Result<End> {
        let mut batch = Batch {
            topic: topic.clone(),
            letters: letters.clone(),
            ways: BTreeMap::new(),
        };
        let end = letters.each(cluster, &topic, stop, |record| {
            let letter = Letter::new(record);
            match self.choice.fate(&letter, replays) {
                Fate::Unwanted => {}
                Fate::Before(to) => batch.way(&to.topic).replayed_before += 1,
                Fate::Goes(to) => batch.way(&to.topic).letters += 1,
                Fate::Homeless => {
                    let example = || (0, letter.position().to_string());
                    self.homeless.get_or_insert_with(example).0 += 1;
                }
            }
            true
        });
        batch.letters = letters;
        self.batches.insert(topic, batch);
        end
    }

    /// Refuses what cannot be carried out, with what to do.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if let Some((letters, example)) = &self.homeless {
            anyhow::bail!(
                "{letters} letters do not say where they failed, or it has no retry topic, for example {example}; give another \
                 --to, or leave them out by a filter such as --class '*'"
            );
        }
        for batch in self.batches.values() {
            for to in batch.destinations() {
                if !self.choice.partitions.contains_key(to) {
                    return Err(KafkaError::UnknownTopic { topic: to.clone() }.into());
                }
                anyhow::ensure!(
                    *to != batch.topic,
                    "the letters of {to} would become letters of {to} again; give another --to"
                );
            }
        }
        Ok(())
    }

    /// Letters to replay.
    pub(super) fn letters(&self) -> u64 {
        self.batches.values().map(Batch::letters).sum()
    }

    /// Letters that are asked for, replayed or not.
    pub(super) fn all(&self) -> u64 {
        let ways = self.batches.values().flat_map(|batch| batch.ways.values());
        ways.map(|way| way.letters + way.replayed_before).sum()
    }

    /// What is listed.
    pub(super) fn rows(&self, executed: bool) -> Vec<Way> {
        let ways = self
            .batches
            .values()
            .flat_map(|batch| batch.ways.values().cloned());
        ways.map(|way| Way { executed, ..way }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_retry_topic_the_source_or_a_topic() {
        let check = |text: &str, expected| assert_eq!(text.parse().ok(), expected, "{text}");
        check("source", Some(Target::Source));
        check("retry", Some(Target::Retry));
        check("retry-or-source", Some(Target::RetryOrSource));
        check("orders", Some(Target::Topic("orders".to_owned())));
        check("a b", None);
        check("", None);
    }
}
