//! Finds the waiting records that a drill delivered again.

use crate::Cluster;
use evenkeel::consumer::ParkedKey;
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::reader::{Reader, Span};
use evenkeel::recovery::repetition_of;
use std::collections::HashMap;

/// The header that names the operator of the drill.
const BY: &str = "evenkeel.parked.by";

/// The records of a key that a drill delivered again: by offset in the retry topic `retry`, the
/// operator of the drill. Blocks the calling thread. Tells an operator which waiting records may be
/// dropped without a loss.
///
/// # Errors
/// If a request to the cluster fails.
pub fn repetitions(
    cluster: &Cluster,
    retry: &str,
    key: &ParkedKey,
) -> Result<HashMap<i64, String>, KafkaError> {
    let mut found = HashMap::new();
    let (Some(first), Some(last)) = (key.offsets.iter().min(), key.offsets.iter().max()) else {
        return Ok(found);
    };
    let span = Span {
        topic: retry.into(),
        partition: key.partition,
        start: *first,
        end: Some(*last + 1),
    };
    let mut reader = Reader::of_spans(&cluster.kafka, vec![span], cluster.timeout)?;
    while !reader.at_end() {
        if let Some(record) = reader.next(cluster.timeout)?
            && record.key == key.key
            && repetition_of(record.headers.iter()).is_some()
        {
            let by = record.headers.last(BY).unwrap_or_default();
            found.insert(record.offset, String::from_utf8_lossy(by).into_owned());
        }
    }
    Ok(found)
}
