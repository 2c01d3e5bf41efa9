//! The thread that reads the retry partitions of the assigned partitions. What is due of them another one hands out
//! (`hand_out`).
//!
//! Owns a second client, which is assigned to its partitions directly and joins no group: whoever owns a partition reads
//! its retry partition, whatever the assignor. It commits nothing: that is the group's member's.

use super::super::engine::Engine;
use super::super::fall_back::Lost;
use super::super::ledger::Epoch;
use super::super::partition::Partition;
use super::begin::Unread;
use super::clock::Now;
use super::gap::{self, Came, Gap, Gaps};
use super::hand_out::{self, Dispatcher};
use super::lookup::{Answer, Asker};
use super::trouble::Troubles;
use super::{OPEN, RetryPartition, order_name};
use crate::event::Headers;
use crate::kafka::queue::{
    ForwardedQueue, Message, Messages, Watched, set_leader_epoch, unforward,
};
use crate::kafka::{KafkaConfig, KafkaError};
use crate::recovery::parked::{Entry, Owner};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, DefaultConsumerContext};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::HashMap;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Entries that are read at a time.
const BURST_RECORDS: usize = 1024;
/// How long the client may take to set a position.
const SEEK_WITHIN: Duration = Duration::from_secs(5);
/// How often partitions that could not be read are read anew: the client says nothing of one that it can read again.
const READ_AGAIN_EVERY: Duration = Duration::from_secs(2);
/// The component under which retry partitions that cannot be read show in the health.
const COMPONENT: &str = "retry_partitions";
/// How long the thread waits for entries. Orders wake it.
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
    orders: mpsc::Receiver<Order>,
    /// By the name of the retry topic and the partition's number.
    pub(super) followed: HashMap<Arc<str>, HashMap<i32, Arc<Partition>>>,
    pub(super) unread: Unread,
    pub(super) asker: Asker,
    pub(super) answers: mpsc::Receiver<Answer>,
    pub(super) troubles: Troubles,
    read_again_at: Instant,
    gaps: Gaps,
    messages: Messages,
    // These two before the client: they must go first.
    _watched: Watched,
    pub(super) queue: Arc<ForwardedQueue<DefaultConsumerContext>>,
    pub(super) consumer: Arc<BaseConsumer>,
}

impl Follower {
    /// A reader that follows nothing yet, and what hands out what it reads.
    pub(crate) fn new(
        engine: Arc<Engine>,
        kafka: &KafkaConfig,
        runtime: Handle,
        orders: mpsc::Receiver<Order>,
    ) -> Result<(Self, Dispatcher), KafkaError> {
        let mut config = client(kafka, &engine.group)?;
        let consumer: BaseConsumer = config.create().map_err(|source| KafkaError::Client {
            what: "the reader of the retry topics cannot be created".to_owned(),
            source,
        })?;
        let consumer = Arc::new(consumer);
        let queue = Arc::new(ForwardedQueue::new(Arc::clone(&consumer)));
        let (dispatcher, dispatched) = mpsc::channel();
        {
            let mut wakers = engine.parking.wakers();
            wakers.reader = Some(Arc::clone(&queue));
            wakers.dispatcher = Some(dispatcher.clone());
        }
        config.set("auto.offset.reset", "earliest");
        let dispatcher = Dispatcher::new(Arc::clone(&engine), config, dispatcher, dispatched);
        let (asker, answers) = Asker::new(
            Arc::clone(&engine),
            kafka.clone(),
            runtime,
            Arc::clone(&consumer),
            Arc::clone(&queue),
        );
        let follower = Self {
            engine,
            orders,
            followed: HashMap::new(),
            unread: Unread::default(),
            asker,
            answers,
            troubles: Troubles::default(),
            read_again_at: Instant::now(),
            gaps: Gaps::default(),
            messages: Messages::with_capacity(BURST_RECORDS),
            _watched: Watched::new(consumer.client(), &kafka.brokers, None),
            queue,
            consumer,
        };
        Ok((follower, dispatcher))
    }

    /// Follows until told to end.
    pub(crate) fn run(mut self) {
        loop {
            loop {
                match self.orders.try_recv() {
                    Ok(Order::Assigned(partitions)) => self.unread.add(partitions),
                    Ok(Order::Revoked(epochs)) => self.forget(&epochs),
                    Ok(Order::Close) | Err(mpsc::TryRecvError::Disconnected) => return,
                    Err(mpsc::TryRecvError::Empty) => break,
                }
            }
            self.look_up();
            self.read();
            self.read_again();
            self.serve_events();
            if let Some(state) = self.troubles.news() {
                self.engine.health.set_ready(COMPONENT, state);
            }
        }
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
        for partition in self.unread.forget(epochs) {
            if let Some(retry) = &partition.retry {
                self.troubles.remove(&retry.topic, partition.partition);
            }
        }
        let gone = hand_out::Order::Gone(epochs.to_vec());
        self.engine.parking.tell_dispatcher(gone);
        self.gaps.forget(epochs);
        self.engine.control.forget_drops(epochs);
        self.engine.forget_losses(epochs);
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
            self.engine
                .parking
                .bounds()
                .forget(element.topic(), element.partition());
            self.troubles
                .remove(&element.topic().into(), element.partition());
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
        let now = Now::read();
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
                && !self.take_in(&run, &partition, now)
            {
                interrupted.push(partition.epoch);
            }
        }
        messages.clear();
        self.messages = messages;
    }

    /// Takes in a run; false when what follows is to come again.
    fn take_in(&mut self, run: &[Message<'_>], partition: &Arc<Partition>, now: Now) -> bool {
        let Some(retry) = &partition.retry else {
            return true;
        };
        let next = retry.state().next();
        let first = run.iter().find(|message| message.error().is_none());
        if let Some(epoch) = first.and_then(|first| retry.doubt(first.leader_epoch()))
            && self.ask_about(partition.partition, retry, next, epoch)
        {
            return false;
        }
        let Some(gap) = gap::find(next, run.iter().map(came)) else {
            return self.enter(run, partition, retry, now);
        };
        if self.gaps.is_known(partition.epoch, &gap) {
            tracing::error!(group = self.engine.group, topic = %retry.topic, partition = partition.partition, offset = gap.missing, "the retry partition has a gap: records were taken from its middle");
            return self.enter(run, partition, retry, now);
        }
        self.enter(&run[..gap.at], partition, retry, now);
        self.ask_again(&gap, partition, retry);
        false
    }

    /// Enters what came into the parked set; false when the log does not have what was asked for.
    fn enter(
        &mut self,
        run: &[Message<'_>],
        partition: &Arc<Partition>,
        retry: &RetryPartition,
        now: Now,
    ) -> bool {
        let entries = run.iter().filter(|message| message.error().is_none());
        retry.led_by(entries.filter_map(Message::leader_epoch).max());
        let (mut is_anew, mut outlived) = (false, None);
        let (mut trouble, mut is_read, mut foreign) = (None, false, None);
        let owner = Owner {
            group: &self.engine.group,
            topic: &partition.topic,
        };
        retry.change(|state| {
            for message in run {
                is_read |= matches!(came(message), Came::Entry(_) | Came::End(_));
                match message.error() {
                    None => {
                        if state.led_by(message.leader_epoch()) {
                            outlived = Some(message.offset());
                        }
                        let headers: Headers = message.take_headers().iter().collect();
                        let name = order_name(&self.engine.settings, message.key());
                        let entry = Entry::read(headers.iter(), owner);
                        if entry == Entry::Foreign {
                            foreign.get_or_insert((message.offset(), headers));
                        }
                        let entry = now.translated(entry);
                        state.seen(message.offset(), name, entry, now.steady_ms);
                    }
                    Some(RDKafkaErrorCode::PartitionEOF) => state.reached(message.offset()),
                    // Nothing of it is handed out.
                    Some(RDKafkaErrorCode::AutoOffsetReset)
                        if !retry.is_anew() && (!retry.is_open() || state.keys() == 0) =>
                    {
                        is_anew = true;
                    }
                    Some(RDKafkaErrorCode::AutoOffsetReset) => self.engine.fail_position(format!(
                        "the retry partition {}/{} does not have the offset {} any more that comes next",
                        retry.topic, partition.partition, state.next()
                    )),
                    Some(error) => {
                        trouble = Some(ClientError::MessageConsumption(error));
                    }
                }
            }
        });
        let number = partition.partition;
        if let Some(offset) = outlived {
            let place = (&*retry.topic, number);
            self.engine
                .position_lost(place, Lost::Truncated, None, Some(offset));
        }
        if is_anew {
            retry.set_anew();
            self.forget(&[partition.epoch]);
            self.unread.add(vec![Arc::clone(partition)]);
            return false;
        }
        if let Some((offset, headers)) = foreign {
            self.meet_foreign(retry, number, offset, &headers);
        }
        if is_read {
            self.troubles.remove(&retry.topic, number);
        }
        if let Some(error) = trouble {
            if !self.troubles.has(&retry.topic, number) {
                tracing::error!(group = self.engine.group, topic = %retry.topic, partition = number, %error, "the retry partition cannot be read");
            }
            self.troubles.add(&retry.topic, number, error.into());
        }
        open(&self.engine, retry);
        if is_read {
            self.engine.parking.wake_dispatcher();
        }
        true
    }

    /// An entry is another group's, whose names run together with this one's. It is let alone, and what stands before it is the
    /// last that is ever deleted.
    fn meet_foreign(&self, retry: &RetryPartition, number: i32, offset: i64, headers: &Headers) {
        if self
            .engine
            .parking
            .bounds()
            .meet_foreign(&retry.topic, number, offset)
        {
            let (group, topic) = Owner::said(headers);
            tracing::warn!(group = self.engine.group, retry_topic = %retry.topic, partition = number, offset, other_group = group, other_topic = topic, "the retry topic is that of another group, too: their names run together; each keeps to its own entries, and settled ones are not deleted any more; rename one of the groups");
        }
    }

    /// Reads partitions in trouble anew from where they were read to: when they can be read again, even though nothing new stands
    /// there, the client tells their end.
    fn read_again(&mut self) {
        if self.troubles.is_empty() || Instant::now() < self.read_again_at {
            return;
        }
        self.read_again_at = Instant::now() + READ_AGAIN_EVERY;
        for (topic, partitions) in &self.followed {
            for (number, partition) in partitions {
                let Some(retry) = &partition.retry else {
                    continue;
                };
                if self.troubles.has(topic, *number) {
                    let place = Offset::Offset(retry.state().next());
                    if let Err(error) = self.consumer.seek(topic, *number, place, SEEK_WITHIN) {
                        tracing::debug!(group = self.engine.group, %topic, partition = number, %error, "the retry partition cannot be read anew");
                    }
                }
            }
        }
    }

    /// Has everything come again if the log still has what was committed; the client says so if not. False when it cannot ask.
    fn ask_about(&self, number: i32, retry: &RetryPartition, next: i64, epoch: i32) -> bool {
        let mut place = TopicPartitionList::new();
        let asked = place
            .add_partition_offset(&retry.topic, number, Offset::Offset(next))
            .and_then(|()| set_leader_epoch(&place, &retry.topic, number, Some(epoch)))
            .and_then(|()| self.consumer.seek_partitions(place, SEEK_WITHIN))
            .and_then(|sought| {
                sought
                    .elements()
                    .iter()
                    .try_for_each(TopicPartitionListElem::error)
            });
        if let Err(error) = &asked {
            tracing::warn!(group = self.engine.group, topic = %retry.topic, partition = number, %error, "it cannot be asked whether the retry partition was truncated");
        }
        asked.is_ok()
    }

    /// Has everything come again from where a gap begins.
    fn ask_again(&mut self, gap: &Gap, partition: &Partition, retry: &RetryPartition) {
        let (topic, number) = (&retry.topic, partition.partition);
        let place = Offset::Offset(gap.missing);
        match self.consumer.seek(topic, number, place, SEEK_WITHIN) {
            Ok(()) => self.gaps.asked(partition.epoch, gap),
            Err(error) => {
                tracing::warn!(group = self.engine.group, %topic, partition = number, %error, "the retry partition cannot be read again from where a gap is");
            }
        }
    }

    fn wait(&self) -> Duration {
        let mut wait = self
            .unread
            .next()
            .map_or(QUIET, |next| next.saturating_duration_since(Instant::now()));
        if !self.troubles.is_empty() {
            wait = wait.min(self.read_again_at.saturating_duration_since(Instant::now()));
        }
        wait.min(QUIET)
    }
}

/// However the thread ends, the other one ends with it.
impl Drop for Follower {
    fn drop(&mut self) {
        self.engine.parking.tell_dispatcher(hand_out::Order::Close);
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
        retry.set_gate(OPEN);
        engine.wake_intake();
    }
}
