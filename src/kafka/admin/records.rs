//! Deletes records. Kafka can only delete the beginning of a partition.
//!
//! A broker answers when the partition's first offset has moved, not when the disk space is free.
//! Deleting up to an offset that is deleted already succeeds, so a request may be repeated.

use super::connection::Connection;
use super::topics::valid_name;
use crate::kafka::KafkaError;
use crate::kafka::error::failed;
use rdkafka::admin::AdminOptions;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use tokio::runtime::Handle;

/// Deletes the records before these offsets. Returns the first available offsets.
pub(super) fn delete_records_before(
    connection: &Connection,
    topic: &str,
    before: &BTreeMap<i32, i64>,
) -> Result<BTreeMap<i32, i64>, KafkaError> {
    let what = format!("deleting records of the topic {topic}");
    let topic = valid_name(topic)?;
    if before.is_empty() {
        return Ok(BTreeMap::new());
    }
    connection.reject_on_mock(&what)?;
    let right = format!("DELETE on the topic {topic}");
    let refused = |error| failed(&what, error).requires_permission(&right);
    let mut list = TopicPartitionList::with_capacity(before.len());
    for (partition, offset) in before {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))
            .map_err(refused)?;
    }
    let left = Some(connection.remaining(&what)?);
    let options = AdminOptions::new()
        .request_timeout(left)
        .operation_timeout(left);
    let answer = connection.admin()?.delete_records(&list, &options);
    let answer = Handle::current()
        .block_on(answer)
        .map_err(|error| connection.unanswered(&what, error))?;
    let mut first = BTreeMap::new();
    for element in answer.elements() {
        element.error().map_err(refused)?;
        if let Offset::Offset(offset) = element.offset() {
            first.insert(element.partition(), offset);
        }
    }
    Ok(first)
}
