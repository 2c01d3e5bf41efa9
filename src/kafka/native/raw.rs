//! Values of librdkafka's C structures: error codes and lent bytes.

use rdkafka::bindings as sys;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;
use std::ffi::c_int;

/// An error code from C. None for no error. It may be a broker's code, and newer than the bindings:
/// it must not be read as a Rust enum before it is known to be one of its values.
pub(super) fn error_code(code: i32) -> Option<RDKafkaErrorCode> {
    match RDKafkaRespErr::try_from(code) {
        Ok(RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR) => None,
        Ok(known) => Some(known.into()),
        Err(_) => Some(RDKafkaErrorCode::Unknown),
    }
}

/// The bytes behind a pointer. None if it is null, which stands for an absent key or value.
///
/// # Safety
/// `pointer` is null, or points to `length` bytes that live for `'a`.
pub(super) unsafe fn bytes<'a>(
    pointer: *const std::ffi::c_void,
    length: usize,
) -> Option<&'a [u8]> {
    // SAFETY: the caller guarantees that the pointer is null or points to these bytes.
    (!pointer.is_null()).then(|| unsafe { std::slice::from_raw_parts(pointer.cast(), length) })
}

unsafe extern "C" {
    /// As in the bindings, except for the type of the result, which may be a broker's code.
    pub(super) fn rd_kafka_event_error(event: *mut sys::rd_kafka_event_t) -> c_int;

    /// As above.
    pub(super) fn rd_kafka_producev(client: *mut sys::rd_kafka_t, ...) -> c_int;
}
