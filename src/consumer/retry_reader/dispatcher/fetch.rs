//! Fetches the content of due parked records. Only their offsets are kept in memory.
//!
//! Uses a client of its own, created for the first due record, so that the retry reader keeps its
//! position. A partition whose leader does not answer delays only its own records. It makes no
//! decision about records that are not found.
//!
//! A fetch is for one partition and for offsets that lie close together: the client reads
//! everything from the first to the last, and discards what was not requested. Far offsets are left
//! for the next fetch. It ends when all records arrived, after 4 MiB, or after 5 s.

use crate::consumer::shared::Shared;
use crate::consumer::shared::retry_topics::Waker;
use crate::consumer::state::offset_tracker::Epoch;
use crate::consumer::state::partition::Partition;
use crate::event::Record;
use crate::kafka::log::{LoggingContext, next_event};
use crate::kafka::native::{
    ForwardedQueue, Login, Message, Messages, Watched, forward, logged_in, unforward,
};
use crate::recovery::parked::repetition::is_repetition;
use crate::recovery::parked::{Stored, restored};
use crate::recovery::parking::Ticket;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the fetch of a partition's records may take.
const FETCH_WITHIN: Duration = Duration::from_secs(5);
/// The most offsets that are read past to reach the next requested record.
const GAP_MAX: i64 = 5_000;
/// The most bytes fetched of one partition at a time, roughly.
const BYTES_MAX: usize = 4 << 20;
/// Messages taken at a time.
const BURST_RECORDS: usize = 256;

/// A record that was found.
pub(crate) struct FetchedRecord {
    pub(crate) partition: Arc<Partition>,
    pub(crate) ticket: Ticket,
    pub(crate) record: Record,
    /// Whether a drill redelivers it.
    pub(crate) is_repetition: bool,
}

/// The client of a fetcher.
struct FetchClient {
    // Declared before the client: they must be dropped first.
    _watched: Watched,
    _login: Login,
    queue: Waker,
    consumer: Arc<BaseConsumer<LoggingContext>>,
}

/// The records of one partition that are being fetched, by ascending offset.
pub(crate) struct PartitionFetch {
    pub(crate) partition: Arc<Partition>,
    /// The requested records. `received` of them have arrived, in this order.
    tickets: Vec<Ticket>,
    received: usize,
    bytes: usize,
    /// When the fetch is late.
    deadline: Instant,
    /// All offsets before this one were read.
    read_to: i64,
}

impl PartitionFetch {
    /// The records that have not arrived.
    pub(crate) fn missing(&self) -> &[Ticket] {
        &self.tickets[self.received..]
    }

    /// Whether the log was read past a record that has not arrived.
    pub(crate) fn has_passed(&self, ticket: Ticket) -> bool {
        ticket.offset < self.read_to
    }

    /// Whether its time is over.
    pub(crate) fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Whether the fetch has ended, with or without its records.
    fn is_over(&self) -> bool {
        self.missing().is_empty() || self.bytes >= BYTES_MAX || self.is_late()
    }
}

/// Fetches records by their offsets. Used by the dispatcher.
pub(crate) struct Fetcher {
    config: ClientConfig,
    messages: Messages,
    /// The fetches in progress, by retry topic and partition.
    fetches: HashMap<Arc<str>, HashMap<i32, PartitionFetch>>,
    client: Option<FetchClient>,
}

impl Fetcher {
    /// Creates no client yet.
    pub(crate) fn new(config: ClientConfig) -> Self {
        Self {
            config,
            messages: Messages::with_capacity(BURST_RECORDS),
            fetches: HashMap::new(),
            client: None,
        }
    }

    /// The client and its queue. The first call creates them.
    ///
    /// A member without due records needs no second client: it costs threads and connections.
    pub(crate) fn client(&mut self) -> KafkaResult<(Waker, Arc<BaseConsumer<LoggingContext>>)> {
        if let Some(client) = &self.client {
            return Ok((Arc::clone(&client.queue), Arc::clone(&client.consumer)));
        }
        let (consumer, login) = logged_in(&self.config, LoggingContext)?;
        let consumer = Arc::new(consumer);
        let queue = Arc::new(ForwardedQueue::new(Arc::clone(&consumer)));
        let brokers = self.config.get("bootstrap.servers").unwrap_or_default();
        self.client = Some(FetchClient {
            _watched: Watched::new(consumer.client(), brokers, None),
            _login: login,
            queue: Arc::clone(&queue),
            consumer: Arc::clone(&consumer),
        });
        Ok((queue, consumer))
    }

    /// Whether records of this partition are being fetched.
    pub(crate) fn is_busy(&self, partition: &Partition) -> bool {
        let retry = partition.retry.as_ref();
        let fetches = retry.and_then(|retry| self.fetches.get(&retry.topic));
        fetches.is_some_and(|fetches| fetches.contains_key(&partition.partition))
    }

    /// The number of records that are being fetched.
    pub(crate) fn fetching(&self) -> usize {
        self.all().map(|fetch| fetch.missing().len()).sum()
    }

    /// When the time of the next fetch is over. None if no record is being fetched.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.all().map(|fetch| fetch.deadline).min()
    }

    /// All fetches in progress.
    fn all(&self) -> impl Iterator<Item = &PartitionFetch> {
        self.fetches.values().flat_map(HashMap::values)
    }

    /// Starts to fetch these records. None of these partitions may have a fetch in progress.
    /// Returns the records that are too far behind the others.
    pub(crate) fn start(
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
            let later = tickets.split_off(near_count(&offsets)).into_iter();
            far.extend(later.map(|ticket| (Arc::clone(&partition), ticket)));
            let Some(first) = offsets.first().copied() else {
                continue;
            };
            let topic = Arc::clone(&retry.topic);
            let number = partition.partition;
            let fetch = PartitionFetch {
                partition,
                tickets,
                received: 0,
                bytes: 0,
                deadline: Instant::now() + FETCH_WITHIN,
                read_to: first,
            };
            self.fetches
                .entry(Arc::clone(&topic))
                .or_default()
                .insert(number, fetch);
            places.push((topic, number, first));
        }
        (self.assign(&places), far)
    }

    /// Forwards the partitions and assigns them at these offsets.
    fn assign(&mut self, places: &[(Arc<str>, i32, i64)]) -> KafkaResult<()> {
        let (queue, consumer) = self.client()?;
        let mut list = TopicPartitionList::with_capacity(places.len());
        for (topic, number, first) in places {
            list.add_partition_offset(topic, *number, Offset::Offset(*first))?;
            forward(&consumer, topic, *number, queue.target())?;
        }
        consumer.incremental_assign(&list)
    }

    /// Waits for records up to `timeout`, and takes the requested ones.
    ///
    /// Also serves the events of the client, which has no other caller.
    pub(crate) fn receive(&mut self, shared: &Shared, timeout: Duration) -> Vec<FetchedRecord> {
        let Some(FetchClient {
            queue, consumer, ..
        }) = &self.client
        else {
            return Vec::new();
        };
        queue.wait_and_take(&mut self.messages, BURST_RECORDS, timeout);
        let mut fetched = Vec::new();
        for message in self.messages.iter() {
            let fetches = self.fetches.get_mut(message.topic().unwrap_or_default());
            let fetch = fetches.and_then(|fetches| fetches.get_mut(&message.partition()));
            if let Some(fetch) = fetch {
                fetched.extend(match_record(shared, fetch, message));
            }
        }
        self.messages.clear();
        // Serves the client's events. Records arrive on the queue.
        let _ = next_event(consumer);
        fetched
    }

    /// Ends and returns the fetches that are complete or whose time is over, or all.
    pub(crate) fn take_ended(&mut self, all: bool) -> Vec<PartitionFetch> {
        self.remove(|fetch| all || fetch.is_over())
    }

    /// Ends the fetches of revoked epochs.
    pub(crate) fn forget(&mut self, epochs: &[Epoch]) {
        self.remove(|fetch| epochs.contains(&fetch.partition.epoch));
    }

    /// Ends the fetches that `is_wanted` selects, and unassigns their partitions.
    fn remove(&mut self, is_wanted: impl Fn(&PartitionFetch) -> bool) -> Vec<PartitionFetch> {
        let mut removed = Vec::new();
        let mut list = TopicPartitionList::new();
        for (topic, fetches) in &mut self.fetches {
            for (number, fetch) in fetches.extract_if(|_, fetch| is_wanted(fetch)) {
                list.add_partition(topic, number);
                removed.push(fetch);
            }
        }
        if let Some(client) = self.client.as_ref().filter(|_| !removed.is_empty()) {
            let consumer = &client.consumer;
            if let Err(error) = consumer.incremental_unassign(&list) {
                tracing::debug!(
                    %error,
                    "partitions that parked records were fetched from cannot be unassigned"
                );
            }
            for element in list.elements() {
                // An unknown partition has no queue.
                let _ = unforward(consumer, element.topic(), element.partition());
            }
        }
        removed
    }
}

/// How many of these ascending offsets are fetched together. Those far behind are fetched
/// separately.
fn near_count(offsets: &[i64]) -> usize {
    let mut pairs = offsets.windows(2);
    let far = pairs.position(|pair| pair[1] - pair[0] > GAP_MAX);
    far.map_or(offsets.len(), |at| at + 1)
}

/// Takes a record if it is the next requested one. Others are ignored: leftovers of an earlier
/// fetch, or records that were not requested.
///
/// The headers of the retry topic become those of the source record again; a drill's repetition is
/// recognised here.
fn match_record(
    shared: &Shared,
    fetch: &mut PartitionFetch,
    message: Message<'_>,
) -> Option<FetchedRecord> {
    let ticket = fetch.missing().first().copied()?;
    let after = match message.error() {
        None => message.offset().saturating_add(1),
        Some(RDKafkaErrorCode::PartitionEOF) => message.offset(),
        Some(_) => return None,
    };
    fetch.read_to = fetch.read_to.max(after);
    if message.error().is_some() || message.offset() != ticket.offset {
        return None;
    }
    fetch.received += 1;
    let stored = Stored {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp_ms(),
        key: message.key(),
        value: message.value(),
    };
    fetch.bytes += stored.value.map_or(0, <[u8]>::len) + stored.key.map_or(0, <[u8]>::len);
    let headers = message.take_headers();
    let budget = Some(Arc::clone(&shared.budget));
    let partition = Arc::clone(&fetch.partition);
    let record = restored(&partition.topic, stored, headers.iter(), budget)?;
    Some(FetchedRecord {
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
    fn records_far_behind_the_others_are_fetched_separately() {
        let check =
            |offsets: &[i64], expected| assert_eq!(near_count(offsets), expected, "{offsets:?}");
        check(&[], 0);
        check(&[7], 1);
        check(&[1, 2, 3 + GAP_MAX], 2);
        check(&[1, 2, 2 + GAP_MAX], 3);
        check(&[1, 2 + GAP_MAX, 3 + GAP_MAX, 9 * GAP_MAX], 1);
    }
}
