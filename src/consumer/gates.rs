//! Partitions whose records wait until it is known which of their keys wait in the retry topic.
//!
//! Their queues are forwarded to one queue, which nobody reads while they wait, so that the client's bound on what it has
//! fetched holds for all of them together. When a gate opens, that queue is emptied, as records of the open partition may stand
//! anywhere in it: they are handed on before anything that the client fetches from then on. Records of partitions that still wait
//! are kept in memory up to a bound; what is above it goes back, and is fetched again when its gate opens. Runs on the poll
//! thread.

use super::ledger::Epoch;
use super::parking::RetryPartition;
use super::pause::Place;
use super::rebalance::{Assignments, Member};
use crate::kafka::queue::{ForwardTarget, ForwardedQueue, Messages, OneMessage, forward};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes kept of partitions that still wait, all together.
const KEPT_BYTES_MAX: usize = 6 << 20;
/// What a message takes beside its key and value, about.
const MESSAGE_BYTES: usize = 256;
/// How long the client may take to set positions back, which stops intake meanwhile.
const SEEK_WITHIN: Duration = Duration::from_secs(1);
/// How long to wait before that is tried again.
const SEEK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Messages taken in one go.
const MESSAGES_MAX: usize = 1024;

/// What waits behind closed gates, or did until they opened.
pub(crate) struct Gates {
    queue: ForwardedQueue<Member>,
    messages: Messages,
    kept: HashMap<Epoch, Kept>,
    /// Whether something is kept of partitions whose gates are open.
    has_open: bool,
    /// When a partition may be set back again, where the last try failed.
    seek_at: Option<Instant>,
}

/// What was found when gates were looked at.
#[derive(Default)]
pub(super) struct Seen {
    have_opened: bool,
    are_closed: bool,
    /// Whether a partition could not be set back to what was not kept of it.
    has_failed: bool,
}

/// Messages of one partition, in order.
struct Kept {
    topic: Arc<str>,
    partition: i32,
    messages: VecDeque<OneMessage>,
    bytes: usize,
}

impl Gates {
    pub(crate) fn new(queue: ForwardedQueue<Member>) -> Self {
        Self {
            queue,
            messages: Messages::with_capacity(MESSAGES_MAX),
            kept: HashMap::new(),
            has_open: false,
            seek_at: None,
        }
    }

    /// Where the queues of partitions that wait are forwarded to.
    pub(crate) fn target(&self) -> ForwardTarget {
        self.queue.target()
    }

    /// Opens the gates of partitions whose parked sets are whole; whether others wait. Called all the time.
    pub(crate) fn mind(&mut self, consumer: &BaseConsumer<Member>) -> bool {
        let member = consumer.context();
        let may_seek = self.seek_at.is_none_or(|at| Instant::now() >= at);
        let seen = member.open_gates(consumer, may_seek);
        self.seek_at = match may_seek {
            true => seen.has_failed.then(|| Instant::now() + SEEK_AGAIN_AFTER),
            false => self.seek_at,
        };
        if !self.kept.is_empty() {
            let mut assignments = member.assignments();
            self.kept.retain(|epoch, kept| {
                let assigned = assignments.get(&kept.topic, kept.partition);
                assigned.is_some_and(|assigned| assigned.is_of(*epoch))
            });
        }
        if seen.have_opened || !seen.are_closed {
            self.take_all(&mut member.assignments());
            self.has_open = !self.kept.is_empty();
        }
        seen.are_closed
    }

    /// Whether something is kept that may be handed on.
    pub(crate) fn has_open(&self) -> bool {
        self.has_open
    }

    /// Moves messages of open partitions into `messages`, up to `room` of them.
    pub(crate) fn hand_on(
        &mut self,
        messages: &mut Messages,
        room: usize,
        assignments: &mut Assignments,
    ) {
        self.has_open = false;
        self.kept.retain(|epoch, kept| {
            let assigned = assignments.get(&kept.topic, kept.partition);
            let Some(assigned) = assigned.filter(|assigned| assigned.is_of(*epoch)) else {
                return false;
            };
            if assigned.is_gated {
                return true;
            }
            while messages.len() < room
                && let Some(message) = kept.messages.pop_front()
            {
                messages.push(message);
            }
            let is_left = !kept.messages.is_empty();
            self.has_open |= is_left;
            is_left
        });
    }

    /// Empties the queue. Nothing of a partition that has just opened is left behind: the client adds what it has fetched to one
    /// queue or to the other, and not to this one any more.
    fn take_all(&mut self, assignments: &mut Assignments) {
        let mut messages = std::mem::replace(&mut self.messages, Messages::with_capacity(0));
        let mut bytes = self.kept.values().map(|kept| kept.bytes).sum();
        loop {
            self.queue.take(&mut messages, MESSAGES_MAX, Duration::ZERO);
            if messages.len() == 0 {
                break;
            }
            for message in messages.drain() {
                self.keep(message, assignments, &mut bytes);
            }
        }
        self.messages = messages;
    }

    /// Keeps a message where all of them together take no more than they may: `bytes` until now.
    fn keep(&mut self, one: OneMessage, assignments: &mut Assignments, bytes: &mut usize) {
        let message = one.get();
        let number = message.partition();
        let topic = message.topic();
        let assigned = topic.and_then(|topic| assignments.get(topic, number));
        let Some(assigned) = assigned.filter(|assigned| assigned.held.is_none()) else {
            return;
        };
        if assigned.fetch_again_from.is_some() {
            // Not without those before it.
            return;
        }
        let parts = [message.key(), message.value()];
        let own_bytes = parts.into_iter().flatten().map(<[u8]>::len).sum::<usize>() + MESSAGE_BYTES;
        if message.error().is_none() {
            let offset = message.offset();
            assigned.taken_from.get_or_insert(offset);
            if assigned.is_gated && *bytes + own_bytes > KEPT_BYTES_MAX {
                assigned.fetch_again_from = Some(offset);
                return;
            }
        }
        *bytes += own_bytes;
        let kept = self.kept.entry(assigned.partition.epoch);
        let kept = kept.or_insert_with(|| Kept {
            topic: Arc::clone(&assigned.partition.topic),
            partition: number,
            messages: VecDeque::new(),
            bytes: 0,
        });
        kept.bytes += own_bytes;
        kept.messages.push_back(one);
    }
}

impl Member {
    /// Lets the records come of partitions whose parked set is whole. What was not kept of a partition is fetched again first,
    /// if `may_seek`.
    fn open_gates(&self, consumer: &BaseConsumer<Self>, may_seek: bool) -> Seen {
        let mut seen = Seen::default();
        let Some(targets) = self.targets() else {
            return seen;
        };
        let mut again = TopicPartitionList::new();
        let mut places: Vec<Place> = Vec::new();
        for assigned in self.assignments().all() {
            if !assigned.is_gated || assigned.held.is_some() {
                continue;
            }
            let partition = &assigned.partition;
            let retry = partition.retry.as_ref();
            let is_open = retry.is_none_or(RetryPartition::is_open);
            match assigned.fetch_again_from {
                _ if !is_open => seen.are_closed = true,
                None => places.push((Arc::clone(&partition.topic), partition.partition)),
                Some(offset) => {
                    let (topic, offset) = (&partition.topic, Offset::Offset(offset));
                    let added = again.add_partition_offset(topic, partition.partition, offset);
                    seen.are_closed |= !may_seek || added.is_err();
                }
            }
        }
        if may_seek && again.count() > 0 {
            places.extend(self.fetch_again(consumer, again, &mut seen));
        }
        for (topic, partition) in places {
            match forward(consumer, &topic, partition, targets.open) {
                Ok(()) => {
                    seen.have_opened = true;
                    if let Some(assigned) = self.assignments().get(&topic, partition) {
                        assigned.is_gated = false;
                    }
                }
                Err(error) => {
                    seen.are_closed = true;
                    tracing::error!(group = self.engine.group, %topic, partition, %error, "the partition's queue cannot be forwarded");
                }
            }
        }
        seen
    }

    /// Sets partitions back to where their records were not kept; says which of them it was done for.
    fn fetch_again(
        &self,
        consumer: &BaseConsumer<Self>,
        places: TopicPartitionList,
        seen: &mut Seen,
    ) -> Vec<Place> {
        let mut done = Vec::new();
        let failed = match consumer.seek_partitions(places, SEEK_WITHIN) {
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
            (seen.are_closed, seen.has_failed) = (true, true);
            tracing::warn!(group = self.engine.group, %error, "partitions that waited for their retry topics cannot be read again yet; it is tried again");
        }
        done
    }
}
