//! The brokers' ids of topics (KIP-516). A topic that is deleted and created again has another id.
//!
//! Committed offsets do not contain it: a group that was stopped meanwhile would continue in the
//! new topic at an offset of the old one, and skip records. The consumer compares ids to notice
//! that.
//!
//! An answer is a help and not a condition: a topic without an id (brokers before 2.8, a missing
//! permission, a timeout) is left out of the result.

use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::time::Duration;

/// A topic's id.
pub(crate) type TopicId = [u8; 16];

/// Joins the two halves of an id. Brokers without topic ids answer with zeros, which is none.
fn id_of(halves: [i64; 2]) -> Option<TopicId> {
    let [high, low] = halves.map(|half| u128::from(half.cast_unsigned()));
    let id = high << 64 | low;
    (id != 0).then_some(id.to_be_bytes())
}

/// The ids of those topics for which the brokers return one. Blocks up to `timeout`.
pub(crate) fn topic_ids<C: ClientContext>(
    client: &Client<C>,
    topics: &[&str],
    timeout: Duration,
) -> HashMap<String, TopicId> {
    let mut ids = HashMap::new();
    let names = topics.iter().map(|topic| CString::new(*topic));
    let Ok(names) = names.collect::<Result<Vec<CString>, _>>() else {
        return ids;
    };
    if names.is_empty() {
        return ids;
    }
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: client, names and options are alive during the request, which copies the parts that
    // it keeps. The answer goes to a queue of our own. Collection, options, queue and event are
    // destroyed once, and all data that the event lends is copied before. Destroying the queue with
    // an answer in flight drops that answer.
    unsafe {
        let collection =
            sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let options = sys::rd_kafka_AdminOptions_new(
            client.native_ptr(),
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
        );
        let mut reason = [0; 128];
        sys::rd_kafka_AdminOptions_set_request_timeout(
            options,
            timeout_ms,
            reason.as_mut_ptr(),
            reason.len(),
        );
        let queue = sys::rd_kafka_queue_new(client.native_ptr());
        sys::rd_kafka_DescribeTopics(client.native_ptr(), collection, options, queue);
        let event = sys::rd_kafka_queue_poll(queue, timeout_ms);
        if !event.is_null() {
            read(event, &mut ids);
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_queue_destroy(queue);
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_TopicCollection_destroy(collection);
    }
    ids
}

/// Adds the ids in the answer to `ids`.
///
/// # Safety
/// `event` is alive.
unsafe fn read(event: *mut sys::rd_kafka_event_t, ids: &mut HashMap<String, TopicId>) {
    // SAFETY: null pointers are skipped. The result lends `count` pointers to descriptions that
    // live as long as the event.
    unsafe {
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return;
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if topics.is_null() {
            return;
        }
        for topic in std::slice::from_raw_parts(topics, count) {
            let id = sys::rd_kafka_TopicDescription_topic_id(*topic);
            if id.is_null() || !sys::rd_kafka_TopicDescription_error(*topic).is_null() {
                continue;
            }
            let halves = [
                sys::rd_kafka_Uuid_most_significant_bits(id),
                sys::rd_kafka_Uuid_least_significant_bits(id),
            ];
            let name = CStr::from_ptr(sys::rd_kafka_TopicDescription_name(*topic));
            if let (Ok(name), Some(id)) = (name.to_str(), id_of(halves)) {
                ids.insert(name.to_owned(), id);
            }
        }
    }
}
