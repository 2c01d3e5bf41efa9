//! Reads partitions without a group: for tools, audits and tests that look at a log and commit nothing.
//!
//! Owns where a reading starts and ends, partition by partition. Knows no handler, no group and no event.

use super::error::failed;
use super::queue::{ForwardedQueue, Message, Messages, Watched, forward};
use super::span;
use super::unreadable::{UnreadableBatch, is_unreadable};
use super::{KafkaConfig, KafkaError};
use crate::durations::{CALL_MAX, bounded};
use crate::event::Headers;
use rdkafka::consumer::{BaseConsumer, Consumer, DefaultConsumerContext};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where a reading starts in each partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The first record still there.
    Beginning,
    /// After the last record: only what comes from now on.
    End,
    /// This offset, or the nearest one that exists.
    Offset(i64),
    /// This many offsets before the end of each partition.
    Last(i64),
    /// The first record of this time or later, in milliseconds since the epoch.
    Time(i64),
}

/// What a reading covers.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The topics.
    pub topics: Vec<String>,
    /// The partitions of each topic; all of them when empty.
    pub partitions: Vec<i32>,
    /// Where it starts.
    pub start: Start,
    /// Where it ends: at `End` the end of each partition when the reader was opened; none follows the log for ever.
    pub end: Option<Start>,
}

/// A partition and the offsets that a reading covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// First offset to read.
    pub start: i64,
    /// Offset to stop before; none for no end.
    pub end: Option<i64>,
}

/// What a record's timestamp means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampKind {
    /// There is none.
    Absent,
    /// The producer's time.
    Create,
    /// The broker's time.
    LogAppend,
}

/// A record as it stands on the log.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRecord {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// What `timestamp_ms` means.
    pub timestamp_kind: TimestampKind,
    /// Milliseconds since the epoch; none where there is no timestamp.
    pub timestamp_ms: Option<i64>,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers in order.
    pub headers: Headers,
}

/// Records that are copied from the client at a time.
const BURST_RECORDS: usize = 64;
/// How often the client's own events are served while no record comes.
const EVENT_INTERVAL: Duration = Duration::from_millis(100);

/// Reads spans of partitions, each in offset order. Its methods block the calling thread, so call them from a thread
/// that may wait.
///
/// It is assigned to its partitions directly: it joins no group, commits nothing and is invisible to consumers. Memory
/// is bounded by 10,000 prefetched records or 16 MiB of them, what a fetch response holds beyond that, and 64 records on
/// their way to the caller.
///
/// # Examples
/// ```no_run
/// use evenkeel::kafka::KafkaConfig;
/// use evenkeel::kafka::reader::{Reader, Reading, Start};
/// use std::time::Duration;
///
/// let reading = Reading::whole(["shop.orders"]);
/// let mut reader = Reader::open(&KafkaConfig::new("localhost:9092"), &reading, Duration::from_secs(10))?;
/// while !reader.at_end() {
///     if let Some(record) = reader.next(Duration::from_secs(1))? {
///         println!("{}/{} at {}", record.topic, record.partition, record.offset);
///     }
/// }
/// # Ok::<(), evenkeel::kafka::KafkaError>(())
/// ```
pub struct Reader {
    lines: Vec<Line>,
    index: HashMap<Arc<str>, HashMap<i32, usize>>,
    open_lines: usize,
    taken: Messages,
    records: VecDeque<LogRecord>,
    unreadable: VecDeque<UnreadableBatch>,
    unreachable_since: Option<Instant>,
    brokers: String,
    timeout: Duration,
    // These two before the client: they must go first.
    _watched: Watched,
    queue: ForwardedQueue<DefaultConsumerContext>,
    consumer: Arc<BaseConsumer>,
}

/// One partition on its way through its span.
struct Line {
    span: Span,
    done: bool,
    /// Where the log ended when it was opened, for a line that goes on beyond it and has not got there yet.
    behind: Option<i64>,
}

impl Reading {
    /// All records that the topics hold now.
    pub fn whole<T: Into<String>>(topics: impl IntoIterator<Item = T>) -> Self {
        Self {
            topics: topics.into_iter().map(Into::into).collect(),
            partitions: Vec::new(),
            start: Start::Beginning,
            end: Some(Start::End),
        }
    }
}

impl Reader {
    /// Looks the partitions up, resolves start and end, and starts fetching.
    ///
    /// # Errors
    /// [`KafkaError::UnknownTopic`] for a topic that does not exist, [`KafkaError::Config`] for a partition that does not,
    /// and [`KafkaError::Unreachable`] when no broker answers within `timeout`, which bounds each request.
    pub fn open(
        config: &KafkaConfig,
        reading: &Reading,
        timeout: Duration,
    ) -> Result<Self, KafkaError> {
        Self::over(config, span::resolve(config, reading, timeout)?, timeout)
    }

    /// Reads these offsets, each partition its own. Those that are not there any more, or not yet, are passed over.
    ///
    /// # Errors
    /// Those of the client; a topic that does not exist is found out while it is read.
    pub fn over(
        config: &KafkaConfig,
        spans: Vec<Span>,
        timeout: Duration,
    ) -> Result<Self, KafkaError> {
        let timeout = timeout.min(CALL_MAX);
        // The client insists on a group to assign at all; nothing ever joins this one or commits to it.
        let mut client = config.consumer("evenkeel-reader")?;
        client
            .set("auto.offset.reset", "earliest")
            .set("enable.partition.eof", "true");
        // The client's own 100,000 cost far more memory than their bytes, and are no faster.
        if client.get("queued.min.messages").is_none() {
            client.set("queued.min.messages", "10000");
        }
        let consumer: BaseConsumer = client
            .create()
            .map_err(|e| failed("creating a reader", e))?;
        let consumer = Arc::new(consumer);
        let queue = ForwardedQueue::new(Arc::clone(&consumer));
        start(&consumer, &queue, &spans).map_err(|e| failed("assigning partitions", e))?;
        let mut index: HashMap<Arc<str>, HashMap<i32, usize>> = HashMap::new();
        for (at, span) in spans.iter().enumerate() {
            let partitions = index.entry(Arc::clone(&span.topic)).or_default();
            partitions.insert(span.partition, at);
        }
        let lines: Vec<Line> = spans.into_iter().map(Line::new).collect();
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
            queue,
            consumer,
        })
    }

    /// Reads the topics from their beginnings and goes on with what comes after; [`Reader::has_caught_up`] says when what
    /// they hold now was read.
    ///
    /// # Errors
    /// Those of [`Reader::open`].
    pub fn follow<T: Into<String>>(
        config: &KafkaConfig,
        topics: impl IntoIterator<Item = T>,
        timeout: Duration,
    ) -> Result<Self, KafkaError> {
        let mut reader = Self::open(config, &Reading::whole(topics), timeout)?;
        // Nothing was taken yet, so nothing beyond the ends was passed over.
        reader.lines.iter_mut().for_each(Line::go_on);
        reader.open_lines = reader.lines.len();
        Ok(reader)
    }

    /// Whether everything was given out that the topics held when [`Reader::follow`] was called.
    pub fn has_caught_up(&self) -> bool {
        self.records.is_empty() && self.lines.iter().all(|line| line.behind.is_none())
    }

    /// The partitions and the offsets that this reader covers.
    pub fn spans(&self) -> impl Iterator<Item = &Span> {
        self.lines.iter().map(|line| &line.span)
    }

    /// Whether every record up to the end of every partition was given out; never true without an end.
    pub fn at_end(&self) -> bool {
        self.open_lines == 0 && self.records.is_empty() && self.unreadable.is_empty()
    }

    /// The next record, or none when none came within `timeout` or the end is reached.
    ///
    /// The reader stays usable after an error: it connects again by itself, so a caller that can wait calls again.
    ///
    /// # Errors
    /// [`KafkaError::UnreadableBatch`] once for each partition with a batch that cannot be read: the reading of that partition
    /// ends there, and the others go on. [`KafkaError::Unreachable`] when no broker could be reached for the time given to
    /// `open`, and whatever the client cannot mend by itself, such as a topic that was deleted or access that is refused.
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
            if left.is_zero() && self.records.is_empty() && self.unreadable.is_empty() {
                return Ok(None);
            }
        }
    }

    /// Whether everything was given out that is to be read of a partition.
    pub(crate) fn has_ended(&self, topic: &str, partition: i32) -> bool {
        let at = self.index.get(topic).and_then(|of| of.get(&partition));
        at.is_none_or(|at| self.lines[*at].done)
    }

    /// Reads no more of a partition.
    pub fn leave(&mut self, topic: &str, partition: i32) {
        let at = self.index.get(topic).and_then(|of| of.get(&partition));
        let Some(line) = at.map(|at| &mut self.lines[*at]) else {
            return;
        };
        self.open_lines -= usize::from(!line.done);
        line.behind = None;
        line.done = true;
        self.records
            .retain(|record| (&*record.topic, record.partition) != (topic, partition));
        stop_fetching(&self.consumer, topic, partition);
    }

    /// Takes what the client has fetched, and copies what belongs to the reading.
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
                    line.reached_end_of_log();
                    self.open_lines -= usize::from(line.done && !was_done);
                }
                (None | Some(Code::PartitionEOF), None) => {}
                (Some(code), Some(line)) if is_unreadable(code) => {
                    // It is told once: the client reads it again and again.
                    let batch = UnreadableBatch::of(code, &message).filter(|_| !line.done);
                    if let Some(batch) = batch {
                        self.open_lines -= 1;
                        stop_fetching(&self.consumer, &batch.topic, batch.partition);
                        if line.break_off(batch.offset) {
                            self.unreadable.push_back(batch);
                        }
                    }
                }
                // The records around it are not lost for it: they are given out after the error.
                (Some(code), _) => {
                    trouble = trouble.and(weigh(ClientError::MessageConsumption(code)));
                }
            }
        }
        self.taken.clear();
        trouble
    }

    /// Serves the client's own queue, which carries nothing but events.
    fn serve_events(&mut self) -> Result<(), KafkaError> {
        while let Some(polled) = self.consumer.poll(Duration::ZERO) {
            let Err(error) = polled else { continue };
            if error.rdkafka_error_code() == Some(Code::AllBrokersDown) {
                self.unreachable_since.get_or_insert_with(Instant::now);
            } else {
                weigh(error)?;
            }
        }
        match self.unreachable_since {
            Some(since) if since.elapsed() >= self.timeout => {
                self.unreachable_since = Some(Instant::now());
                Err(KafkaError::Unreachable {
                    brokers: self.brokers.clone(),
                    seconds: self.timeout.as_secs(),
                    cause: "every connection is down".to_owned(),
                })
            }
            _ => Ok(()),
        }
    }
}

impl Line {
    fn new(span: Span) -> Self {
        Self {
            done: span.end.is_some_and(|end| span.start >= end),
            span,
            behind: None,
        }
    }

    /// Has no end from now on.
    fn go_on(&mut self) {
        self.behind = self.span.end.take().filter(|end| self.span.start < *end);
        self.done = false;
    }

    /// Ends before a batch that cannot be read: what comes after it would leave a gap that nobody sees. Whether it belongs to the
    /// reading.
    fn break_off(&mut self, offset: i64) -> bool {
        self.behind = None;
        self.done = true;
        self.span.end.is_none_or(|end| offset < end)
    }

    /// Whether a record of that offset belongs to the reading; the line moves past it.
    fn admit(&mut self, offset: i64) -> bool {
        let inside = !self.done && self.span.end.is_none_or(|end| offset < end);
        self.done |= self.span.end.is_some_and(|end| offset + 1 >= end);
        self.behind = self.behind.filter(|end| offset + 1 < *end);
        inside
    }

    /// The end of the log is at or beyond the end of the span, so what is missing before it (transaction markers,
    /// compacted records) will not come.
    fn reached_end_of_log(&mut self) {
        self.behind = None;
        self.done |= self.span.end.is_some();
    }
}

/// Forwards the partitions to the queue, then assigns them.
fn start(
    consumer: &BaseConsumer,
    queue: &ForwardedQueue<DefaultConsumerContext>,
    spans: &[Span],
) -> Result<(), ClientError> {
    let mut list = TopicPartitionList::with_capacity(spans.len());
    for span in spans {
        list.add_partition_offset(&span.topic, span.partition, Offset::Offset(span.start))?;
        forward(consumer, &span.topic, span.partition, queue.target())?;
    }
    consumer.assign(&list)
}

/// Has the client fetch no more of a partition.
fn stop_fetching(consumer: &BaseConsumer, topic: &str, partition: i32) {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition);
    if let Err(error) = consumer.pause(&list) {
        tracing::debug!(%error, "the client goes on fetching a partition that is not read any more");
    }
}

/// Passes on what the client cannot mend by itself.
fn weigh(error: ClientError) -> Result<(), KafkaError> {
    match error.rdkafka_error_code() {
        // The group exists in name only, so nobody needs access to it.
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

#[cfg(test)]
mod tests;
