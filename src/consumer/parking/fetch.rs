//! Fetches the content of parked records that are due: only where they stand is kept in memory.
//!
//! A client of its own, made when something is due first, so that the reader of the retry partitions keeps its place. A
//! partition whose leader does not answer keeps its own records waiting, and those of no other. Decides nothing about what is
//! not found.

use super::super::engine::Engine;
use super::super::ledger::Epoch;
use super::super::partition::Partition;
use super::Waker;
use crate::event::Record;
use crate::kafka::queue::{ForwardedQueue, Message, Messages, Watched, forward, unforward};
use crate::recovery::parked::repetition::is_repetition;
use crate::recovery::parked::{Stored, restored};
use crate::recovery::parking::Ticket;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a partition's records may take to come.
const FETCH_WITHIN: Duration = Duration::from_secs(5);
/// Records that are read past on the way to the next one that is wanted.
const GAP_MAX: i64 = 5_000;
/// Bytes that are fetched of one partition at a time, roughly and at most.
const BYTES_MAX: usize = 4 << 20;
const BURST_RECORDS: usize = 256;

/// A record that was found.
pub(super) struct Picked {
    pub(super) partition: Arc<Partition>,
    pub(super) ticket: Ticket,
    pub(super) record: Record,
    /// Whether a drill delivers it once more.
    pub(super) is_repetition: bool,
}

/// A fetcher's client.
struct FetchClient {
    // These two before the client: they must go first.
    _watched: Watched,
    queue: Waker,
    consumer: Arc<BaseConsumer>,
}

/// One partition's records that are being fetched, by ascending offset.
pub(super) struct Line {
    pub(super) partition: Arc<Partition>,
    tickets: Vec<Ticket>,
    found: usize,
    bytes: usize,
    until: Instant,
    /// Everything before this offset was read.
    passed: i64,
}

impl Line {
    /// What did not come.
    pub(super) fn left(&self) -> &[Ticket] {
        &self.tickets[self.found..]
    }

    /// Whether the log was read past a record that did not come.
    pub(super) fn has_passed(&self, ticket: Ticket) -> bool {
        ticket.offset < self.passed
    }

    /// Whether its time is over.
    pub(super) fn is_late(&self) -> bool {
        Instant::now() >= self.until
    }

    fn is_over(&self) -> bool {
        self.left().is_empty() || self.bytes >= BYTES_MAX || self.is_late()
    }
}

/// Reads records by their offsets.
pub(super) struct Fetcher {
    config: ClientConfig,
    messages: Messages,
    lines: HashMap<Arc<str>, HashMap<i32, Line>>,
    client: Option<FetchClient>,
}

impl Fetcher {
    pub(super) fn new(config: ClientConfig) -> Self {
        Self {
            config,
            messages: Messages::with_capacity(BURST_RECORDS),
            lines: HashMap::new(),
            client: None,
        }
    }

    /// The client, and the queue that its records come on.
    pub(super) fn client(&mut self) -> KafkaResult<(Waker, Arc<BaseConsumer>)> {
        if let Some(client) = &self.client {
            return Ok((Arc::clone(&client.queue), Arc::clone(&client.consumer)));
        }
        let consumer: Arc<BaseConsumer> = Arc::new(self.config.create()?);
        let queue = Arc::new(ForwardedQueue::new(Arc::clone(&consumer)));
        let brokers = self.config.get("bootstrap.servers").unwrap_or_default();
        self.client = Some(FetchClient {
            _watched: Watched::new(consumer.client(), brokers, None),
            queue: Arc::clone(&queue),
            consumer: Arc::clone(&consumer),
        });
        Ok((queue, consumer))
    }

    /// Whether records of this partition are being fetched.
    pub(super) fn is_busy(&self, partition: &Partition) -> bool {
        let retry = partition.retry.as_ref();
        let lines = retry.and_then(|retry| self.lines.get(&retry.topic));
        lines.is_some_and(|lines| lines.contains_key(&partition.partition))
    }

    /// How many records are being fetched.
    pub(super) fn fetching(&self) -> usize {
        self.all().map(|line| line.left().len()).sum()
    }

    /// When the next line's time is over; none when nothing is being fetched.
    pub(super) fn until(&self) -> Option<Instant> {
        self.all().map(|line| line.until).min()
    }

    fn all(&self) -> impl Iterator<Item = &Line> {
        self.lines.values().flat_map(HashMap::values)
    }

    /// Begins to fetch these records of partitions of which none is being fetched; gives back those that stand too far behind
    /// the others.
    pub(super) fn begin(
        &mut self,
        wanted: Vec<(Arc<Partition>, Vec<Ticket>)>,
    ) -> (KafkaResult<()>, Vec<(Arc<Partition>, Ticket)>) {
        let (mut far, mut places) = (Vec::new(), Vec::new());
        for (partition, mut tickets) in wanted {
            let Some(retry) = &partition.retry else {
                continue;
            };
            tickets.sort_unstable_by_key(|ticket| ticket.offset);
            let offsets: Vec<i64> = tickets.iter().map(|ticket| ticket.offset).collect();
            let later = tickets.split_off(near(&offsets)).into_iter();
            far.extend(later.map(|ticket| (Arc::clone(&partition), ticket)));
            let Some(first) = offsets.first().copied() else {
                continue;
            };
            let topic = Arc::clone(&retry.topic);
            let number = partition.partition;
            let line = Line {
                partition,
                tickets,
                found: 0,
                bytes: 0,
                until: Instant::now() + FETCH_WITHIN,
                passed: first,
            };
            self.lines
                .entry(Arc::clone(&topic))
                .or_default()
                .insert(number, line);
            places.push((topic, number, first));
        }
        (self.assign(&places), far)
    }

    fn assign(&mut self, places: &[(Arc<str>, i32, i64)]) -> KafkaResult<()> {
        let (queue, consumer) = self.client()?;
        let mut list = TopicPartitionList::with_capacity(places.len());
        for (topic, number, first) in places {
            list.add_partition_offset(topic, *number, Offset::Offset(*first))?;
            forward(&consumer, topic, *number, queue.target())?;
        }
        consumer.incremental_assign(&list)
    }

    /// Waits for records up to `timeout`, and takes those that are wanted.
    pub(super) fn take(&mut self, engine: &Engine, timeout: Duration) -> Vec<Picked> {
        let Some(FetchClient {
            queue, consumer, ..
        }) = &self.client
        else {
            return Vec::new();
        };
        queue.wait_and_take(&mut self.messages, BURST_RECORDS, timeout);
        let mut picked = Vec::new();
        for message in self.messages.iter() {
            let lines = self.lines.get_mut(message.topic().unwrap_or_default());
            let line = lines.and_then(|lines| lines.get_mut(&message.partition()));
            if let Some(line) = line {
                picked.extend(pick(engine, line, message));
            }
        }
        self.messages.clear();
        // Serves the client's events; records come on our queue.
        let _ = consumer.poll(Duration::ZERO);
        picked
    }

    /// Ends the lines that have what they want or whose time is over, or all, and gives them back.
    pub(super) fn end(&mut self, all: bool) -> Vec<Line> {
        self.take_out(|line| all || line.is_over())
    }

    /// These partitions went.
    pub(super) fn forget(&mut self, epochs: &[Epoch]) {
        self.take_out(|line| epochs.contains(&line.partition.epoch));
    }

    fn take_out(&mut self, is_wanted: impl Fn(&Line) -> bool) -> Vec<Line> {
        let mut out = Vec::new();
        let mut list = TopicPartitionList::new();
        for (topic, lines) in &mut self.lines {
            for (number, line) in lines.extract_if(|_, line| is_wanted(line)) {
                list.add_partition(topic, number);
                out.push(line);
            }
        }
        if let Some(client) = self.client.as_ref().filter(|_| !out.is_empty()) {
            let consumer = &client.consumer;
            if let Err(error) = consumer.incremental_unassign(&list) {
                tracing::debug!(%error, "partitions that parked records were fetched from cannot be unassigned");
            }
            for element in list.elements() {
                // An unknown partition has no queue that could be forwarded.
                let _ = unforward(consumer, element.topic(), element.partition());
            }
        }
        out
    }
}

/// How many of these ascending offsets are read in one go: what stands far behind them is fetched on its own.
fn near(offsets: &[i64]) -> usize {
    let mut pairs = offsets.windows(2);
    let far = pairs.position(|pair| pair[1] - pair[0] > GAP_MAX);
    far.map_or(offsets.len(), |at| at + 1)
}

/// Takes a record if it is the next one that is wanted. Any other is let go by: a leftover of an earlier fetch, or one that nobody
/// waits for.
fn pick(engine: &Engine, line: &mut Line, message: Message<'_>) -> Option<Picked> {
    let ticket = line.left().first().copied()?;
    let after = match message.error() {
        None => message.offset().saturating_add(1),
        Some(RDKafkaErrorCode::PartitionEOF) => message.offset(),
        Some(_) => return None,
    };
    line.passed = line.passed.max(after);
    if message.error().is_some() || message.offset() != ticket.offset {
        return None;
    }
    line.found += 1;
    let stored = Stored {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp_ms(),
        key: message.key(),
        value: message.value(),
    };
    line.bytes += stored.value.map_or(0, <[u8]>::len) + stored.key.map_or(0, <[u8]>::len);
    let headers = message.take_headers();
    let budget = Some(Arc::clone(&engine.budget));
    let partition = Arc::clone(&line.partition);
    let record = restored(&partition.topic, stored, headers.iter(), budget)?;
    Some(Picked {
        is_repetition: is_repetition(headers.iter()),
        partition,
        ticket,
        record,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_far_behind_the_others_is_fetched_on_its_own() {
        let check = |offsets: &[i64], expected| assert_eq!(near(offsets), expected, "{offsets:?}");
        check(&[], 0);
        check(&[7], 1);
        check(&[1, 2, 3 + GAP_MAX], 2);
        check(&[1, 2, 2 + GAP_MAX], 3);
        check(&[1, 2 + GAP_MAX, 3 + GAP_MAX, 9 * GAP_MAX], 1);
    }
}
