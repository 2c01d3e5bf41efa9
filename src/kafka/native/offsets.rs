//! The group's committed offsets, with their metadata and leader epochs, and the watermarks that
//! the client knows.
//!
//! rust-rdkafka's safe calls lose three facts: metadata as bytes, the leader epoch that is
//! committed with an offset (KIP-320), and the refusal of a single partition. With the leader epoch
//! a consumer notices that the log was truncated below its committed offset, for example after an
//! unclean leader election, and continues where the logs diverge.

use super::raw::{bytes, error_code};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList, bindings as sys};
use std::ffi::{CStr, CString, c_int, c_void};
use std::ptr;
use std::time::Duration;

/// A partition's committed offset, with its metadata as bytes: another tool may have committed any
/// bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    /// The next offset. None if the group has committed none.
    pub(crate) offset: Option<i64>,
    /// The leader epoch that was committed with it.
    pub(crate) leader_epoch: Option<i32>,
    pub(crate) metadata: Vec<u8>,
    /// Why the committed offset is unknown.
    pub(crate) error: Option<RDKafkaErrorCode>,
}

/// The group's committed offsets of these partitions. Blocks up to `timeout`. The result has one
/// element for each partition; a partition whose offset is unknown has an error.
pub(crate) fn committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &TopicPartitionList,
    timeout: Duration,
) -> KafkaResult<Vec<Committed>> {
    let list = partitions.clone();
    // SAFETY: client and list are alive during the call, which sets offset and metadata of the
    // list's elements.
    let error = unsafe {
        rd_kafka_committed(
            consumer.client().native_ptr(),
            list.ptr(),
            timeout.as_millis() as c_int,
        )
    };
    if let Some(error) = error_code(error) {
        return Err(KafkaError::OffsetFetch(error));
    }
    // SAFETY: the list is alive during the call.
    Ok(unsafe { copied(list.ptr()) })
}

/// Copies the committed offsets of a list. A null one has none.
///
/// # Safety
/// The list is null or valid during the call.
pub(super) unsafe fn copied(list: *const sys::rd_kafka_topic_partition_list_t) -> Vec<Committed> {
    // SAFETY: the caller guarantees that the list is valid. `elems` points to `cnt` elements that
    // the list owns. The topic is a C string, the metadata null or `metadata_size` bytes.
    unsafe {
        let Some(list) = list.as_ref().filter(|list| list.cnt > 0) else {
            return Vec::new();
        };
        std::slice::from_raw_parts(list.elems, list.cnt as usize)
            .iter()
            .map(|element| {
                let error = error_code(ptr::addr_of!(element.err).cast::<i32>().read());
                Committed {
                    topic: CStr::from_ptr(element.topic).to_string_lossy().into_owned(),
                    partition: element.partition,
                    offset: (error.is_none() && element.offset >= 0).then_some(element.offset),
                    leader_epoch: Some(sys::rd_kafka_topic_partition_get_leader_epoch(element))
                        .filter(|epoch| *epoch >= 0),
                    error,
                    metadata: bytes(element.metadata, element.metadata_size)
                        .unwrap_or_default()
                        .to_vec(),
                }
            })
            .collect()
    }
}

/// The first and the next offset of a partition as the client last received them, without a request
/// to the brokers. None before the first fetch.
pub(crate) fn cached_watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
) -> Option<(i64, i64)> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: client, name and out-pointers are alive during the call.
    let error = unsafe {
        sys::rd_kafka_get_watermark_offsets(
            consumer.client().native_ptr(),
            topic.as_ptr(),
            partition,
            &mut low,
            &mut high,
        )
    };
    (error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some((low, high))
}

/// The commit of a partition: `offset` is the next one to read, one above the last settled one.
pub(crate) struct ToCommit<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) leader_epoch: Option<i32>,
    pub(crate) metadata: Option<&'a str>,
}

/// Commits these offsets and waits for the answer. Returns for each partition, in their order, why
/// it was refused, if it was, or an error if the whole commit was refused.
///
/// Blocks until the coordinator answers or librdkafka gives up. Call it from a thread that neither
/// polls nor runs handlers. A refused partition is usually one that was revoked meanwhile.
pub(crate) fn commit<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    wanted: &[ToCommit<'_>],
) -> KafkaResult<Vec<Option<RDKafkaErrorCode>>> {
    let mut list = TopicPartitionList::with_capacity(wanted.len());
    for of in wanted {
        let mut element = list.add_partition(of.topic, of.partition);
        element.set_offset(Offset::Offset(of.offset))?;
        if let Some(metadata) = of.metadata {
            element.set_metadata(metadata);
        }
    }
    for of in wanted {
        set_leader_epoch(&list, of.topic, of.partition, of.leader_epoch)?;
    }
    let mut answers: Vec<Answer> = Vec::with_capacity(wanted.len());
    // SAFETY: client and list are alive during the call. Without a queue of its own it waits for
    // the answer and calls `on_commit` on this thread before it returns, so that `answers` outlives
    // its use.
    let error = unsafe {
        rd_kafka_commit_queue(
            consumer.client().native_ptr(),
            list.ptr(),
            ptr::null_mut(),
            on_commit,
            ptr::from_mut(&mut answers).cast(),
        )
    };
    let refusal = |of: &ToCommit<'_>| {
        let is_it = |answer: &&Answer| answer.0 == of.topic && answer.1 == of.partition;
        answers.iter().find(is_it).and_then(|answer| answer.2)
    };
    let refusals: Vec<_> = wanted.iter().map(refusal).collect();
    match error_code(error) {
        Some(error) if refusals.iter().all(Option::is_none) => {
            Err(KafkaError::ConsumerCommit(error))
        }
        _ => Ok(refusals),
    }
}

/// A partition, and why its commit was refused, if it was.
type Answer = (String, i32, Option<RDKafkaErrorCode>);

/// # Safety
/// librdkafka calls it with a list that is null or alive, and with the `Vec<Answer>` that
/// [`commit`] passed on.
unsafe extern "C" fn on_commit(
    _: *mut sys::rd_kafka_t,
    _: c_int,
    list: *mut sys::rd_kafka_topic_partition_list_t,
    answers: *mut c_void,
) {
    // SAFETY: the caller guarantees the above. `elems` points to `cnt` elements that the list owns.
    unsafe {
        let answers = &mut *answers.cast::<Vec<Answer>>();
        let Some(list) = list.as_ref().filter(|list| list.cnt > 0) else {
            return;
        };
        for element in std::slice::from_raw_parts(list.elems, list.cnt as usize) {
            let topic = CStr::from_ptr(element.topic).to_string_lossy().into_owned();
            let refused = error_code(ptr::addr_of!(element.err).cast::<i32>().read());
            answers.push((topic, element.partition, refused));
        }
    }
}

/// Sets the leader epoch of a partition's offset in a list. The client then asks the brokers
/// whether the log still has that offset, and otherwise moves to where it was truncated.
pub(crate) fn set_leader_epoch(
    list: &TopicPartitionList,
    topic: &str,
    partition: i32,
    leader_epoch: Option<i32>,
) -> KafkaResult<()> {
    let Some(leader_epoch) = leader_epoch else {
        return Ok(());
    };
    let topic = CString::new(topic)?;
    // SAFETY: the list is alive, and no other code uses the element that is found in it.
    unsafe {
        let element =
            sys::rd_kafka_topic_partition_list_find(list.ptr(), topic.as_ptr(), partition);
        if !element.is_null() {
            sys::rd_kafka_topic_partition_set_leader_epoch(element, leader_epoch);
        }
    }
    Ok(())
}

/// Makes a partition of this list begin at this offset once it is assigned. Otherwise the client
/// asks the group's coordinator itself, and may wait for ever for an answer that it dropped while
/// the assignment changed.
pub(crate) fn begin_at(
    list: &TopicPartitionList,
    topic: &str,
    partition: i32,
    at: Offset,
    leader_epoch: Option<i32>,
) -> KafkaResult<()> {
    let Some(offset) = at.to_raw() else {
        return Ok(());
    };
    let name = CString::new(topic)?;
    // SAFETY: the list is alive, and no other code uses the element that is found in it.
    unsafe {
        let element = sys::rd_kafka_topic_partition_list_find(list.ptr(), name.as_ptr(), partition);
        if !element.is_null() {
            (*element).offset = offset;
        }
    }
    set_leader_epoch(list, topic, partition, leader_epoch)
}

unsafe extern "C" {
    /// As in the bindings, except for the type of the result, which may be a broker's code.
    fn rd_kafka_committed(
        client: *mut sys::rd_kafka_t,
        partitions: *mut sys::rd_kafka_topic_partition_list_t,
        timeout_ms: c_int,
    ) -> c_int;

    /// As above.
    fn rd_kafka_commit_queue(
        client: *mut sys::rd_kafka_t,
        offsets: *const sys::rd_kafka_topic_partition_list_t,
        queue: *mut sys::rd_kafka_queue_t,
        answered: unsafe extern "C" fn(
            *mut sys::rd_kafka_t,
            c_int,
            *mut sys::rd_kafka_topic_partition_list_t,
            *mut c_void,
        ),
        opaque: *mut c_void,
    ) -> c_int;
}
