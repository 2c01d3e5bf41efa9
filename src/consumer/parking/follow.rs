//! The thread that reads the retry partitions of the assigned partitions, and hands out what is due.
//!
//! Owns a second client, which is assigned to its partitions directly and joins no group: whoever owns a partition reads
//! its retry partition, whatever the assignor. It commits nothing: that is the group's member's.

use super::super::engine::Engine;
use super::super::ledger::Epoch;
use super::super::metadata::{self, Tag};
use super::super::partition::Partition;
use super::super::prepare;
use super::super::worker::{Message as WorkerMessage, ParkedRecord};
use super::fetch::Fetcher;
use super::write::now_ms;
use super::{RetryPartition, order_name};
use crate::event::Headers;
use crate::kafka::queue::{ForwardedQueue, Message, Messages, committed, forward, unforward};
use crate::kafka::{KafkaConfig, KafkaError};
use crate::recovery::parked::Entry;
use crate::recovery::parking::{Parking, Ticket};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, DefaultConsumerContext};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Entries that are read at a time.
const BURST_RECORDS: usize = 1024;
/// How long to wait for the brokers to say where retry partitions begin and end.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long the thread waits when nothing is due. Orders and workers wake it.
const QUIET: Duration = Duration::from_secs(1);
/// How long it waits before it asks again what was not answered.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How long to wait before the retry topics are looked at again for partitions that they lack.
const GROW_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long a record waits that could not be fetched.
const FETCH_AGAIN_AFTER_MS: i64 = 1_000;

/// What the thread is told.
pub(crate) enum Order {
    /// These partitions were assigned.
    Assigned(Vec<Arc<Partition>>),
    /// These went.
    Revoked(Vec<Epoch>),
    /// End.
    Close,
}

/// The reader of retry partitions.
pub(crate) struct Follower {
    engine: Arc<Engine>,
    kafka: KafkaConfig,
    runtime: Handle,
    grown_at: Option<Instant>,
    orders: mpsc::Receiver<Order>,
    /// By the name of the retry topic and the partition's number.
    followed: HashMap<Arc<str>, HashMap<i32, Arc<Partition>>>,
    /// Assigned, and not known yet where their retry partitions begin and end.
    unknown: Vec<Arc<Partition>>,
    fetcher: Fetcher,
    messages: Messages,
    // Before the client: the queue must go first.
    queue: Arc<ForwardedQueue<DefaultConsumerContext>>,
    consumer: Arc<BaseConsumer>,
}

impl Follower {
    /// A reader that follows nothing yet.
    pub(crate) fn new(
        engine: Arc<Engine>,
        kafka: &KafkaConfig,
        runtime: Handle,
        orders: mpsc::Receiver<Order>,
    ) -> Result<Self, KafkaError> {
        let config = client(kafka, &engine.group)?;
        let consumer: BaseConsumer = config.create().map_err(|source| KafkaError::Client {
            what: "the reader of the retry topics cannot be created".to_owned(),
            source,
        })?;
        let consumer = Arc::new(consumer);
        let queue = Arc::new(ForwardedQueue::new(Arc::clone(&consumer)));
        engine.parking.set_waker(Some(Arc::clone(&queue)));
        Ok(Self {
            fetcher: Fetcher::new(config),
            engine,
            kafka: kafka.clone(),
            runtime,
            grown_at: None,
            orders,
            followed: HashMap::new(),
            unknown: Vec::new(),
            messages: Messages::with_capacity(BURST_RECORDS),
            queue,
            consumer,
        })
    }

    /// Follows until told to end.
    pub(crate) fn run(mut self) {
        loop {
            loop {
                match self.orders.try_recv() {
                    Ok(Order::Assigned(partitions)) => self.unknown.extend(partitions),
                    Ok(Order::Revoked(epochs)) => self.forget(&epochs),
                    Ok(Order::Close) | Err(mpsc::TryRecvError::Disconnected) => {
                        return self.close();
                    }
                    Err(mpsc::TryRecvError::Empty) => break,
                }
            }
            self.look_up();
            self.hand_out();
            self.read();
            self.serve_events();
        }
    }

    fn close(self) {
        self.engine.parking.set_waker(None);
    }

    /// Errors of this client. The group's member reports on the cluster.
    fn serve_events(&self) {
        while let Some(event) = self.consumer.poll(Duration::ZERO) {
            if let Err(error) = event {
                tracing::debug!(group = self.engine.group, %error, "the reader of the retry topics reports an error");
            }
        }
    }

    /// Finds out where newly assigned retry partitions begin and end, and starts to read them.
    fn look_up(&mut self) {
        if self.unknown.is_empty() {
            return;
        }
        match self.begin() {
            Ok(()) => self.unknown.clear(),
            Err(error) => {
                tracing::warn!(group = self.engine.group, %error, "the retry partitions cannot be looked up; their partitions wait for that");
                if error.rdkafka_error_code().is_some_and(is_unknown) {
                    self.grow();
                }
            }
        }
    }

    /// The source has partitions that the retry topic lacks: it was given more.
    fn grow(&mut self) {
        let is_early = |grown_at: Instant| grown_at.elapsed() < GROW_AGAIN_AFTER;
        if self.grown_at.is_some_and(is_early) {
            return;
        }
        self.grown_at = Some(Instant::now());
        let growing = prepare::grow(&self.kafka, &self.engine.settings);
        match self.runtime.block_on(growing) {
            Ok(topics) => self.engine.parking.set_topics(topics),
            Err(error) => {
                tracing::warn!(group = self.engine.group, %error, "retry topics cannot be given more partitions");
            }
        }
    }

    fn begin(&mut self) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for partition in &self.unknown {
            if let Some(retry) = &partition.retry {
                list.add_partition_offset(&retry.topic, partition.partition, Offset::End)?;
            }
        }
        let committed = committed(&self.consumer, &list, ANSWER_WITHIN)?;
        let ends = self.consumer.offsets_for_times(list, ANSWER_WITHIN)?;
        let mut assigned = TopicPartitionList::new();
        for partition in &self.unknown {
            let Some(retry) = &partition.retry else {
                continue;
            };
            let number = partition.partition;
            let Some(element) = ends.find_partition(&retry.topic, number) else {
                continue;
            };
            element.error()?;
            let end = element.offset().to_raw().unwrap_or(0).max(0);
            let found = committed
                .iter()
                .find(|found| found.topic == *retry.topic && found.partition == number);
            // Beyond the end: the topic was made anew.
            let start = found
                .and_then(|found| found.offset)
                .filter(|start| *start <= end);
            let settled_above = match (start, found) {
                (Some(start), Some(found)) => {
                    let tag = Tag {
                        group: &self.engine.group,
                        topic: &retry.topic,
                        partition: number,
                    };
                    metadata::decode(tag, start, &found.metadata)
                }
                _ => metadata::SettledAbove::default(),
            };
            let wait_max = self.engine.settings.retry.park_delay_max();
            let wait_max_ms = i64::try_from(wait_max.as_millis()).unwrap_or(i64::MAX);
            let from = start.unwrap_or(0);
            let state = Parking::new(from, end, settled_above.runs(), wait_max_ms);
            retry.change(|set| *set = state);
            forward(&self.consumer, &retry.topic, number, self.queue.target())?;
            let offset = start.map_or(Offset::Beginning, Offset::Offset);
            assigned.add_partition_offset(&retry.topic, number, offset)?;
        }
        self.consumer.incremental_assign(&assigned)?;
        for partition in &self.unknown {
            if let Some(retry) = &partition.retry {
                self.open(retry);
                let partitions = self.followed.entry(Arc::clone(&retry.topic)).or_default();
                partitions.insert(partition.partition, Arc::clone(partition));
            }
        }
        Ok(())
    }

    /// Lets the partition's own records come once the set is whole.
    fn open(&self, retry: &RetryPartition) {
        if !retry.is_open() && retry.state().is_whole() {
            retry.is_open.store(true, Relaxed);
            self.engine.wake_intake();
        }
    }

    fn forget(&mut self, epochs: &[Epoch]) {
        self.unknown
            .retain(|partition| !epochs.contains(&partition.epoch));
        let mut gone = TopicPartitionList::new();
        for (topic, partitions) in &mut self.followed {
            partitions.retain(|number, partition| {
                let stays = !epochs.contains(&partition.epoch);
                if !stays {
                    gone.add_partition(topic, *number);
                }
                stays
            });
        }
        if gone.count() == 0 {
            return;
        }
        if let Err(error) = self.consumer.incremental_unassign(&gone) {
            tracing::warn!(group = self.engine.group, %error, "retry partitions cannot be unassigned");
        }
        for element in gone.elements() {
            // An unknown partition has no queue that could be forwarded.
            let _ = unforward(&self.consumer, element.topic(), element.partition());
        }
    }

    /// Waits for entries, for an order or until something is due, and enters what came.
    fn read(&mut self) {
        let timeout = self.wait();
        let mut messages = std::mem::replace(&mut self.messages, Messages::with_capacity(0));
        self.queue
            .wait_and_take(&mut messages, BURST_RECORDS, timeout);
        let now_ms = now_ms();
        let mut at = 0;
        while at < messages.len() {
            let first = messages.get(at);
            let is_of_run = |message: &Message<'_>| {
                message.topic_handle() == first.topic_handle()
                    && message.partition() == first.partition()
            };
            let run = (at..messages.len()).map(|index| messages.get(index));
            let run: Vec<Message<'_>> = run.take_while(is_of_run).collect();
            at += run.len();
            let followed = first.topic().and_then(|topic| self.followed.get(topic));
            if let Some(partition) = followed.and_then(|found| found.get(&first.partition())) {
                self.enter(&run, partition, now_ms);
            }
        }
        messages.clear();
        self.messages = messages;
    }

    fn enter(&self, run: &[Message<'_>], partition: &Partition, now_ms: i64) {
        let Some(retry) = &partition.retry else {
            return;
        };
        let mut next = retry.state().next();
        let mut is_fresh = |message: &&Message<'_>| {
            // Offsets of a retry topic have no gaps but at its beginning.
            let offset = message.offset();
            let is_gap = message.error().is_none() && offset > next;
            if is_gap && self.is_leftover(retry, partition, next) {
                return false;
            }
            next = next.max(offset + i64::from(message.error().is_none()));
            true
        };
        let fresh: Vec<&Message<'_>> = run.iter().filter(|message| is_fresh(message)).collect();
        retry.change(|state| {
            for message in fresh {
                match message.error() {
                    None => {
                        let headers: Headers = message.take_headers().iter().collect();
                        let name = order_name(&self.engine.settings, message.key());
                        let entry = Entry::read(headers.iter());
                        state.seen(message.offset(), name, entry, now_ms);
                    }
                    Some(RDKafkaErrorCode::PartitionEOF) => state.reached(message.offset()),
                    Some(error) => {
                        tracing::error!(group = self.engine.group, topic = %retry.topic, partition = partition.partition, %error, "the retry partition cannot be read");
                    }
                }
            }
        });
        self.open(retry);
    }

    /// Whether a record beyond `next` is one of an earlier assignment, because those before it are still there.
    fn is_leftover(&self, retry: &RetryPartition, partition: &Partition, next: i64) -> bool {
        let ends = self
            .consumer
            .fetch_watermarks(&retry.topic, partition.partition, ANSWER_WITHIN);
        ends.map_or(true, |(low, _)| low <= next)
    }

    fn wait(&self) -> Duration {
        if !self.unknown.is_empty() {
            return AGAIN_AFTER;
        }
        if self.engine.parking.room() == 0 {
            return QUIET;
        }
        let used = self.partitions().filter(|retry| !retry.is_empty());
        let due_ms = used.filter_map(|retry| retry.state().due_ms()).min();
        let Some(due_ms) = due_ms else { return QUIET };
        let left_ms = due_ms.saturating_sub(now_ms()).max(0);
        Duration::from_millis(left_ms.unsigned_abs()).min(QUIET)
    }

    fn partitions(&self) -> impl Iterator<Item = &RetryPartition> {
        let followed = self.followed.values().flat_map(HashMap::values);
        followed.filter_map(|partition| partition.retry.as_ref())
    }

    /// Hands what is due to the workers.
    fn hand_out(&mut self) {
        let now_ms = now_ms();
        let mut room = self.engine.parking.room();
        let mut wanted = Vec::new();
        for partition in self.followed.values().flat_map(HashMap::values) {
            let Some(retry) = partition.retry.as_ref().filter(|retry| !retry.is_empty()) else {
                continue;
            };
            let tickets = retry.change(|state| state.take_due(now_ms, room));
            room -= tickets.len();
            if !tickets.is_empty() {
                wanted.push((Arc::clone(partition), tickets));
            }
        }
        if wanted.is_empty() {
            return;
        }
        let fetched = self.fetcher.fetch(&self.engine, &wanted);
        let until_ms = match fetched.failed {
            true => now_ms.saturating_add(FETCH_AGAIN_AFTER_MS),
            false => now_ms,
        };
        self.settle_missing(&fetched.missing);
        for (partition, ticket) in fetched.left.iter().rev() {
            if let Some(retry) = &partition.retry {
                retry.change(|state| state.hand_back(*ticket, until_ms));
            }
        }
        self.engine.admitted(fetched.records.len());
        self.engine
            .parking
            .loaded
            .fetch_add(fetched.records.len(), Relaxed);
        for (partition, ticket, record) in fetched.records {
            let hash = {
                let routing = &self.engine.routing;
                let seed = routing.seed(&partition.topic);
                routing.hash(
                    seed,
                    partition.partition,
                    record.key(),
                    ticket.offset as u64,
                )
            };
            let worker = self.engine.routing.worker(hash);
            let parked = ParkedRecord {
                record,
                partition,
                ticket,
                hash,
            };
            self.engine.workers[worker].send(WorkerMessage::Parked(parked));
        }
    }

    /// Records that are not on the log any more: somebody deleted them. What waits behind them goes on.
    fn settle_missing(&self, missing: &[(Arc<Partition>, Ticket)]) {
        for (partition, ticket) in missing {
            let Some(retry) = &partition.retry else {
                continue;
            };
            tracing::error!(group = self.engine.group, topic = %retry.topic, partition = partition.partition, offset = ticket.offset, "a parked record is not in the retry topic any more: it was deleted there, and is lost");
            retry.change(|state| {
                state.settle(*ticket);
                // It was not the first of its key: it is found missing again in its turn.
                state.hand_back(*ticket, 0);
            });
        }
    }
}

fn is_unknown(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopic
    )
}

/// The settings of a client that reads retry partitions.
fn client(kafka: &KafkaConfig, group: &str) -> Result<ClientConfig, KafkaError> {
    let mut config = kafka.consumer(group)?;
    config
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "true")
        .set("queued.min.messages", "10000");
    config.remove("group.instance.id");
    config.remove("group.protocol");
    Ok(config)
}
