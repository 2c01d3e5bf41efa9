//! Reads partitions without a group, for tools, audits and tests that read a log and commit
//! nothing.
//!
//! Owns the start and the end of a reading in each partition. Knows no handler, no group and no
//! event.
//!
//! A [`Reading`] describes what to read in general terms: topics, and a [`Start`] such as "the last
//! ten". [`Reader::open`] resolves it to a [`Span`] of offsets for each partition, once, and then
//! reads these spans. So a reading with an end terminates, even while producers append records.
//!
//! # The end of a span
//! Where a [`Reading`] ends at the end of a topic, it is the last stable offset that the leader
//! returns at the opening: the request has the isolation level `read_committed`, as the fetches
//! have. So a reading never waits for an open transaction.
//!
//! A partition's last offsets may hold no record: transaction markers and compacted records leave
//! gaps. So a span ends with its last record, or when a broker reports that its log ends at the end
//! of the span or above it (`enable.partition.eof`), whichever comes first.
//!
//! A log that ends below the end of the span does not end it: a follower that is read from, or a
//! new leader, may know less for a moment. If nothing comes for the timeout of the opening,
//! [`Reader::next`] returns [`KafkaError::Timeout`]: the log was cut, or the span's end was never
//! in it. The reader is not at its end then.
//!
//! # Unreadable batches
//! A batch that cannot be read ends its partition: to skip it would hide the gap from an audit. The
//! other partitions continue.

pub use super::timestamp::TimestampKind;
pub use span::{Reading, Span, Start};

use self::cursor::PartitionCursor;
use super::error::connection_fault::LastFault;
use super::error::failed;
use super::log::next_event;
use super::native::{
    ForwardedQueue, Login, Message, Messages, Watched, cached_watermarks, forward, logged_in,
};
use super::unreadable::{UnreadableBatch, is_unreadable};
use super::{KafkaConfig, KafkaError};
use crate::durations::{CALL_MAX, bounded};
use crate::event::Headers;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A record read from the log, with copies of its bytes.
///
/// Exhaustive on purpose: the fields are those of a Kafka record, and a program that prints or
/// copies records has to handle each of them.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRecord {
    /// The topic of the record.
    pub topic: Arc<str>,
    /// The partition of the record.
    pub partition: i32,
    /// The offset of the record.
    pub offset: i64,
    /// Who set `timestamp_ms`.
    pub timestamp_kind: TimestampKind,
    /// Milliseconds since the epoch. None if the record has no timestamp.
    pub timestamp_ms: Option<i64>,
    /// The key. None if the record has none, which differs from an empty key.
    pub key: Option<Vec<u8>>,
    /// The value. None is a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers in order.
    pub headers: Headers,
}

/// The most records that are copied from the client at a time.
const BURST_RECORDS: usize = 64;
/// The interval at which the client's own events are served while no record arrives.
const EVENT_INTERVAL: Duration = Duration::from_millis(100);

/// Reads spans of partitions, each in offset order. Its methods block the calling thread: call them
/// from a thread that may block (`tokio::task::spawn_blocking`), not from a task.
///
/// Records of different partitions arrive in any order. The reader is assigned to its partitions
/// directly: it joins no group, commits nothing and is invisible to consumers. It needs ACLs for
/// READ and DESCRIBE on the topics, and none on a group.
///
/// It prefetches at most 10,000 records (`queued.min.messages`) or 6 MiB
/// (`queued.max.messages.kbytes`), unless these properties are set. The last fetch response may
/// exceed that. Up to 64 records are copied for the caller.
///
/// # Examples
/// ```no_run
/// use evenkeel::kafka::KafkaConfig;
/// use evenkeel::kafka::reader::{Reader, Reading, Start};
/// use std::time::Duration;
///
/// let kafka = KafkaConfig::new("localhost:9092");
/// let reading = Reading::whole(["shop.orders"]);
/// let mut reader = Reader::open(&kafka, &reading, Duration::from_secs(10))?;
/// while !reader.at_end() {
///     if let Some(record) = reader.next(Duration::from_secs(1))? {
///         println!("{}/{} at {}", record.topic, record.partition, record.offset);
///     }
/// }
/// # Ok::<(), evenkeel::kafka::KafkaError>(())
/// ```
///
/// A view that is built from a topic, with the records that it holds at the start:
///
/// ```no_run
/// # use evenkeel::kafka::{KafkaConfig, KafkaError, reader::Reader};
/// # use std::collections::BTreeMap;
/// # use std::time::Duration;
/// # fn example(kafka: &KafkaConfig) -> Result<(), KafkaError> {
/// let mut reader = Reader::follow(kafka, ["shop.prices"], Duration::from_secs(10))?;
/// let mut prices = BTreeMap::new();
/// while !reader.has_caught_up() {
///     match reader.next(Duration::from_secs(1)) {
///         Ok(Some(record)) => drop(prices.insert(record.key, record.value)),
///         // The reader reconnects by itself.
///         Ok(None) | Err(KafkaError::Unreachable { .. }) => {}
///         Err(error) => return Err(error),
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Reader {
    lines: Vec<PartitionCursor>,
    index: HashMap<Arc<str>, HashMap<i32, usize>>,
    open_lines: usize,
    taken: Messages,
    records: VecDeque<LogRecord>,
    unreadable: VecDeque<UnreadableBatch>,
    unreachable_since: Option<Instant>,
    brokers: String,
    timeout: Duration,
    // Fields drop in order: both must be dropped before the client.
    _watched: Watched,
    _login: Login,
    queue: ForwardedQueue<LastFault>,
    consumer: Arc<BaseConsumer<LastFault>>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("spans", &self.spans().collect::<Vec<_>>())
            .field("open_partitions", &self.open_lines)
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// Looks up the partitions, resolves start and end, and starts fetching. Blocks for several
    /// requests, one for each partition among them.
    ///
    /// # Errors
    /// Returns [`KafkaError::UnknownTopic`] for a topic that does not exist,
    /// [`KafkaError::UnknownPartition`] for a partition that does not exist, and
    /// [`KafkaError::Unreachable`] if no broker answers within `timeout`, which bounds each
    /// request.
    pub fn open(
        config: &KafkaConfig,
        reading: &Reading,
        timeout: Duration,
    ) -> Result<Self, KafkaError> {
        Self::of_spans(config, resolve::resolve(config, reading, timeout)?, timeout)
    }

    /// Reads these offsets, with a span of its own for each partition. Skips offsets that are not
    /// available any more. If those before an end are not available yet, [`Reader::next`] waits for
    /// them, and returns [`KafkaError::Timeout`] if none comes for `timeout`.
    ///
    /// # Errors
    /// Returns the client's errors. A topic that does not exist is found while it is read:
    /// [`Reader::next`] returns the error.
    pub fn of_spans(
        config: &KafkaConfig,
        spans: Vec<Span>,
        timeout: Duration,
    ) -> Result<Self, KafkaError> {
        let timeout = timeout.min(CALL_MAX);
        // The client requires a group for an assignment. No client joins this one or commits to it.
        let mut client = config.consumer("evenkeel-reader")?;
        client
            .set("auto.offset.reset", "earliest")
            .set("enable.partition.eof", "true");
        // The client's default of 100,000 records costs far more memory than their bytes, and is no
        // faster.
        if client.get("queued.min.messages").is_none() {
            client.set("queued.min.messages", "10000");
        }
        let made = logged_in(&client, LastFault::default());
        let (consumer, login) = made.map_err(|error| failed("creating a reader", error))?;
        let consumer = Arc::new(consumer);
        let queue = ForwardedQueue::new(Arc::clone(&consumer));
        start(&consumer, &queue, &spans).map_err(|e| failed("assigning partitions", e))?;
        let mut index: HashMap<Arc<str>, HashMap<i32, usize>> = HashMap::new();
        for (at, span) in spans.iter().enumerate() {
            let partitions = index.entry(Arc::clone(&span.topic)).or_default();
            partitions.insert(span.partition, at);
        }
        let lines: Vec<PartitionCursor> = spans.into_iter().map(PartitionCursor::new).collect();
        Ok(Self {
            open_lines: lines.iter().filter(|line| !line.done).count(),
            lines,
            index,
            taken: Messages::with_capacity(BURST_RECORDS),
            records: VecDeque::with_capacity(BURST_RECORDS),
            unreadable: VecDeque::new(),
            unreachable_since: None,
            brokers: config.brokers.clone(),
            timeout,
            _watched: Watched::new(consumer.client(), &config.brokers, None),
            _login: login,
            queue,
            consumer,
        })
    }

    /// Reads the topics from their beginnings and continues with new records, so
    /// [`Reader::at_end`] is always false. [`Reader::has_caught_up`] returns whether all records
    /// that they hold now were read. For views that are built from a topic and kept up to date.
    ///
    /// # Errors
    /// Returns the errors of [`Reader::open`].
    pub fn follow<T: Into<String>>(
        config: &KafkaConfig,
        topics: impl IntoIterator<Item = T>,
        timeout: Duration,
    ) -> Result<Self, KafkaError> {
        let mut reader = Self::open(config, &Reading::whole(topics), timeout)?;
        // No record was taken yet, so no record beyond the ends was skipped.
        reader
            .lines
            .iter_mut()
            .for_each(PartitionCursor::remove_end);
        reader.open_lines = reader.lines.len();
        Ok(reader)
    }

    /// Whether all records were returned that the topics held when [`Reader::follow`] was called.
    pub fn has_caught_up(&self) -> bool {
        self.records.is_empty() && !self.lines.iter().any(PartitionCursor::is_behind)
    }

    /// The partitions and the offsets that this reader covers.
    pub fn spans(&self) -> impl Iterator<Item = &Span> {
        self.lines.iter().map(|line| &line.span)
    }

    /// The first offset that a partition has, as the last fetch told it. Offsets below it were
    /// deleted, while others that were passed over held no record. None before the first fetch, and
    /// after one that failed, until the next succeeds.
    pub fn first_offset(&self, topic: &str, partition: i32) -> Option<i64> {
        let (low, _) = cached_watermarks(&self.consumer, topic, partition)?;
        (low >= 0).then_some(low)
    }

    /// The same by a request to the brokers, which blocks for up to a second. None if they do not
    /// answer.
    pub fn ask_first_offset(&self, topic: &str, partition: i32) -> Option<i64> {
        let within = self.timeout.min(Duration::from_secs(1));
        let asked = self.consumer.fetch_watermarks(topic, partition, within);
        asked.ok().map(|(low, _)| low)
    }

    /// Whether every record up to the end of every partition was returned. Always false without an
    /// end.
    pub fn at_end(&self) -> bool {
        self.open_lines == 0 && self.records.is_empty() && self.unreadable.is_empty()
    }

    /// The next record. None if no record arrives within `timeout`, or the end is reached: see
    /// [`Reader::at_end`]. A `timeout` of zero returns a record that has arrived already.
    ///
    /// The reader stays usable after an error: it reconnects by itself, so that a caller that can
    /// wait may call again. Records that arrived before the error are not lost. Call it often
    /// enough that librdkafka's events are served, at least once a second.
    ///
    /// # Errors
    /// Returns [`KafkaError::UnreadableBatch`] once for each partition with a batch that cannot be
    /// read: that partition ends there, and the others continue. Returns
    /// [`KafkaError::Unreachable`] if no broker could be reached for the timeout of `open`,
    /// [`KafkaError::Timeout`] if a log ends below the end of its span for that long, and any error
    /// that the client cannot recover from, such as a deleted topic or denied access.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<LogRecord>, KafkaError> {
        let deadline = Instant::now() + bounded(timeout);
        loop {
            if let Some(record) = self.records.pop_front() {
                return Ok(Some(record));
            }
            if let Some(batch) = self.unreadable.pop_front() {
                return Err(KafkaError::UnreadableBatch(batch));
            }
            if self.open_lines == 0 {
                return Ok(None);
            }
            self.serve_events()?;
            let left = deadline.saturating_duration_since(Instant::now());
            self.take(left.min(EVENT_INTERVAL))?;
            if self.records.is_empty() && self.unreadable.is_empty() {
                self.check_overdue()?;
                if left.is_zero() {
                    return Ok(None);
                }
            }
        }
    }

    /// Whether all records of the span of a partition were taken from the client. True also for a
    /// partition that is not part of the reading.
    pub(crate) fn has_ended(&self, topic: &str, partition: i32) -> bool {
        let at = self.index.get(topic).and_then(|of| of.get(&partition));
        at.is_none_or(|at| self.lines[*at].done)
    }

    /// Stops reading a partition, for good. Its records that were fetched and not returned are
    /// dropped. Does nothing for a partition that is not part of the reading.
    pub fn stop_partition(&mut self, topic: &str, partition: i32) {
        let at = self.index.get(topic).and_then(|of| of.get(&partition));
        let Some(line) = at.map(|at| &mut self.lines[*at]) else {
            return;
        };
        self.open_lines -= usize::from(!line.done);
        line.stop();
        self.records
            .retain(|record| (&*record.topic, record.partition) != (topic, partition));
        stop_fetching(&self.consumer, topic, partition);
    }

    /// Takes the messages that the client has fetched, and copies the records of the reading.
    fn take(&mut self, wait: Duration) -> Result<(), KafkaError> {
        let mut trouble = Ok(());
        self.queue.take(&mut self.taken, usize::MAX, wait);
        for message in self.taken.iter() {
            let at = message
                .topic()
                .and_then(|topic| self.index.get(topic)?.get(&message.partition()));
            let line = at.map(|at| &mut self.lines[*at]);
            match (message.error(), line) {
                (None, Some(line)) => {
                    self.unreachable_since = None;
                    let was_done = line.done;
                    if line.admit(message.offset()) {
                        self.records
                            .push_back(to_record(message, Arc::clone(&line.span.topic)));
                    }
                    self.open_lines -= usize::from(line.done && !was_done);
                }
                (Some(Code::PartitionEOF), Some(line)) => {
                    let was_done = line.done;
                    line.reached_end_of_log(message.offset());
                    self.open_lines -= usize::from(line.done && !was_done);
                }
                (None | Some(Code::PartitionEOF), None) => {}
                (Some(code), Some(line)) if is_unreadable(code) => {
                    // Reported once, although the client reads it again and again.
                    let batch = UnreadableBatch::of(code, &message).filter(|_| !line.done);
                    if let Some(batch) = batch {
                        self.open_lines -= 1;
                        stop_fetching(&self.consumer, &batch.topic, batch.partition);
                        if line.end_before_unreadable(batch.offset) {
                            self.unreadable.push_back(batch);
                        }
                    }
                }
                // The records around it are not lost: they are returned after the error.
                (Some(code), _) => {
                    let right = format!("READ on the topic {}", message.topic().unwrap_or("?"));
                    let weighed = reject_fatal(ClientError::MessageConsumption(code));
                    trouble =
                        trouble.and(weighed.map_err(|error| error.requires_permission(&right)));
                }
            }
        }
        self.taken.clear();
        trouble
    }

    /// Returns an error for a partition whose end should have come long ago.
    fn check_overdue(&mut self) -> Result<(), KafkaError> {
        let after = self.timeout;
        let overdue = self.lines.iter_mut().find_map(|line| line.overdue(after));
        overdue.map_or(Ok(()), |what| {
            Err(KafkaError::Timeout {
                what,
                seconds: after.as_secs(),
            })
        })
    }

    /// Serves the client's own queue, which carries only events.
    fn serve_events(&mut self) -> Result<(), KafkaError> {
        while let Some(polled) = next_event(&self.consumer) {
            let Err(error) = polled else { continue };
            if error.rdkafka_error_code() == Some(Code::AllBrokersDown) {
                self.unreachable_since.get_or_insert_with(Instant::now);
            } else {
                reject_fatal(error)?;
            }
        }
        match self.unreachable_since {
            Some(since) if since.elapsed() >= self.timeout => {
                self.unreachable_since = Some(Instant::now());
                let fault = self.consumer.context().get();
                let down = || "every connection is down".to_owned();
                Err(KafkaError::Unreachable {
                    brokers: self.brokers.clone(),
                    seconds: self.timeout.as_secs(),
                    cause: fault.map_or_else(down, |fault| fault.cause),
                })
            }
            _ => Ok(()),
        }
    }
}

/// Forwards the partitions to the queue, then assigns them.
fn start(
    consumer: &BaseConsumer<LastFault>,
    queue: &ForwardedQueue<LastFault>,
    spans: &[Span],
) -> Result<(), ClientError> {
    let mut list = TopicPartitionList::with_capacity(spans.len());
    for span in spans {
        list.add_partition_offset(&span.topic, span.partition, Offset::Offset(span.start))?;
        forward(consumer, &span.topic, span.partition, queue.target())?;
    }
    consumer.assign(&list)
}

/// Stops the client's fetches of a partition.
fn stop_fetching(consumer: &BaseConsumer<LastFault>, topic: &str, partition: i32) {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition);
    if let Err(error) = consumer.pause(&list) {
        tracing::debug!(%error, "the client still fetches a partition that is no longer read");
    }
}

/// Returns errors that the client cannot recover from. The listed ones end by themselves: the
/// client retries, and `serve_events` notices if that takes too long.
fn reject_fatal(error: ClientError) -> Result<(), KafkaError> {
    match error.rdkafka_error_code() {
        // The group does not exist on the brokers, so no permission for it is needed.
        Some(
            Code::GroupAuthorizationFailed
            | Code::BrokerTransportFailure
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::NotLeaderForPartition
            | Code::LeaderNotAvailable
            | Code::NotCoordinator
            | Code::CoordinatorNotAvailable
            | Code::CoordinatorLoadInProgress,
        ) => Ok(()),
        _ => Err(failed("reading", error)),
    }
}

/// Copies a message, whose bytes are valid only until the next one is taken.
fn to_record(message: Message<'_>, topic: Arc<str>) -> LogRecord {
    let timestamp_kind = message.timestamp_kind();
    LogRecord {
        topic,
        partition: message.partition(),
        offset: message.offset(),
        timestamp_kind,
        timestamp_ms: (timestamp_kind != TimestampKind::Absent).then(|| message.timestamp_ms()),
        key: message.key().map(<[u8]>::to_vec),
        value: message.value().map(<[u8]>::to_vec),
        headers: message.take_headers().iter().collect(),
    }
}

mod cursor;
pub(super) mod resolve;
mod span;
#[cfg(test)]
mod tests;
