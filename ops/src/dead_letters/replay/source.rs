//! The dead letters of a replay: read from the log, or passed in as records that may have been
//! edited.
//!
//! The log is read twice, for the plan and for the execution. The first reading fixes the end
//! offsets, so that both see the same dead letters, and those that fail again meanwhile are left to
//! the next replay.

use crate::Cluster;
use crate::dead_letters::DeadLetterError;
use crate::dead_letters::record::{End, drain};
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::reader::{LogRecord, Reader, Reading};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Number of dead letters that are read ahead.
const READ_AHEAD_MAX: usize = 64;

/// The dead letters of a replay, by topic.
#[derive(Debug)]
pub struct Source {
    pub(super) by_topic: BTreeMap<String, TopicDeadLetters>,
}

/// The dead letters of one topic.
#[derive(Debug, Clone)]
pub(super) enum TopicDeadLetters {
    /// All dead letters on the topic, up to these end offsets once they are known.
    Log { ends: BTreeMap<i32, i64> },
    /// These records, which may have been edited.
    Records(Arc<Vec<LogRecord>>),
}

impl Source {
    /// All dead letters of these topics, up to their current end offsets.
    pub fn topics(topics: Vec<String>) -> Self {
        let log = |topic| {
            (
                topic,
                TopicDeadLetters::Log {
                    ends: BTreeMap::new(),
                },
            )
        };
        Self {
            by_topic: topics.into_iter().map(log).collect(),
        }
    }

    /// These records, by the dead-letter topic that they were read from. Each must have the
    /// position of its dead letter. They may have been edited, so their replays are marked as
    /// edited. All of them stay in memory.
    pub fn records(by_topic: BTreeMap<String, Vec<LogRecord>>) -> Self {
        let with_records = |(topic, records)| (topic, TopicDeadLetters::Records(Arc::new(records)));
        Self {
            by_topic: by_topic.into_iter().map(with_records).collect(),
        }
    }
}

impl TopicDeadLetters {
    /// The end offsets. Empty until they are known.
    pub(super) fn ends(&self) -> BTreeMap<i32, i64> {
        match self {
            Self::Log { ends } => ends.clone(),
            Self::Records(_) => BTreeMap::new(),
        }
    }

    /// Limits the dead letters to the end offsets of the run that is continued.
    pub(super) fn end_at(&mut self, until: &BTreeMap<i32, i64>) {
        if let Self::Log { ends } = self {
            ends.clone_from(until);
        }
    }

    /// Whether the dead letters may have been edited.
    pub(super) fn are_edited(&self) -> bool {
        matches!(self, Self::Records(_))
    }

    /// Passes the dead letters to the closure. The first call fixes the end offsets; later calls
    /// pass no more.
    pub(super) fn for_each(
        &mut self,
        cluster: &Cluster,
        topic: &str,
        stop: &CancellationToken,
        mut handle: impl FnMut(LogRecord) -> bool,
    ) -> Result<End, KafkaError> {
        let ends = match self {
            Self::Records(records) => {
                let all_handled = records.iter().all(|record| handle(record.clone()));
                return Ok(if all_handled { End::Whole } else { End::Enough });
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
            let is_in_range = ends
                .get(&record.partition)
                .is_some_and(|end| record.offset < *end);
            Ok::<bool, KafkaError>(!is_in_range || handle(record))
        })
    }

    /// [`TopicDeadLetters::for_each`] on a thread of its own. The thread ends when the receiver is
    /// dropped.
    pub(super) fn stream(
        &self,
        cluster: &Cluster,
        topic: &str,
        stop: CancellationToken,
    ) -> mpsc::Receiver<Result<LogRecord, DeadLetterError>> {
        let (sender, receiver) = mpsc::channel(READ_AHEAD_MAX);
        let (mut dead_letters, cluster, topic) = (self.clone(), cluster.clone(), topic.to_owned());
        tokio::task::spawn_blocking(move || {
            let handle = |record| sender.blocking_send(Ok(record)).is_ok();
            if let Err(error) = dead_letters.for_each(&cluster, &topic, &stop, handle) {
                // The receiver may be gone.
                let _ = sender.blocking_send(Err(error.into()));
            }
        });
        receiver
    }
}
