//! Headers of received and of published records, with names of any bytes.
//!
//! Kafka's protocol defines a header's name as a string, but no broker checks it, and clients in
//! other languages write any bytes. The bindings accept text only, and would panic on others. A
//! record with such a header has to pass through a retry or dead-letter topic unchanged.

use super::raw::bytes;
use crate::event::Headers;
use rdkafka::bindings as sys;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;
use std::ffi::{CStr, c_char};
use std::ptr::{self, NonNull};

/// The brokers accept no record with a longer name.
const NAME_BYTES_MAX: usize = 1 << 30;

/// The headers of a message, if it has any.
pub(crate) struct MessageHeaders(Option<NonNull<sys::rd_kafka_headers_t>>);

// SAFETY: the list is owned here alone, and librdkafka lets any thread read and destroy it.
unsafe impl Send for MessageHeaders {}

impl MessageHeaders {
    /// No headers.
    pub(crate) const NONE: Self = Self(None);

    /// Takes ownership of a list that was detached from its message.
    pub(super) fn of(list: Option<NonNull<sys::rd_kafka_headers_t>>) -> Self {
        Self(list)
    }

    /// The list, or null for none. It stays owned here: a caller that passes it on forgets `self`.
    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_headers_t {
        self.0.map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    /// The headers in order.
    pub(crate) fn iter(&self) -> MessageHeadersIter<'_> {
        MessageHeadersIter {
            headers: self,
            next: 0,
        }
    }
}

impl Drop for MessageHeaders {
    fn drop(&mut self) {
        if let Some(list) = self.0 {
            // SAFETY: the list is detached from its message, so it is owned here, and it is
            // destroyed here only.
            unsafe { sys::rd_kafka_headers_destroy(list.as_ptr()) }
        }
    }
}

/// Iterates over the headers of a message.
pub(crate) struct MessageHeadersIter<'a> {
    headers: &'a MessageHeaders,
    next: usize,
}

impl<'a> Iterator for MessageHeadersIter<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let list = self.headers.0?;
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the list is alive and unchanged while it is borrowed. The out-pointers are set
        // when the call succeeds.
        unsafe {
            let error = sys::rd_kafka_header_get_all(
                list.as_ptr(),
                self.next,
                &mut name,
                &mut value,
                &mut size,
            );
            if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return None;
            }
            self.next += 1;
            Some((name_bytes(name), bytes(value, size)))
        }
    }
}

/// The fields that librdkafka keeps before the name of a header (`rd_kafka_header_t` in
/// `rdkafka_header.h`).
#[repr(C)]
struct HeaderPrefix {
    serialized_size: usize,
    value_size: usize,
    name_size: usize,
    value: *mut c_char,
}

/// All bytes of a header's name. The interface returns it as a C string without its length, and a
/// name may contain NUL, so the length is read from the field before it. If that is inconsistent,
/// as with a librdkafka of another header layout, the name ends at its first NUL.
///
/// # Safety
/// `name` was returned by `rd_kafka_header_get_all`, and its list lives for `'a`.
unsafe fn name_bytes<'a>(name: *const c_char) -> &'a [u8] {
    // SAFETY: a header is one allocation, with these fields before the name and a NUL after it. The
    // caller guarantees that it lives for `'a`. The length is used only if the byte at its end is
    // the expected NUL.
    unsafe {
        let text = CStr::from_ptr(name).to_bytes();
        let size = (*name.cast::<HeaderPrefix>().sub(1)).name_size;
        let is_name = size > text.len() && size <= NAME_BYTES_MAX && *name.add(size) == 0;
        match is_name {
            true => std::slice::from_raw_parts(name.cast(), size),
            false => text,
        }
    }
}

/// The client's form of headers, with the same order, repeated names and absent values. A received
/// name may be any bytes, and the safe interface accepts only text. No headers cost no allocation.
pub(crate) fn native_headers(headers: &Headers) -> Result<MessageHeaders, RDKafkaErrorCode> {
    if headers.is_empty() {
        return Ok(MessageHeaders::NONE);
    }
    // SAFETY: the call never returns null. The list is owned here.
    let list = unsafe { NonNull::new_unchecked(sys::rd_kafka_headers_new(headers.iter().count())) };
    let native = MessageHeaders(Some(list));
    for (name, value) in headers.iter() {
        // A null pointer is an absent value. The pointer of an empty slice is not null.
        let (pointer, length) =
            value.map_or((ptr::null(), 0), |value| (value.as_ptr(), value.len()));
        // SAFETY: `native` owns the list, which is new and therefore writable, and no other code
        // uses it. Name and value are copied before the call returns.
        let error = unsafe {
            sys::rd_kafka_header_add(
                list.as_ptr(),
                name.as_ptr().cast(),
                name.len() as isize,
                pointer.cast(),
                length as isize,
            )
        };
        if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(error.into());
        }
    }
    Ok(native)
}
