//! Partition queues forwarded to a queue of our own, committed offsets with metadata and leader epochs, topic ids, and
//! headers with names of any bytes: the one audited module of unsafe code, in this file and its folder.
//!
//! rust-rdkafka has no safe interface for these librdkafka calls. Every function below keeps these rules:
//! - a native handle is used only while the client it belongs to is alive: callers pass the client by reference, and
//!   [`ForwardedQueue`] holds the client itself;
//! - pointers that librdkafka lends (keys, values, headers, metadata, topic names) are read before the call returns
//!   and copied by whoever keeps them;
//! - every message, queue and header list is given back exactly once.
#![allow(unsafe_code)]

pub(crate) mod groups;
mod headers;
mod offsets;
mod revive;
mod topic_ids;

pub(crate) use headers::{MessageHeaders, native_headers};
pub(crate) use offsets::{
    Committed, ToCommit, cached_watermarks, commit, committed, set_leader_epoch,
};
pub(crate) use revive::Watched;
pub(crate) use topic_ids::{TopicId, topic_ids};

use super::reader::TimestampKind;
use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

/// A queue of our own that partitions' queues are forwarded to, so that the consumer's queue carries nothing but
/// events: neither back-pressure nor a slow handler delays a rebalance, and nothing prefetched is thrown away.
pub(crate) struct ForwardedQueue<C: ConsumerContext + 'static> {
    queue: NonNull<sys::rd_kafka_queue_t>,
    is_singly: bool,
    // Last field: the queue must be given back before the client may go.
    consumer: Arc<BaseConsumer<C>>,
}

// SAFETY: librdkafka's queues are internally locked; every `rd_kafka_queue_*` call may come from any thread.
unsafe impl<C: ConsumerContext + 'static> Send for ForwardedQueue<C> {}
// SAFETY: as above.
unsafe impl<C: ConsumerContext + 'static> Sync for ForwardedQueue<C> {}

impl<C: ConsumerContext + 'static> ForwardedQueue<C> {
    /// A new queue of this client.
    pub(crate) fn new(consumer: Arc<BaseConsumer<C>>) -> Self {
        // SAFETY: the client is alive; `rd_kafka_queue_new` never returns null.
        let queue = unsafe {
            NonNull::new_unchecked(sys::rd_kafka_queue_new(consumer.client().native_ptr()))
        };
        Self {
            queue,
            is_singly: false,
            consumer,
        }
    }

    /// The same queue, of which messages are taken one by one. In a batch librdkafka takes the end of a partition, which is an
    /// error in a record's place, for a record, and would go on behind it after a rebalance: out of range, and so from the
    /// beginning.
    pub(crate) fn one_by_one(mut self) -> Self {
        self.is_singly = true;
        self
    }

    /// The address under which [`forward`] knows this queue. Valid while `self` lives.
    pub(crate) fn target(&self) -> ForwardTarget {
        ForwardTarget(self.queue)
    }

    /// Takes up to `limit` messages, or as many as there is room for: waits up to `timeout` for the first, then takes
    /// what is there.
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
        // A batch read with a timeout waits until its array is full or the time is up, so it is asked without one.
        if self.take_batch(messages, limit) == 0 {
            self.take_from_first(messages, limit, timeout);
        }
    }

    /// [`Self::take`] that [`Self::wake`] ends, whatever the moment.
    pub(crate) fn wait_and_take(&self, messages: &mut Messages, limit: usize, timeout: Duration) {
        messages.clear();
        let limit = limit.min(messages.pointers.capacity());
        if limit > 0 {
            // A batch read first would take the wake-up, and tell nobody.
            self.take_from_first(messages, limit, timeout);
        }
    }

    /// Waits for a message, and takes those behind it that are there; `limit` is not 0, and there is room for so many.
    fn take_from_first(&self, messages: &mut Messages, limit: usize, timeout: Duration) {
        if self.take_one(messages, timeout) {
            self.take_batch(messages, limit - 1);
        }
    }

    /// The first offset of a partition as its last fetch showed it; none before.
    pub(crate) fn first_offset(&self, topic: &str, partition: i32) -> Option<i64> {
        cached_watermarks(&self.consumer, topic, partition).map(|(first, _)| first)
    }

    /// Waits for a message; whether one came.
    fn take_one(&self, messages: &mut Messages, timeout: Duration) -> bool {
        // SAFETY: the queue is alive; the message, if any, is owned by us until destroyed in `Messages::clear`.
        let message =
            unsafe { sys::rd_kafka_consume_queue(self.queue.as_ptr(), timeout.as_millis() as i32) };
        messages.pointers.extend(NonNull::new(message));
        !message.is_null()
    }

    /// Ends a wait for messages, or the next one if there is none now.
    pub(crate) fn wake(&self) {
        // SAFETY: the queue is alive.
        unsafe { sys::rd_kafka_queue_yield(self.queue.as_ptr()) }
    }

    fn take_batch(&self, messages: &mut Messages, room: usize) -> usize {
        let length = messages.pointers.len();
        debug_assert!(length + room <= messages.pointers.capacity());
        // SAFETY: `pointers` has room for `room` more elements (NonNull has the layout of a raw pointer), librdkafka
        // writes at most that many valid pointers and returns their number, or -1 on error; only those become visible.
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
        // SAFETY: the queue is ours and the client, held by `self.consumer`, is still alive.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

/// Where [`forward`] sends a partition's queue.
#[derive(Clone, Copy)]
pub(crate) struct ForwardTarget(NonNull<sys::rd_kafka_queue_t>);

// SAFETY: only an address; it is used in `forward` alone, whose caller keeps the queue alive.
unsafe impl Send for ForwardTarget {}
// SAFETY: as above.
unsafe impl Sync for ForwardTarget {}

/// Forwards a partition's queue to `target`. Call it before the assignment takes effect, so that nothing of the
/// partition is on the consumer's queue already. The [`ForwardedQueue`] behind `target` must be alive.
pub(crate) fn forward<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
    target: ForwardTarget,
) -> KafkaResult<()> {
    with_partition_queue(consumer, topic, partition, target.0.as_ptr())
}

/// Ends the forwarding of a partition's queue.
pub(crate) fn unforward<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
) -> KafkaResult<()> {
    with_partition_queue(consumer, topic, partition, ptr::null_mut())
}

fn with_partition_queue<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
    target: *mut sys::rd_kafka_queue_t,
) -> KafkaResult<()> {
    let topic = CString::new(topic)?;
    // SAFETY: the client is alive; the partition queue's reference is given back below; `target` is alive or null.
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

/// Messages taken from a queue, given back when cleared or dropped.
pub(crate) struct Messages {
    pointers: Vec<NonNull<sys::rd_kafka_message_t>>,
}

// SAFETY: the messages are ours alone, and librdkafka lets any thread read and destroy a message that it owns.
unsafe impl Send for Messages {}

impl Messages {
    /// Room for `capacity` messages.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self {
            pointers: Vec::with_capacity(capacity),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.pointers.len()
    }

    /// The messages, valid until they are cleared.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Message<'_>> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// The message at `index`, valid until they are cleared.
    pub(crate) fn get(&self, index: usize) -> Message<'_> {
        Message {
            pointer: self.pointers[index],
            messages: PhantomData,
        }
    }

    /// Adds one to the end.
    pub(crate) fn push(&mut self, message: OneMessage) {
        self.pointers.push(message.0);
        // It is this list's from now on.
        std::mem::forget(message);
    }

    /// Takes all of them out, one by one.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = OneMessage> {
        self.pointers.drain(..).map(OneMessage)
    }

    /// Gives all messages back.
    pub(crate) fn clear(&mut self) {
        for pointer in self.pointers.drain(..) {
            // SAFETY: owned by us, destroyed once: `drain` removes it.
            unsafe { sys::rd_kafka_message_destroy(pointer.as_ptr()) }
        }
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A message taken out of its list, given back when dropped.
pub(crate) struct OneMessage(NonNull<sys::rd_kafka_message_t>);

// SAFETY: as for `Messages`.
unsafe impl Send for OneMessage {}

impl OneMessage {
    /// The message, valid as long as this is.
    pub(crate) fn get(&self) -> Message<'_> {
        Message {
            pointer: self.0,
            messages: PhantomData,
        }
    }
}

impl Drop for OneMessage {
    fn drop(&mut self) {
        // SAFETY: owned by us alone: it was taken out of its list.
        unsafe { sys::rd_kafka_message_destroy(self.0.as_ptr()) }
    }
}

/// A message that librdkafka lends.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    pointer: NonNull<sys::rd_kafka_message_t>,
    messages: PhantomData<&'a Messages>,
}

impl<'a> Message<'a> {
    fn native(self) -> &'a sys::rd_kafka_message_t {
        // SAFETY: librdkafka handed us the pointer, and it is destroyed only when its `Messages`, borrowed for `'a`, are
        // cleared.
        unsafe { self.pointer.as_ref() }
    }

    /// The error that stands in a record's place, such as the end of a partition.
    pub(crate) fn error(&self) -> Option<RDKafkaErrorCode> {
        // SAFETY: the message is valid, and C wrote an integer there.
        error_code(unsafe {
            ptr::addr_of!((*self.pointer.as_ptr()).err)
                .cast::<i32>()
                .read()
        })
    }

    /// What the client says of the error.
    pub(crate) fn error_text(&self) -> String {
        // SAFETY: the message is valid; what is returned is null, or a C string that lives as long as the message.
        unsafe {
            let text = sys::rd_kafka_message_errstr(self.native());
            match text.is_null() {
                true => String::new(),
                false => CStr::from_ptr(text).to_string_lossy().into_owned(),
            }
        }
    }

    /// A number that is the same for messages of one topic among those taken together.
    pub(crate) fn topic_handle(&self) -> usize {
        self.native().rkt as usize
    }

    /// The topic's name; none for an error that belongs to no topic.
    pub(crate) fn topic(&self) -> Option<&'a str> {
        if self.native().rkt.is_null() {
            return None;
        }
        // SAFETY: the message holds a reference to its topic, whose name is a C string.
        unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(self.native().rkt)) }
            .to_str()
            .ok()
    }

    pub(crate) fn partition(&self) -> i32 {
        self.native().partition
    }

    pub(crate) fn offset(&self) -> i64 {
        self.native().offset
    }

    /// Milliseconds since the epoch, negative where there is none.
    pub(crate) fn timestamp_ms(&self) -> i64 {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is valid and `kind` outlives the call.
        unsafe { sys::rd_kafka_message_timestamp(self.native(), &mut kind) }
    }

    /// The leader epoch under which the record was appended (KIP-320); none where the brokers do not tell.
    pub(crate) fn leader_epoch(&self) -> Option<i32> {
        // SAFETY: the message is valid.
        let epoch = unsafe { sys::rd_kafka_message_leader_epoch(self.native()) };
        (epoch >= 0).then_some(epoch)
    }

    /// Whose clock the timestamp is.
    pub(crate) fn timestamp_kind(&self) -> TimestampKind {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is valid and `kind` outlives the call.
        unsafe { sys::rd_kafka_message_timestamp(self.native(), &mut kind) };
        match kind {
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE => {
                TimestampKind::Absent
            }
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_CREATE_TIME => TimestampKind::Create,
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME => {
                TimestampKind::LogAppend
            }
        }
    }

    pub(crate) fn key(&self) -> Option<&'a [u8]> {
        // SAFETY: librdkafka's key pointer and length describe one buffer that lives as long as the message.
        unsafe { bytes(self.native().key, self.native().key_len) }
    }

    pub(crate) fn value(&self) -> Option<&'a [u8]> {
        // SAFETY: as for the key.
        unsafe { bytes(self.native().payload, self.native().len) }
    }

    /// The headers, parsed anew by each call and ours from then on. librdkafka allocates for each of them: let go before the
    /// next message's are taken, they leave their memory to those, where the headers of a whole burst would not fit the
    /// allocator's caches.
    pub(crate) fn take_headers(self) -> MessageHeaders {
        let mut list = ptr::null_mut();
        // SAFETY: the message is valid, and ours to change: this thread alone has it. A list that comes out is ours.
        let error =
            unsafe { sys::rd_kafka_message_detach_headers(self.pointer.as_ptr(), &mut list) };
        let is_there = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
        MessageHeaders::of(is_there.then(|| NonNull::new(list)).flatten())
    }
}

/// A code as C holds it; none for no error. It may be a broker's, and newer than the bindings: as a Rust enum it must not be
/// read before it is known to be one of its values.
fn error_code(code: i32) -> Option<RDKafkaErrorCode> {
    match RDKafkaRespErr::try_from(code) {
        Ok(RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR) => None,
        Ok(known) => Some(known.into()),
        Err(_) => Some(RDKafkaErrorCode::Unknown),
    }
}

/// # Safety
/// `pointer` is null, or points to `length` bytes that live for `'a`.
unsafe fn bytes<'a>(pointer: *const std::ffi::c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    (!pointer.is_null()).then(|| unsafe { std::slice::from_raw_parts(pointer.cast(), length) })
}

/// Whether the group has taken this client as a member: the client knows a generation or, with KIP-848, a member epoch.
pub(crate) fn is_member<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> bool {
    // SAFETY: the client is alive; what it returns is null or ours, and is given back once.
    unsafe {
        let metadata = sys::rd_kafka_consumer_group_metadata(consumer.client().native_ptr());
        if metadata.is_null() {
            return false;
        }
        let generation = sys::rd_kafka_consumer_group_metadata_generation_id(metadata);
        sys::rd_kafka_consumer_group_metadata_destroy(metadata);
        generation > 0
    }
}

/// The id that the group gave this member; none before it has joined.
pub(crate) fn member_id<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<String> {
    // SAFETY: the client is alive; what it returns is null, or a C string that is ours and given back once, after it was
    // copied.
    unsafe {
        let client = consumer.client().native_ptr();
        let id = sys::rd_kafka_memberid(client);
        if id.is_null() {
            return None;
        }
        let copy = CStr::from_ptr(id).to_string_lossy().into_owned();
        sys::rd_kafka_mem_free(client, id.cast());
        Some(copy).filter(|id| !id.is_empty())
    }
}

#[cfg(test)]
mod tests;
