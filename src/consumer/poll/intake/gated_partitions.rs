//! Gated partitions: their records wait until it is known which of their keys have parked records.
//!
//! A gated partition is forwarded to a queue of its own. Its messages are taken from there and
//! buffered, up to a limit of bytes for all of them. Messages above the limit are dropped and
//! fetched again: the partition is sought back to the first message that was dropped.
//!
//! Order: the buffered messages of a partition are passed on first, then those that the client
//! forwards to the open queue. The switch between the queues happens on this thread, after the
//! gated queue was emptied.
//!
//! # Example
//!
//! A rebalance assigns a partition at offset 70. The client fetches at once, and 70 to 99 are
//! buffered; at 100 the limit of bytes is reached, and `fetch_again_from` is 100. The retry reader
//! reaches the end of the retry partition, and the gate opens: the client is sought to 100 and
//! forwards to the open queue, and 70 to 99 are passed on before anything from there.

use crate::consumer::commit::TopicPartition;
use crate::consumer::poll::rebalance::RebalanceContext;
use crate::consumer::state::assignments::Assignments;
use crate::consumer::state::offset_tracker::Epoch;
use crate::consumer::state::retry_partition::RetryPartition;
use crate::kafka::native::{ForwardTarget, ForwardedQueue, Messages, OneMessage, forward};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes buffered of all gated partitions together.
const BUFFERED_BYTES_MAX: usize = 6 << 20;
/// The approximate overhead of a message beside its key and value.
const MESSAGE_BYTES: usize = 256;
/// How long a seek may take. It blocks intake.
const SEEK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long to wait before a failed seek is tried again.
const SEEK_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Messages taken at a time.
const MESSAGES_MAX: usize = 1024;

/// The messages of gated partitions, and of partitions whose gate has just opened.
pub(crate) struct GatedPartitions {
    /// The queue that gated partitions are forwarded to.
    queue: ForwardedQueue<RebalanceContext>,
    messages: Messages,
    /// The buffered messages, by the epoch of the partition. Those of a revoked or paused epoch are
    /// dropped.
    buffered: HashMap<Epoch, BufferedMessages>,
    /// Whether messages of ungated partitions are buffered.
    has_ungated: bool,
    /// When a seek may be tried again after a failure.
    seek_at: Option<Instant>,
}

/// The result of a check of the gates.
#[derive(Default)]
pub(crate) struct GateCheck {
    has_opened: bool,
    has_closed: bool,
    /// Whether a seek to messages that were not buffered failed.
    has_failed: bool,
}

/// Messages of one partition, in order.
struct BufferedMessages {
    topic: Arc<str>,
    partition: i32,
    messages: VecDeque<OneMessage>,
    bytes: usize,
}

impl GatedPartitions {
    /// Without partitions.
    pub(crate) fn new(queue: ForwardedQueue<RebalanceContext>) -> Self {
        Self {
            queue,
            messages: Messages::with_capacity(MESSAGES_MAX),
            buffered: HashMap::new(),
            has_ungated: false,
            seek_at: None,
        }
    }

    /// The queue that gated partitions are forwarded to.
    pub(crate) fn target(&self) -> ForwardTarget {
        self.queue.target()
    }

    /// Opens the gates of partitions whose parked sets are complete. Returns whether others are
    /// still gated. The poll thread calls it on every turn.
    ///
    /// A partition whose retry topic does not exist opens as well: nothing is parked there.
    pub(crate) fn advance(&mut self, consumer: &BaseConsumer<RebalanceContext>) -> bool {
        let member = consumer.context();
        let may_seek = self.seek_at.is_none_or(|at| Instant::now() >= at);
        let check = member.open_gates(consumer, may_seek);
        self.seek_at = match may_seek {
            true => check
                .has_failed
                .then(|| Instant::now() + SEEK_RETRY_INTERVAL),
            false => self.seek_at,
        };
        if !self.buffered.is_empty() {
            let mut assignments = member.assignments();
            self.buffered.retain(|epoch, buffered| {
                let assigned = assignments.get(&buffered.topic, buffered.partition);
                assigned.is_some_and(|assigned| assigned.is_of(*epoch))
            });
        }
        if check.has_opened || !check.has_closed {
            self.drain_queue(&mut member.assignments());
            self.has_ungated = !self.buffered.is_empty();
        }
        check.has_closed
    }

    /// Whether messages of ungated partitions are buffered: they may be passed on.
    pub(crate) fn has_ungated(&self) -> bool {
        self.has_ungated
    }

    /// Moves messages of ungated partitions into `messages`, up to `room` of them.
    ///
    /// Messages of partitions that were revoked or paused meanwhile are dropped.
    pub(crate) fn pass_on(
        &mut self,
        messages: &mut Messages,
        room: usize,
        assignments: &mut Assignments,
    ) {
        self.has_ungated = false;
        self.buffered.retain(|epoch, buffered| {
            let assigned = assignments.get(&buffered.topic, buffered.partition);
            let Some(assigned) = assigned.filter(|assigned| assigned.is_of(*epoch)) else {
                return false;
            };
            if assigned.is_gated {
                return true;
            }
            while messages.len() < room
                && let Some(message) = buffered.messages.pop_front()
            {
                messages.push(message);
            }
            let is_left = !buffered.messages.is_empty();
            self.has_ungated |= is_left;
            is_left
        });
    }

    /// Empties the queue. No message of a partition that has just opened is left behind: the client
    /// adds fetched messages to one of the two queues, and no longer to this one.
    fn drain_queue(&mut self, assignments: &mut Assignments) {
        let mut messages = std::mem::replace(&mut self.messages, Messages::with_capacity(0));
        let mut bytes = self.buffered.values().map(|buffered| buffered.bytes).sum();
        loop {
            self.queue.take(&mut messages, MESSAGES_MAX, Duration::ZERO);
            if messages.len() == 0 {
                break;
            }
            for message in messages.drain() {
                self.buffer(message, assignments, &mut bytes);
            }
        }
        self.messages = messages;
    }

    /// Buffers a message, up to the limit of bytes. `bytes` is the sum of all buffered messages.
    ///
    /// An error is buffered like a message, in its place. A message that is not buffered, and all
    /// later ones of its partition, are fetched again.
    fn buffer(&mut self, one: OneMessage, assignments: &mut Assignments, bytes: &mut usize) {
        let message = one.get();
        let number = message.partition();
        let topic = message.topic();
        let assigned = topic.and_then(|topic| assignments.get(topic, number));
        let Some(assigned) = assigned.filter(|assigned| assigned.held.is_none()) else {
            return;
        };
        if assigned.fetch_again_from.is_some() {
            // Not without the messages before it.
            return;
        }
        let parts = [message.key(), message.value()];
        let own_bytes = parts.into_iter().flatten().map(<[u8]>::len).sum::<usize>() + MESSAGE_BYTES;
        if message.error().is_none() {
            let offset = message.offset();
            assigned.taken_from.get_or_insert(offset);
            if assigned.is_gated && *bytes + own_bytes > BUFFERED_BYTES_MAX {
                assigned.fetch_again_from = Some(offset);
                return;
            }
        }
        *bytes += own_bytes;
        let buffered = self.buffered.entry(assigned.partition.epoch);
        let buffered = buffered.or_insert_with(|| BufferedMessages {
            topic: Arc::clone(&assigned.partition.topic),
            partition: number,
            messages: VecDeque::new(),
            bytes: 0,
        });
        buffered.bytes += own_bytes;
        buffered.messages.push_back(one);
    }
}

impl RebalanceContext {
    /// Opens the gates of partitions whose parked set is complete. Messages that were not buffered
    /// are fetched again first, if `may_seek`.
    fn open_gates(&self, consumer: &BaseConsumer<Self>, may_seek: bool) -> GateCheck {
        let mut check = GateCheck::default();
        let Some(targets) = self.targets() else {
            return check;
        };
        let mut again = TopicPartitionList::new();
        let mut places: Vec<TopicPartition> = Vec::new();
        for assigned in self.assignments().all() {
            if !assigned.is_gated || assigned.held.is_some() {
                continue;
            }
            let partition = &assigned.partition;
            let retry = partition.retry.as_ref();
            let is_open = retry.is_none_or(RetryPartition::is_open);
            match assigned.fetch_again_from {
                _ if !is_open => check.has_closed = true,
                None => places.push((Arc::clone(&partition.topic), partition.partition)),
                Some(offset) => {
                    let (topic, offset) = (&partition.topic, Offset::Offset(offset));
                    let added = again.add_partition_offset(topic, partition.partition, offset);
                    check.has_closed |= !may_seek || added.is_err();
                }
            }
        }
        if may_seek && again.count() > 0 {
            places.extend(self.fetch_again(consumer, again, &mut check));
        }
        for (topic, partition) in places {
            match forward(consumer, &topic, partition, targets.open) {
                Ok(()) => {
                    check.has_opened = true;
                    if let Some(assigned) = self.assignments().get(&topic, partition) {
                        assigned.is_gated = false;
                    }
                }
                Err(error) => {
                    check.has_closed = true;
                    tracing::error!(
                        group = self.shared.group,
                        %topic,
                        partition,
                        %error,
                        "the partition's queue cannot be forwarded"
                    );
                }
            }
        }
        check
    }

    /// Seeks partitions to the first message that was not buffered. Returns those that were sought.
    ///
    /// The seek also discards what the client fetched meanwhile, so that no message arrives twice.
    fn fetch_again(
        &self,
        consumer: &BaseConsumer<Self>,
        places: TopicPartitionList,
        check: &mut GateCheck,
    ) -> Vec<TopicPartition> {
        let mut done = Vec::new();
        let failed = match consumer.seek_partitions(places, SEEK_TIMEOUT) {
            Err(error) => Some(error),
            Ok(sought) => {
                let mut failed = None;
                for element in sought.elements() {
                    let (topic, partition) = (element.topic(), element.partition());
                    match (element.error(), self.assignments().get(topic, partition)) {
                        (Ok(()), Some(assigned)) => {
                            assigned.fetch_again_from = None;
                            done.push((Arc::clone(&assigned.partition.topic), partition));
                        }
                        (Ok(()), None) => {}
                        (Err(error), _) => failed = Some(error),
                    }
                }
                failed
            }
        };
        if let Some(error) = failed {
            (check.has_closed, check.has_failed) = (true, true);
            tracing::warn!(
                group = self.shared.group,
                %error,
                "gated partitions cannot be read again yet; retrying"
            );
        }
        done
    }
}
