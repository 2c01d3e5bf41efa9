//! Fetches the content of parked records that are due: only where they stand is kept in memory.
//!
//! A client of its own, made when something is due first, so that the reader of the retry partitions keeps its place.

use super::super::engine::Engine;
use super::super::ledger::Epoch;
use super::super::partition::Partition;
use crate::event::Record;
use crate::kafka::queue::{ForwardedQueue, Message, Messages, Watched, forward, unforward};
use crate::recovery::parked::repetition::is_repetition;
use crate::recovery::parked::{Stored, restored};
use crate::recovery::parking::Ticket;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, DefaultConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a fetch may take.
const FETCH_WITHIN: Duration = Duration::from_secs(5);
/// Records that are read past on the way to the next one that is wanted.
const GAP_MAX: i64 = 5_000;
/// Bytes that one fetch hands out, roughly and at most.
const BYTES_MAX: usize = 4 << 20;
const BURST_RECORDS: usize = 256;

/// What a fetch brought.
#[derive(Default)]
pub(super) struct Fetched {
    pub(super) records: Vec<Picked>,
    /// Not on the log any more.
    pub(super) missing: Vec<(Arc<Partition>, Ticket)>,
    /// Not fetched this time.
    pub(super) left: Vec<(Arc<Partition>, Ticket)>,
    /// Partitions that the brokers did not answer for as they should.
    pub(super) unanswered: HashSet<Epoch>,
}

/// A record that was found.
pub(super) struct Picked {
    pub(super) partition: Arc<Partition>,
    pub(super) ticket: Ticket,
    pub(super) record: Record,
    /// Whether a drill delivers it once more.
    pub(super) is_repetition: bool,
}

/// Reads records by their offsets.
pub(super) struct Fetcher {
    config: ClientConfig,
    messages: Messages,
    client: Option<FetchClient>,
}

/// A fetcher's client.
struct FetchClient {
    // These two before the client: they must go first.
    _watched: Watched,
    queue: ForwardedQueue<DefaultConsumerContext>,
    consumer: Arc<BaseConsumer>,
}

/// One partition's records that are wanted, by ascending offset.
struct Line<'a> {
    partition: &'a Arc<Partition>,
    tickets: Vec<Ticket>,
    found: usize,
}

/// Lines by retry topic and partition.
type Lines<'a> = HashMap<Arc<str>, HashMap<i32, Line<'a>>>;

impl Line<'_> {
    fn is_done(&self) -> bool {
        self.found == self.tickets.len()
    }
}

impl Fetcher {
    pub(super) fn new(config: ClientConfig) -> Self {
        Self {
            config,
            messages: Messages::with_capacity(BURST_RECORDS),
            client: None,
        }
    }

    /// Fetches these records, in each key's order; blocks for a few seconds at most.
    pub(super) fn fetch(
        &mut self,
        engine: &Engine,
        wanted: &[(Arc<Partition>, Vec<Ticket>)],
    ) -> Fetched {
        let mut fetched = Fetched::default();
        let mut lines = Lines::default();
        for (partition, tickets) in wanted {
            let Some(retry) = &partition.retry else {
                continue;
            };
            let mut tickets = tickets.clone();
            tickets.sort_unstable_by_key(|ticket| ticket.offset);
            let offsets: Vec<i64> = tickets.iter().map(|ticket| ticket.offset).collect();
            let later = tickets.split_off(near(&offsets));
            fetched.left.extend(
                later
                    .into_iter()
                    .map(|ticket| (Arc::clone(partition), ticket)),
            );
            let line = Line {
                partition,
                tickets,
                found: 0,
            };
            let partitions = lines.entry(Arc::clone(&retry.topic)).or_default();
            partitions.insert(partition.partition, line);
        }
        if let Err(error) = self.read(engine, &mut lines, &mut fetched) {
            tracing::warn!(group = engine.group, %error, "parked records that are due cannot be fetched; they are fetched again");
            let all = lines.values().flat_map(HashMap::values);
            fetched
                .unanswered
                .extend(all.map(|line| line.partition.epoch));
        }
        // In the order in which they are wanted: a replay stands behind those that it goes before.
        let wanted = wanted.iter().flat_map(|(partition, tickets)| {
            let epoch = partition.epoch;
            tickets.iter().map(move |ticket| (epoch, ticket.offset))
        });
        let places: HashMap<_, _> = wanted.enumerate().map(|(at, place)| (place, at)).collect();
        fetched.records.sort_by_key(|picked| {
            let place = (picked.partition.epoch, picked.ticket.offset);
            places.get(&place).copied()
        });
        for line in lines.values().flat_map(HashMap::values) {
            let rest = line.tickets[line.found..].iter();
            fetched
                .left
                .extend(rest.map(|ticket| (Arc::clone(line.partition), *ticket)));
        }
        fetched
    }

    fn read(
        &mut self,
        engine: &Engine,
        lines: &mut Lines<'_>,
        fetched: &mut Fetched,
    ) -> KafkaResult<()> {
        if self.client.is_none() {
            let consumer: Arc<BaseConsumer> = Arc::new(self.config.create()?);
            let brokers = self.config.get("bootstrap.servers").unwrap_or_default();
            self.client = Some(FetchClient {
                _watched: Watched::new(consumer.client(), brokers, None),
                queue: ForwardedQueue::new(Arc::clone(&consumer)),
                consumer,
            });
        }
        let Some(FetchClient {
            queue, consumer, ..
        }) = &self.client
        else {
            return Ok(());
        };
        let mut list = TopicPartitionList::new();
        for (topic, partitions) in lines.iter() {
            for (partition, line) in partitions {
                let first = line.tickets.first().map_or(0, |ticket| ticket.offset);
                list.add_partition_offset(topic, *partition, Offset::Offset(first))?;
                forward(consumer, topic, *partition, queue.target())?;
            }
        }
        consumer.assign(&list)?;
        let deadline = Instant::now() + FETCH_WITHIN;
        let mut bytes = 0;
        let are_done = |lines: &Lines<'_>| {
            let mut lines = lines.values().flat_map(HashMap::values);
            lines.all(Line::is_done)
        };
        while !are_done(lines) && bytes < BYTES_MAX {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                look_for_missing(consumer, lines, fetched)?;
                break;
            }
            queue.take(
                &mut self.messages,
                BURST_RECORDS,
                left.min(Duration::from_millis(500)),
            );
            for message in self.messages.iter() {
                if bytes >= BYTES_MAX {
                    break;
                }
                let topic = message.topic().unwrap_or_default();
                let partitions = lines.get_mut(topic);
                let line = partitions.and_then(|found| found.get_mut(&message.partition()));
                if let Some(line) = line {
                    bytes += pick(engine, line, message, fetched);
                }
            }
            self.messages.clear();
            // Serves the client's events; records come on our queue.
            let _ = consumer.poll(Duration::ZERO);
        }
        consumer.unassign()?;
        for (topic, partitions) in lines.iter() {
            for partition in partitions.keys() {
                unforward(consumer, topic, *partition)?;
            }
        }
        Ok(())
    }
}

/// How many of these ascending offsets are read in one go: what stands far behind them is fetched on its own.
fn near(offsets: &[i64]) -> usize {
    let mut pairs = offsets.windows(2);
    let far = pairs.position(|pair| pair[1] - pair[0] > GAP_MAX);
    far.map_or(offsets.len(), |at| at + 1)
}

/// What did not come in time is not there any more if it stands outside of its partition.
fn look_for_missing(
    consumer: &BaseConsumer,
    lines: &mut Lines<'_>,
    fetched: &mut Fetched,
) -> KafkaResult<()> {
    for (topic, partitions) in lines {
        for (partition, line) in partitions.iter_mut().filter(|(_, line)| !line.is_done()) {
            let (low, high) = consumer.fetch_watermarks(topic, *partition, FETCH_WITHIN)?;
            let rest = line.tickets[line.found..].iter();
            let missing: Vec<Ticket> = rest
                .copied()
                .take_while(|ticket| ticket.offset < low || ticket.offset >= high)
                .collect();
            line.found += missing.len();
            if !line.is_done() {
                fetched.unanswered.insert(line.partition.epoch);
            }
            let missing = missing.into_iter();
            fetched
                .missing
                .extend(missing.map(|ticket| (Arc::clone(line.partition), ticket)));
        }
    }
    Ok(())
}

/// Takes a record if it is the next one that is wanted; how many bytes it has. Any other is let go by: a leftover of an earlier
/// fetch, or one that nobody waits for.
fn pick(
    engine: &Engine,
    line: &mut Line<'_>,
    message: Message<'_>,
    fetched: &mut Fetched,
) -> usize {
    let Some(ticket) = line.tickets.get(line.found).copied() else {
        return 0;
    };
    if message.error().is_some() || message.offset() != ticket.offset {
        return 0;
    }
    line.found += 1;
    let stored = Stored {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp_ms(),
        key: message.key(),
        value: message.value(),
    };
    let headers = message.take_headers();
    let budget = Some(Arc::clone(&engine.budget));
    let partition = Arc::clone(line.partition);
    let bytes = stored.value.map_or(0, <[u8]>::len) + stored.key.map_or(0, <[u8]>::len);
    if let Some(record) = restored(&partition.topic, stored, headers.iter(), budget) {
        fetched.records.push(Picked {
            partition,
            ticket,
            record,
            is_repetition: is_repetition(headers.iter()),
        });
    }
    bytes
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
