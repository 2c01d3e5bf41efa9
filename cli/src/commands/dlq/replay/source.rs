//! The letters of a replay: on the log, or lines of a file.

use crate::commands::dlq::Cluster;
use crate::commands::dlq::letters::{End, drain};
use crate::envelope;
use crate::lines::{self, Line};
use crate::stop::Stop;
use evenkeel::kafka::reader::{LogRecord, Reader, Reading};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Letters that are read ahead.
const AHEAD_LETTERS: usize = 64;

/// The letters of each dead-letter topic.
pub(super) struct Source {
    pub(super) by_topic: BTreeMap<String, Letters>,
}

/// The letters of one topic.
#[derive(Clone)]
pub(super) enum Letters {
    /// All that stand on it, up to these ends once they are known.
    Log { ends: BTreeMap<i32, i64> },
    /// These, from a file that somebody may have edited.
    Given(Arc<Vec<LogRecord>>),
}

impl Source {
    pub(super) fn topics(topics: Vec<String>) -> Self {
        let log = |topic| {
            (
                topic,
                Letters::Log {
                    ends: BTreeMap::new(),
                },
            )
        };
        Self {
            by_topic: topics.into_iter().map(log).collect(),
        }
    }

    /// Reads the file whole: nothing is published when one of its lines is wrong.
    pub(super) async fn file(path: PathBuf) -> anyhow::Result<Self> {
        let mut input = lines::read(lines::open(Some(path))?);
        let mut records: BTreeMap<String, Vec<LogRecord>> = BTreeMap::new();
        while let Some(line) = input.recv().await {
            let Line { number, content } = line?;
            let record = content.and_then(|text| envelope::read(&text));
            let record = record.map_err(|reason| {
                anyhow::anyhow!(
                    "line {number}: {reason}; nothing was published, correct it and try again"
                )
            })?;
            records
                .entry(record.topic.to_string())
                .or_default()
                .push(record);
        }
        let given = |(topic, records)| (topic, Letters::Given(Arc::new(records)));
        Ok(Self {
            by_topic: records.into_iter().map(given).collect(),
        })
    }
}

impl Letters {
    /// Where they end, once that is known.
    pub(super) fn ends(&self) -> BTreeMap<i32, i64> {
        match self {
            Self::Log { ends } => ends.clone(),
            Self::Given(_) => BTreeMap::new(),
        }
    }

    /// Has them end where a run that is gone on with began.
    pub(super) fn end_at(&mut self, until: &BTreeMap<i32, i64>) {
        if let Self::Log { ends } = self {
            ends.clone_from(until);
        }
    }

    /// Whether somebody may have changed them.
    pub(super) fn are_edited(&self) -> bool {
        matches!(self, Self::Given(_))
    }

    /// Gives out the letters, and settles where they end: later calls give out no more.
    pub(super) fn each(
        &mut self,
        cluster: &Cluster,
        topic: &str,
        stop: &Stop,
        mut take: impl FnMut(LogRecord) -> bool,
    ) -> anyhow::Result<End> {
        let ends = match self {
            Self::Given(records) => {
                let wanted = records.iter().all(|record| take(record.clone()));
                return Ok(if wanted { End::Whole } else { End::Enough });
            }
            Self::Log { ends } => ends,
        };
        let mut reader = Reader::open(&cluster.kafka, &Reading::whole([topic]), cluster.timeout)?;
        if ends.is_empty() {
            let known = reader
                .spans()
                .filter_map(|span| Some((span.partition, span.end?)));
            *ends = known.collect();
        }
        drain(&mut reader, stop, |record| {
            let inside = ends
                .get(&record.partition)
                .is_some_and(|end| record.offset < *end);
            Ok(!inside || take(record))
        })
    }

    /// [`Letters::each`] on a thread of its own. The receiver's end ends it.
    pub(super) fn stream(
        &self,
        cluster: &Cluster,
        topic: &str,
        stop: Stop,
    ) -> mpsc::Receiver<anyhow::Result<LogRecord>> {
        let (sender, receiver) = mpsc::channel(AHEAD_LETTERS);
        let (mut letters, cluster, topic) = (self.clone(), cluster.clone(), topic.to_owned());
        tokio::task::spawn_blocking(move || {
            let take = |record| sender.blocking_send(Ok(record)).is_ok();
            if let Err(error) = letters.each(&cluster, &topic, &stop, take) {
                // Nobody may listen any more.
                let _ = sender.blocking_send(Err(error));
            }
        });
        receiver
    }
}
