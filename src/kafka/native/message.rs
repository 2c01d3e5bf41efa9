//! A message that librdkafka lends: a received record, an error in place of one, or a delivery
//! report.

use super::message_headers::MessageHeaders;
use super::raw::{bytes, error_code};
use crate::kafka::reader::TimestampKind;
use rdkafka::bindings as sys;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;
use std::ffi::{CStr, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

/// A message that librdkafka lends, or an error in place of one: check [`Message::error`] first.
/// Its borrow of the list, or of the delivery reports, keeps it from being used after they are
/// freed.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    pointer: NonNull<sys::rd_kafka_message_t>,
    lender: PhantomData<&'a ()>,
}

impl<'a> Message<'a> {
    /// A message of a list or an event.
    ///
    /// # Safety
    /// The message lives for `'a`, and only the calling thread uses it meanwhile.
    pub(super) unsafe fn lent(pointer: NonNull<sys::rd_kafka_message_t>) -> Self {
        Self {
            pointer,
            lender: PhantomData,
        }
    }

    fn native(self) -> &'a sys::rd_kafka_message_t {
        // SAFETY: the message lives for `'a`, as `lent` requires.
        unsafe { self.pointer.as_ref() }
    }

    /// The error in place of a record, such as the end of a partition. In a delivery report, the
    /// reason why the record was not delivered.
    pub(crate) fn error(&self) -> Option<RDKafkaErrorCode> {
        // SAFETY: the message is valid, and C wrote an integer there.
        error_code(unsafe {
            ptr::addr_of!((*self.pointer.as_ptr()).err)
                .cast::<i32>()
                .read()
        })
    }

    /// The client's text of the error.
    pub(crate) fn error_text(&self) -> String {
        // SAFETY: the message is valid. The result is null, or a C string that lives as long as the
        // message.
        unsafe {
            let text = sys::rd_kafka_message_errstr(self.native());
            match text.is_null() {
                true => String::new(),
                false => CStr::from_ptr(text).to_string_lossy().into_owned(),
            }
        }
    }

    /// What a record of a producer carries, as it was passed to the client.
    pub(super) fn carried(&self) -> *mut c_void {
        self.native()._private
    }

    /// A number that is equal for messages of one topic that were taken together. Compares topics
    /// without reading their names.
    pub(crate) fn topic_handle(&self) -> usize {
        self.native().rkt as usize
    }

    /// The topic's name. None for an error that belongs to no topic.
    pub(crate) fn topic(&self) -> Option<&'a str> {
        if self.native().rkt.is_null() {
            return None;
        }
        // SAFETY: the message holds a reference to its topic, whose name is a C string.
        unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(self.native().rkt)) }
            .to_str()
            .ok()
    }

    /// The number of the partition.
    pub(crate) fn partition(&self) -> i32 {
        self.native().partition
    }

    /// The offset of the record. For an error, the offset that it is about, if it has one.
    pub(crate) fn offset(&self) -> i64 {
        self.native().offset
    }

    /// Milliseconds since the epoch. Negative if the record has no timestamp.
    pub(crate) fn timestamp_ms(&self) -> i64 {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is valid and `kind` outlives the call.
        unsafe { sys::rd_kafka_message_timestamp(self.native(), &mut kind) }
    }

    /// The leader epoch under which the record was appended (KIP-320). None if the brokers do not
    /// return it.
    pub(crate) fn leader_epoch(&self) -> Option<i32> {
        // SAFETY: the message is valid.
        let epoch = unsafe { sys::rd_kafka_message_leader_epoch(self.native()) };
        (epoch >= 0).then_some(epoch)
    }

    /// Who set the timestamp.
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

    /// The key. None if the record has none, which differs from an empty key.
    pub(crate) fn key(&self) -> Option<&'a [u8]> {
        // SAFETY: librdkafka's key pointer and length describe one buffer that lives as long as the
        // message.
        unsafe { bytes(self.native().key, self.native().key_len) }
    }

    /// The value. None is a tombstone. For an error, its text.
    pub(crate) fn value(&self) -> Option<&'a [u8]> {
        // SAFETY: the same as for the key.
        unsafe { bytes(self.native().payload, self.native().len) }
    }

    /// The headers, parsed by each call and owned by the caller. librdkafka allocates for each of
    /// them. If they are dropped before those of the next message are taken, their memory is
    /// reused, whereas the headers of a whole burst would not fit into the allocator's caches.
    pub(crate) fn take_headers(self) -> MessageHeaders {
        let mut list = ptr::null_mut();
        // SAFETY: the message is valid, and only this thread has it, so it may be changed. The
        // returned list is owned here.
        let error =
            unsafe { sys::rd_kafka_message_detach_headers(self.pointer.as_ptr(), &mut list) };
        let is_there = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
        MessageHeaders::of(is_there.then(|| NonNull::new(list)).flatten())
    }
}
