//! Partition queues forwarded to a queue of our own, delivery reports in bursts, committed offsets
//! with metadata and leader epochs, topic ids, tokens, and headers with names of any bytes. This
//! file and its folder are the only module with unsafe code.
//!
//! rust-rdkafka has no safe interface for these librdkafka calls. Every function below keeps these
//! rules:
//! - A native handle is used only while its client is alive: callers pass the client by reference,
//!   and [`ForwardedQueue`] holds the client itself.
//! - Data that librdkafka lends by pointer (keys, values, headers, metadata, topic names) is read
//!   before the call returns, and copied if it is kept.
//! - Every message, queue and header list is freed exactly once.
//! - A callback that librdkafka calls from C does not unwind.
//! - Error codes are read as integers. A broker may send a code that the bindings do not know, and
//!   a Rust enum with an unknown value is undefined behaviour.
//!
//! # Threads
//! librdkafka's handles are internally locked, so any thread may use them. Two threads of the
//! process, started at first use and ended with the last client, serve all clients:
//! `evenkeel-logins` ([`Login`]) and `evenkeel-revive` ([`Watched`]). Both keep a table of native
//! handles. A client's entry is removed, under the table's lock, before the client is dropped. This
//! is why [`Login`] and [`Watched`] are declared before the client where a struct has both, or are
//! dropped explicitly: fields drop in the order of their declaration.
//!
//! | file | content |
//! |---|---|
//! | `mod.rs` | forwarded queues and the messages taken from them |
//! | `message.rs` | a message that librdkafka lends |
//! | `message_headers.rs` | headers with names of any bytes |
//! | `producer/` | a producer with kept topics, and its delivery reports in bursts |
//! | `offsets.rs` | commits and committed offsets, with metadata and leader epochs (KIP-320) |
//! | `topic_ids.rs` | ids that tell a topic from a recreated one (KIP-516) |
//! | `groups.rs` | descriptions (KIP-848) and committed offsets of any group, and membership |
//! | `login.rs` | tokens for SASL/OAUTHBEARER |
//! | `reconnect.rs` | clients that have lost all brokers |
//! | `events.rs` | events that wait for a poll, and those of a client that nobody polls |
#![allow(unsafe_code)]

mod events;
pub(crate) mod groups;
mod login;
mod message;
mod message_headers;
mod offsets;
mod producer;
mod raw;
mod reconnect;
mod topic_ids;

pub(crate) use events::{discard_events, queued_events};
pub(crate) use groups::{is_member, member_id};
pub(crate) use login::{Login, logged_in};
pub(crate) use message::Message;
pub(crate) use message_headers::{MessageHeaders, native_headers};
pub(crate) use offsets::{
    Committed, ToCommit, begin_at, cached_watermarks, commit, committed, set_leader_epoch,
};
pub(crate) use producer::{DeliveryReports, ProducerClient, ProducerTopic, ToProduce};
pub(crate) use reconnect::Watched;
pub(crate) use topic_ids::{TopicId, topic_ids};

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use std::ffi::CString;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

/// A queue of our own to which the queues of partitions are forwarded, so that the consumer's queue
/// carries only events. Thus neither back-pressure nor a slow handler delays a rebalance, and no
/// prefetched record is discarded.
///
/// A poll of the consumer's own queue keeps the member in its group (`max.poll.interval.ms`) but
/// also takes records. Pausing partitions instead of forwarding them would discard what the client
/// has prefetched, at every pause.
///
/// It holds the client, so the client outlives the queue. It may be used from several threads; each
/// message is returned to one of them.
pub(crate) struct ForwardedQueue<C: ConsumerContext + 'static> {
    queue: NonNull<sys::rd_kafka_queue_t>,
    is_singly: bool,
    // Last field: the queue must be freed before the client.
    consumer: Arc<BaseConsumer<C>>,
}

// SAFETY: librdkafka's queues are internally locked. Every `rd_kafka_queue_*` call may come from
// any thread.
unsafe impl<C: ConsumerContext + 'static> Send for ForwardedQueue<C> {}
// SAFETY: as above.
unsafe impl<C: ConsumerContext + 'static> Sync for ForwardedQueue<C> {}

impl<C: ConsumerContext + 'static> ForwardedQueue<C> {
    /// Creates a queue of this client.
    pub(crate) fn new(consumer: Arc<BaseConsumer<C>>) -> Self {
        // SAFETY: the client is alive. `rd_kafka_queue_new` never returns null.
        let queue = unsafe {
            NonNull::new_unchecked(sys::rd_kafka_queue_new(consumer.client().native_ptr()))
        };
        Self {
            queue,
            is_singly: false,
            consumer,
        }
    }

    /// Makes the queue return messages one by one. In a batch librdkafka counts the end of a
    /// partition, which is an error in place of a record, as a record. After a rebalance it would
    /// continue behind it: out of range, and therefore from the beginning.
    pub(crate) fn one_by_one(mut self) -> Self {
        self.is_singly = true;
        self
    }

    /// The address of this queue for [`forward`]. Valid while `self` lives.
    pub(crate) fn target(&self) -> ForwardTarget {
        ForwardTarget(self.queue)
    }

    /// Takes up to `limit` messages, or as many as fit: waits up to `timeout` for the first, then
    /// takes the available ones. Clears `messages` first.
    ///
    /// [`Self::wake`] may go unnoticed by this method: a batch read consumes it. Use
    /// [`Self::wait_and_take`] where a wake-up matters.
    pub(crate) fn take(&self, messages: &mut Messages, limit: usize, timeout: Duration) {
        messages.clear();
        let limit = limit.min(messages.pointers.capacity());
        if limit == 0 {
            return;
        }
        if self.is_singly {
            let mut timeout = timeout;
            while messages.len() < limit && self.take_one(messages, timeout) {
                timeout = Duration::ZERO;
            }
            return;
        }
        // A batch read with a timeout waits until its array is full or the timeout expires, so it
        // has none.
        if self.take_batch(messages, limit) == 0 {
            self.wait_and_take_available(messages, limit, timeout);
        }
    }

    /// Like [`Self::take`], but [`Self::wake`] ends the wait at any moment.
    pub(crate) fn wait_and_take(&self, messages: &mut Messages, limit: usize, timeout: Duration) {
        messages.clear();
        let limit = limit.min(messages.pointers.capacity());
        if limit > 0 {
            // A batch read would consume the wake-up without a sign of it.
            self.wait_and_take_available(messages, limit, timeout);
        }
    }

    /// Waits for a message, and takes the available ones after it. `limit` is not 0, and there is
    /// room for as many.
    fn wait_and_take_available(&self, messages: &mut Messages, limit: usize, timeout: Duration) {
        if self.take_one(messages, timeout) {
            self.take_batch(messages, limit - 1);
        }
    }

    /// The first offset of a partition as of its last fetch. None before the first fetch.
    pub(crate) fn first_offset(&self, topic: &str, partition: i32) -> Option<i64> {
        cached_watermarks(&self.consumer, topic, partition).map(|(first, _)| first)
    }

    /// Waits for a message. Returns whether one was received.
    fn take_one(&self, messages: &mut Messages, timeout: Duration) -> bool {
        // SAFETY: the queue is alive. The message, if any, is owned here until it is destroyed in
        // `Messages::clear`.
        let message =
            unsafe { sys::rd_kafka_consume_queue(self.queue.as_ptr(), timeout.as_millis() as i32) };
        messages.pointers.extend(NonNull::new(message));
        !message.is_null()
    }

    /// Ends a wait for messages, or the next wait if there is none now.
    pub(crate) fn wake(&self) {
        // SAFETY: the queue is alive.
        unsafe { sys::rd_kafka_queue_yield(self.queue.as_ptr()) }
    }

    /// Takes the available messages without a wait, at most `room`. Returns their number.
    fn take_batch(&self, messages: &mut Messages, room: usize) -> usize {
        let length = messages.pointers.len();
        debug_assert!(length + room <= messages.pointers.capacity());
        // SAFETY: `pointers` has room for `room` more elements (NonNull has the layout of a raw
        // pointer). librdkafka writes at most as many valid pointers and returns their number, or
        // -1 on error. Only these become visible.
        unsafe {
            let end = messages
                .pointers
                .as_mut_ptr()
                .add(length)
                .cast::<*mut sys::rd_kafka_message_t>();
            let taken = sys::rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, end, room).max(0)
                as usize;
            messages.pointers.set_len(length + taken);
            taken
        }
    }
}

impl<C: ConsumerContext + 'static> Drop for ForwardedQueue<C> {
    fn drop(&mut self) {
        let _ = &self.consumer;
        // SAFETY: the queue is owned here, and the client, held by `self.consumer`, is still alive.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

/// The target to which [`forward`] sends the queue of a partition.
#[derive(Clone, Copy)]
pub(crate) struct ForwardTarget(NonNull<sys::rd_kafka_queue_t>);

// SAFETY: this is only an address. Only `forward` uses it, and its caller keeps the queue alive.
unsafe impl Send for ForwardTarget {}
// SAFETY: as above.
unsafe impl Sync for ForwardTarget {}

/// Forwards the queue of a partition to `target`. Call it before the assignment takes effect, so
/// that the consumer's queue has no message of the partition yet. The [`ForwardedQueue`] of
/// `target` must be alive.
pub(crate) fn forward<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
    target: ForwardTarget,
) -> KafkaResult<()> {
    with_partition_queue(consumer, topic, partition, target.0.as_ptr())
}

/// Ends the forwarding of a partition's queue. Call it when the partition was unassigned: a later
/// assignment may forward it to another queue.
pub(crate) fn unforward<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
) -> KafkaResult<()> {
    with_partition_queue(consumer, topic, partition, ptr::null_mut())
}

/// Forwards the partition's queue to `target`, which may be null. Gets a reference to the queue and
/// returns it.
fn with_partition_queue<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
    target: *mut sys::rd_kafka_queue_t,
) -> KafkaResult<()> {
    let topic = CString::new(topic)?;
    // SAFETY: the client is alive. The reference to the partition queue is returned below. `target`
    // is alive or null.
    unsafe {
        let queue = sys::rd_kafka_queue_get_partition(
            consumer.client().native_ptr(),
            topic.as_ptr(),
            partition,
        );
        if queue.is_null() {
            return Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::UnknownPartition,
            ));
        }
        sys::rd_kafka_queue_forward(queue, target);
        sys::rd_kafka_queue_destroy(queue);
    }
    Ok(())
}

/// Messages taken from a queue, freed when cleared or dropped. Reused from one take to the next, so
/// that no list is allocated for each burst. Its capacity bounds the result of a take.
pub(crate) struct Messages {
    pointers: Vec<NonNull<sys::rd_kafka_message_t>>,
}

// SAFETY: the messages are owned here alone, and librdkafka lets any thread read and destroy a
// message that it owns.
unsafe impl Send for Messages {}

impl Messages {
    /// Creates an empty list with room for `capacity` messages.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self {
            pointers: Vec::with_capacity(capacity),
        }
    }

    /// The number of messages.
    pub(crate) fn len(&self) -> usize {
        self.pointers.len()
    }

    /// The messages, valid until they are cleared.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Message<'_>> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// The message at `index`, valid until they are cleared.
    pub(crate) fn get(&self, index: usize) -> Message<'_> {
        // SAFETY: the message is destroyed only when the list, borrowed here, is cleared.
        unsafe { Message::lent(self.pointers[index]) }
    }

    /// Appends a message.
    pub(crate) fn push(&mut self, message: OneMessage) {
        self.pointers.push(message.0);
        // The list owns it from now on.
        std::mem::forget(message);
    }

    /// Removes all messages, one by one.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = OneMessage> {
        self.pointers.drain(..).map(OneMessage)
    }

    /// Frees all messages.
    pub(crate) fn clear(&mut self) {
        for pointer in self.pointers.drain(..) {
            // SAFETY: each message is owned here and destroyed once: `drain` removes the others.
            unsafe { sys::rd_kafka_message_destroy(pointer.as_ptr()) }
        }
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A message taken out of its list, freed when dropped.
pub(crate) struct OneMessage(NonNull<sys::rd_kafka_message_t>);

// SAFETY: as for `Messages`.
unsafe impl Send for OneMessage {}

impl OneMessage {
    /// The message, valid as long as this one.
    pub(crate) fn get(&self) -> Message<'_> {
        // SAFETY: the message is destroyed only when `self`, borrowed here, is dropped.
        unsafe { Message::lent(self.0) }
    }
}

impl Drop for OneMessage {
    fn drop(&mut self) {
        // SAFETY: the message is owned here alone: it was taken out of its list.
        unsafe { sys::rd_kafka_message_destroy(self.0.as_ptr()) }
    }
}

#[cfg(test)]
mod tests;
