//! The thread that reads the retry partitions of the assigned partitions, and hands out what is due (`hand_out`).
//!
//! Owns a second client, which is assigned to its partitions directly and joins no group: whoever owns a partition reads
//! its retry partition, whatever the assignor. It commits nothing: that is the group's member's.

use super::super::engine::Engine;
use super::super::ledger::Epoch;
use super::super::partition::Partition;
use super::fetch::Fetcher;
use super::gap::{self, Came, Gap, Gaps};
use super::write::now_ms;
use super::{RetryPartition, order_name};
use crate::event::Headers;
use crate::kafka::queue::{ForwardedQueue, Message, Messages, Watched, unforward};
use crate::kafka::{KafkaConfig, KafkaError};
use crate::recovery::parked::Entry;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, DefaultConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Entries that are read at a time.
const BURST_RECORDS: usize = 1024;
/// How long to wait for the brokers to say where retry partitions begin and end.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long the thread waits when nothing is due. Orders and workers wake it.
const QUIET: Duration = Duration::from_secs(1);

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
    pub(super) engine: Arc<Engine>,
    pub(super) kafka: KafkaConfig,
    pub(super) runtime: Handle,
    pub(super) grown_at: Option<Instant>,
    orders: mpsc::Receiver<Order>,
    /// By the name of the retry topic and the partition's number.
    pub(super) followed: HashMap<Arc<str>, HashMap<i32, Arc<Partition>>>,
    /// Assigned, and not known yet where their retry partitions begin and end.
    pub(super) unknown: Vec<Arc<Partition>>,
    pub(super) look_up_at: Instant,
    gaps: Gaps,
    pub(super) fetcher: Fetcher,
    messages: Messages,
    // These two before the client: they must go first.
    _watched: Watched,
    pub(super) queue: Arc<ForwardedQueue<DefaultConsumerContext>>,
    pub(super) consumer: Arc<BaseConsumer>,
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
            fetcher: Fetcher::new({
                let mut config = config;
                config.set("auto.offset.reset", "earliest");
                config
            }),
            engine,
            kafka: kafka.clone(),
            runtime,
            grown_at: None,
            orders,
            followed: HashMap::new(),
            unknown: Vec::new(),
            look_up_at: Instant::now(),
            gaps: Gaps::default(),
            messages: Messages::with_capacity(BURST_RECORDS),
            _watched: Watched::new(consumer.client(), &kafka.brokers, None),
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

    fn forget(&mut self, epochs: &[Epoch]) {
        self.unknown
            .retain(|partition| !epochs.contains(&partition.epoch));
        self.gaps.forget(epochs);
        self.engine.control.forget_drops(epochs);
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
        // Of these, what was taken already is passed over: it comes again.
        let mut interrupted = Vec::new();
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
            let followed = followed.and_then(|found| found.get(&first.partition()));
            if let Some(partition) = followed.cloned()
                && !interrupted.contains(&partition.epoch)
                && !self.take_in(&run, &partition, now_ms)
            {
                interrupted.push(partition.epoch);
            }
        }
        messages.clear();
        self.messages = messages;
    }

    /// Takes in a run; false when what follows is to come again.
    fn take_in(&mut self, run: &[Message<'_>], partition: &Partition, now_ms: i64) -> bool {
        let Some(retry) = &partition.retry else {
            return true;
        };
        let next = retry.state().next();
        let Some(gap) = gap::find(next, run.iter().map(came)) else {
            self.enter(run, partition, retry, now_ms);
            return true;
        };
        if self.gaps.is_known(partition.epoch, &gap) {
            tracing::error!(group = self.engine.group, topic = %retry.topic, partition = partition.partition, offset = gap.missing, "the retry partition has a gap: records were taken from its middle");
            self.enter(run, partition, retry, now_ms);
            return true;
        }
        self.enter(&run[..gap.at], partition, retry, now_ms);
        self.ask_again(&gap, partition, retry);
        false
    }

    /// Enters what came into the parked set.
    fn enter(
        &self,
        run: &[Message<'_>],
        partition: &Partition,
        retry: &RetryPartition,
        now_ms: i64,
    ) {
        retry.change(|state| {
            for message in run {
                match message.error() {
                    None => {
                        let headers: Headers = message.take_headers().iter().collect();
                        let name = order_name(&self.engine.settings, message.key());
                        let entry = Entry::read(headers.iter());
                        state.seen(message.offset(), name, entry, now_ms);
                    }
                    Some(RDKafkaErrorCode::PartitionEOF) => state.reached(message.offset()),
                    Some(RDKafkaErrorCode::AutoOffsetReset) => self.engine.fail_position(format!(
                        "the retry partition {}/{} does not have the offset {} any more that comes next",
                        retry.topic, partition.partition, state.next()
                    )),
                    Some(error) => {
                        tracing::error!(group = self.engine.group, topic = %retry.topic, partition = partition.partition, %error, "the retry partition cannot be read");
                    }
                }
            }
        });
        open(&self.engine, retry);
    }

    /// Has everything come again from where a gap begins.
    fn ask_again(&mut self, gap: &Gap, partition: &Partition, retry: &RetryPartition) {
        let (topic, number) = (&retry.topic, partition.partition);
        let place = Offset::Offset(gap.missing);
        match self.consumer.seek(topic, number, place, ANSWER_WITHIN) {
            Ok(()) => self.gaps.asked(partition.epoch, gap),
            Err(error) => {
                tracing::warn!(group = self.engine.group, %topic, partition = number, %error, "the retry partition cannot be read again from where a gap is");
            }
        }
    }

    pub(super) fn room(&self) -> usize {
        let held_bytes = self.engine.budget.load(Relaxed);
        self.engine.parking.room(&self.engine.settings, held_bytes)
    }

    fn wait(&self) -> Duration {
        if !self.unknown.is_empty() {
            let left = self.look_up_at.saturating_duration_since(Instant::now());
            return left.min(QUIET);
        }
        if self.room() == 0 {
            return QUIET;
        }
        let used = self
            .partitions()
            .filter(|retry| !retry.is_empty() && retry.is_open());
        let due_ms = used.filter_map(|retry| retry.state().due_ms()).min();
        let Some(due_ms) = due_ms else { return QUIET };
        let left_ms = due_ms.saturating_sub(now_ms()).max(0);
        Duration::from_millis(left_ms.unsigned_abs()).min(QUIET)
    }

    fn partitions(&self) -> impl Iterator<Item = &RetryPartition> {
        let followed = self.followed.values().flat_map(HashMap::values);
        followed.filter_map(|partition| partition.retry.as_ref())
    }
}

/// What a message says of the offsets of its partition.
fn came(message: &Message<'_>) -> Came {
    match message.error() {
        None => Came::Entry(message.offset()),
        Some(RDKafkaErrorCode::PartitionEOF) => Came::End(message.offset()),
        Some(_) => Came::Nothing,
    }
}

pub(super) fn is_unknown(code: RDKafkaErrorCode) -> bool {
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
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("queued.min.messages", "10000");
    config.remove("group.instance.id");
    config.remove("group.protocol");
    Ok(config)
}

/// Lets the partition's own records come once the set is whole.
pub(super) fn open(engine: &Engine, retry: &RetryPartition) {
    if !retry.is_open() && retry.state().is_whole() {
        retry.set_open();
        engine.wake_intake();
    }
}
