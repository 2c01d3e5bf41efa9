//! Access to the brokers: what a topic has now, and readers of its log.
//!
//! Owns the clients. Knows neither rings nor subscriptions.

use super::cursor::TopicIdentity;
use super::frame::StreamedEvent;
use super::ring::{LogEntry, LogGap, LogItem};
use crate::access::AllowList;
use crate::http::{Problem, ProblemKind};
use evenkeel::kafka::admin::Admin;
use evenkeel::kafka::reader::{LogRecord, Reader, Span};
use evenkeel::kafka::{ConfigError, KafkaConfig, KafkaError, UnreadableBatch};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;

/// The most records of a burst.
const BURST_RECORDS: usize = 256;
/// The bytes after which a burst ends.
const BURST_BYTES: usize = 256 << 10;

/// What the brokers say about a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TopicFacts {
    /// Its id, if the brokers know ids.
    pub(super) identity: Option<TopicIdentity>,
    /// Its partitions, from 0 on.
    pub(super) partitions: Vec<LogBounds>,
}

/// The available offsets of a partition. None if it has no leader to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogBounds {
    pub(super) low: Option<i64>,
    pub(super) high: Option<i64>,
}

impl TopicFacts {
    /// The first offsets. 0 for a partition without a leader.
    pub(super) fn lows(&self) -> Vec<i64> {
        let lows = self.partitions.iter().map(|bounds| bounds.low);
        lows.map(Option::unwrap_or_default).collect()
    }

    /// The ends. None if a partition has no leader.
    pub(super) fn highs(&self) -> Option<Vec<i64>> {
        self.partitions.iter().map(|bounds| bounds.high).collect()
    }
}

/// The brokers. Connects at the first request.
pub(super) struct LogSource {
    kafka: KafkaConfig,
    catch_up_kafka: KafkaConfig,
    admin: OnceCell<Admin>,
    allow_list: Arc<AllowList>,
    timeout: Duration,
}

impl std::fmt::Debug for LogSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogSource")
            .field("kafka", &self.kafka)
            .finish_non_exhaustive()
    }
}

impl LogSource {
    pub(super) fn new(kafka: KafkaConfig, allow_list: Arc<AllowList>, timeout: Duration) -> Self {
        let kafka = committed(kafka.clone()).unwrap_or(kafka);
        Self {
            // If the user's settings do not allow it, they apply unchanged.
            catch_up_kafka: frugal(kafka.clone()).unwrap_or_else(|_| kafka.clone()),
            kafka,
            admin: OnceCell::new(),
            allow_list,
            timeout,
        }
    }

    /// Requests the facts of a topic: one request for each partition.
    pub(super) async fn facts(&self, topic: &str) -> Result<TopicFacts, KafkaError> {
        let connect = || Box::pin(Admin::connect(&self.kafka, self.timeout));
        let admin = self.admin.get_or_try_init(connect).await?;
        let description = admin.describe_topic(topic).await?;
        let names = [topic.to_owned()];
        let mut identities = admin.topic_ids(&names).await?;
        let known = |offset: i64| (offset >= 0).then_some(offset);
        let bounds = description.partitions.iter().map(|partition| LogBounds {
            low: known(partition.low),
            high: known(partition.high),
        });
        Ok(TopicFacts {
            identity: identities.remove(topic),
            partitions: bounds.collect(),
        })
    }

    /// Opens a reader that follows the topic from these offsets on.
    pub(super) async fn follow(
        &self,
        topic: &Arc<str>,
        from: &[i64],
    ) -> Result<LogReader, KafkaError> {
        let spans = (0..).zip(from).map(|(partition, start)| Span {
            topic: Arc::clone(topic),
            partition,
            start: *start,
            end: None,
        });
        self.open(self.kafka.clone(), spans.collect()).await
    }

    /// Opens a reader of the offsets between these positions. It prefetches less.
    pub(super) async fn read(
        &self,
        topic: &Arc<str>,
        from: &[i64],
        to: &[i64],
    ) -> Result<LogReader, KafkaError> {
        let spans = (0..)
            .zip(from.iter().zip(to))
            .map(|(partition, (start, end))| Span {
                topic: Arc::clone(topic),
                partition,
                start: *start,
                end: Some(*end),
            });
        self.open(self.catch_up_kafka.clone(), spans.collect())
            .await
    }

    /// Whether the log has a record before a place to which a reader went back. A client that is
    /// reset by its policy goes to the first record, so the logs diverged there only if it has one.
    ///
    /// # Errors
    /// Also if the log does not have the place any more: [`KafkaError::Timeout`].
    pub(super) async fn has_record_before(
        &self,
        topic: &Arc<str>,
        place: PlaceOfReturn,
    ) -> Result<bool, KafkaError> {
        if place.first >= place.offset {
            return Ok(false);
        }
        let span = Span {
            topic: Arc::clone(topic),
            partition: place.partition,
            start: place.first,
            end: Some(place.offset),
        };
        let (kafka, timeout) = (self.catch_up_kafka.clone(), self.timeout);
        blocking(move || {
            let what = format!(
                "reading {}/{} before {}",
                span.topic, span.partition, place.offset
            );
            let mut reader = Reader::of_spans(&kafka, vec![span], timeout)?;
            match reader.next(timeout) {
                Ok(Some(_)) | Err(KafkaError::UnreadableBatch(_)) => Ok(true),
                Ok(None) if reader.at_end() => Ok(false),
                Ok(None) => Err(KafkaError::Timeout {
                    what,
                    seconds: timeout.as_secs(),
                }),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// The offsets of a batch that cannot be read. Takes several requests.
    pub(super) async fn extent(&self, batch: UnreadableBatch) -> Result<Range<i64>, KafkaError> {
        let (kafka, timeout) = (self.kafka.clone(), self.timeout);
        blocking(move || batch.extent(&kafka, timeout)).await
    }

    async fn open(&self, kafka: KafkaConfig, spans: Vec<Span>) -> Result<LogReader, KafkaError> {
        let next = spans.iter().map(|span| span.start).collect();
        let timeout = self.timeout;
        let reader = blocking(move || Reader::of_spans(&kafka, spans, timeout)).await?;
        Ok(LogReader {
            state: Some(ReaderState {
                reader,
                next,
                allow_list: Arc::clone(&self.allow_list),
            }),
        })
    }
}

/// Only committed records are streamed, also if other clients of these settings read all.
fn committed(kafka: KafkaConfig) -> Result<KafkaConfig, ConfigError> {
    kafka.with_property("isolation.level", "read_committed")
}

/// The settings of a reader that catches up: a small buffer, as there are many.
fn frugal(kafka: KafkaConfig) -> Result<KafkaConfig, ConfigError> {
    kafka
        .with_property("queued.min.messages", "1000")?
        // It bounds also the size of a response, `fetch.max.bytes`.
        .with_property("queued.max.messages.kbytes", "2048")
}

/// A reader of one topic. It reads in bursts on a thread that may block.
pub(super) struct LogReader {
    /// None during a burst. If the burst's future is dropped, the reader is closed.
    state: Option<ReaderState>,
}

struct ReaderState {
    reader: Reader,
    /// The next expected offset of each partition.
    next: Vec<i64>,
    allow_list: Arc<AllowList>,
}

/// Records that were read together.
#[derive(Debug, Default)]
pub(super) struct Burst {
    /// The records, in the order of the log within each partition, and what was deleted between
    /// them.
    pub(super) items: Vec<LogEntry>,
    /// Why the burst ended early.
    pub(super) trouble: Option<Trouble>,
    /// Whether the reader is at its end. Never for one that follows.
    pub(super) at_end: bool,
}

/// A place to which a reader went back: that of a record whose offset it had passed.
///
/// There are two reasons. The client compared leader epochs, and continues where the logs diverge.
/// Or its offset was out of range, or its epoch unknown to the log, and it is reset by its policy
/// to the first record. That one need not be at the first offset: compaction and transactions leave
/// offsets without a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlaceOfReturn {
    pub(super) partition: i32,
    /// The first offset of the partition.
    pub(super) first: i64,
    /// The offset of the record.
    pub(super) offset: i64,
}

/// Why a reader cannot simply continue.
#[derive(Debug)]
pub(super) enum Trouble {
    /// A record of a passed offset came: the log was cut, or the topic created anew. Without the
    /// place if the first offset of the partition is not known.
    WentBack(Option<PlaceOfReturn>),
    /// A batch that cannot be read. The reader has left the partition.
    Unreadable(UnreadableBatch),
    /// The brokers do not answer. The reader reconnects by itself.
    Unreachable(KafkaError),
    /// Any other error.
    Failed(KafkaError),
}

impl LogReader {
    /// Waits for the next records, and returns those that have arrived.
    pub(super) async fn burst(&mut self, wait: Duration) -> Burst {
        let Some(mut state) = self.state.take() else {
            return Burst::failed("the reader is closed");
        };
        let read = tokio::task::spawn_blocking(move || {
            let burst = state.burst(wait);
            (state, burst)
        });
        match read.await {
            Ok((state, burst)) => {
                self.state = Some(state);
                burst
            }
            Err(_) => Burst::failed("the reader's thread panicked"),
        }
    }

    /// The next offset of each partition.
    pub(super) fn next(&self) -> Vec<i64> {
        self.state
            .as_ref()
            .map(|state| state.next.clone())
            .unwrap_or_default()
    }
}

impl Drop for LogReader {
    /// Ending the client waits for its threads, which must not block a task.
    fn drop(&mut self) {
        if let Some(state) = self.state.take() {
            let ended = std::thread::Builder::new().name("stream-reader-end".to_owned());
            // If no thread can be started, the state is dropped here.
            let _ = ended.spawn(move || drop(state));
        }
    }
}

impl Burst {
    fn failed(cause: &str) -> Self {
        let error = KafkaError::Unreadable {
            what: "reading a topic".to_owned(),
            cause: cause.to_owned(),
        };
        Self {
            trouble: Some(Trouble::Failed(error)),
            ..Self::default()
        }
    }
}

impl ReaderState {
    fn burst(&mut self, wait: Duration) -> Burst {
        let mut burst = Burst::default();
        let mut firsts = FirstOffsets::default();
        let (mut bytes, mut wait) = (0, wait);
        while burst.items.len() < BURST_RECORDS && bytes < BURST_BYTES {
            match self.reader.next(wait) {
                Ok(Some(record)) => {
                    bytes += record.value.as_ref().map_or(0, Vec::len);
                    if let Err(trouble) = self.admit(&record, &mut firsts, &mut burst.items) {
                        burst.trouble = Some(trouble);
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    burst.trouble = Some(Trouble::of(error));
                    break;
                }
            }
            wait = Duration::ZERO;
        }
        burst.at_end = self.reader.at_end();
        if burst.at_end && burst.trouble.is_none() {
            self.close(&mut firsts, &mut burst.items);
        }
        burst
    }

    /// Adds a record, and before it what was deleted of the offsets that were passed over. The
    /// others held no record: they are holes of transactions and compaction.
    fn admit(
        &mut self,
        record: &LogRecord,
        firsts: &mut FirstOffsets,
        items: &mut Vec<LogEntry>,
    ) -> Result<(), Trouble> {
        let (partition, offset) = (record.partition, record.offset);
        let at = usize::try_from(partition).unwrap_or_default();
        let Some(next) = self.next.get_mut(at) else {
            return Err(Trouble::WentBack(None));
        };
        if offset != *next {
            let first = firsts.of(&self.reader, &record.topic, partition);
            if offset < *next {
                return Err(Trouble::WentBack(first.map(|first| PlaceOfReturn {
                    partition,
                    first,
                    offset,
                })));
            }
            items.extend(lost(partition, *next, offset, first).map(LogEntry::Gap));
        }
        *next = offset + 1;
        let event = StreamedEvent::of_record(record, &self.allow_list).map(Arc::new);
        items.push(LogEntry::Item(LogItem {
            partition,
            offset,
            event,
        }));
        Ok(())
    }

    /// Adds what was deleted of the last offsets before the ends.
    fn close(&mut self, firsts: &mut FirstOffsets, items: &mut Vec<LogEntry>) {
        for span in self.reader.spans() {
            let at = usize::try_from(span.partition).unwrap_or_default();
            let first = firsts.of(&self.reader, &span.topic, span.partition);
            if let (Some(next), Some(end), Some(first)) = (self.next.get_mut(at), span.end, first)
                && let Some(gap) = lost(span.partition, *next, end, Some(first))
            {
                *next = gap.to;
                items.push(LogEntry::Gap(gap));
            }
        }
    }
}

/// The first offsets of partitions during a burst. A partition whose last fetch failed is asked for
/// once: brokers that do not answer delay the burst by one request for it, not by one for each
/// jump.
#[derive(Default)]
struct FirstOffsets(BTreeMap<i32, Option<i64>>);

impl FirstOffsets {
    fn of(&mut self, reader: &Reader, topic: &str, partition: i32) -> Option<i64> {
        let known = reader.first_offset(topic, partition);
        known.or_else(|| {
            let asked = self.0.entry(partition);
            *asked.or_insert_with(|| reader.ask_first_offset(topic, partition))
        })
    }
}

/// Of the offsets that were passed over, those that were deleted: they are below the first one that
/// the partition has. All of them if that is unknown.
fn lost(partition: i32, from: i64, to: i64, first: Option<i64>) -> Option<LogGap> {
    let to = first.map_or(to, |first| to.min(first));
    (from < to).then_some(LogGap {
        partition,
        from,
        to,
    })
}

impl Trouble {
    fn of(error: KafkaError) -> Self {
        match error {
            KafkaError::UnreadableBatch(batch) => Self::Unreadable(batch),
            KafkaError::Unreachable { .. } | KafkaError::Timeout { .. } => Self::Unreachable(error),
            _ => Self::Failed(error),
        }
    }
}

/// The answer for a caller whose topic could not be read.
pub(super) fn problem_of(topic: &str, error: &KafkaError) -> Problem {
    match error {
        KafkaError::UnknownTopic { .. } => Problem::new(
            ProblemKind::NotFound,
            format!("the topic {topic} does not exist"),
        ),
        KafkaError::Unreachable { .. } | KafkaError::Timeout { .. } => {
            Problem::new(ProblemKind::Unavailable, "the brokers do not answer")
                .with_retry_after(Duration::from_secs(2))
        }
        _ => {
            tracing::error!(topic, %error, "the topic cannot be streamed");
            Problem::new(
                ProblemKind::Unavailable,
                format!("the topic {topic} cannot be read"),
            )
            .with_retry_after(Duration::from_secs(10))
        }
    }
}

/// Runs a blocking call on a thread that may block.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, KafkaError> + Send + 'static,
) -> Result<T, KafkaError> {
    match tokio::task::spawn_blocking(call).await {
        Ok(answer) => answer,
        Err(error) => Err(KafkaError::Unreadable {
            what: "reading a topic".to_owned(),
            cause: error.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(bounds: &[(i64, i64)]) -> TopicFacts {
        let bounds = bounds.iter().map(|(low, high)| LogBounds {
            low: Some(*low),
            high: Some(*high),
        });
        TopicFacts {
            identity: None,
            partitions: bounds.collect(),
        }
    }

    #[test]
    fn only_deleted_offsets_are_gaps() {
        for (from, to, first, expected) in [
            (5, 8, Some(10), Some((5, 8))),
            (5, 20, Some(10), Some((5, 10))),
            (10, 20, Some(10), None),
            (10, 20, Some(0), None),
            (10, 20, None, Some((10, 20))),
            (20, 20, None, None),
        ] {
            let found = lost(1, from, to, first);
            assert!(found.is_none_or(|gap| gap.partition == 1));
            let found = found.map(|gap| (gap.from, gap.to));
            assert_eq!(found, expected, "{from} {to} {first:?}");
        }
    }

    #[test]
    fn the_end_is_known_only_if_every_partition_has_a_leader() {
        let mut facts = facts(&[(1, 5), (2, 6)]);
        assert_eq!(
            (facts.lows(), facts.highs()),
            (vec![1, 2], Some(vec![5, 6]))
        );
        facts.partitions[1] = LogBounds {
            low: None,
            high: None,
        };
        assert_eq!((facts.lows(), facts.highs()), (vec![1, 0], None));
    }

    #[test]
    fn a_reader_that_catches_up_prefetches_little() {
        let kafka = frugal(KafkaConfig::new("localhost:9092")).expect("the settings are allowed");
        assert_eq!(kafka.properties["queued.max.messages.kbytes"], "2048");
    }
}
