//! Events as consumers receive them, for the tests of other modules.

use super::headers::Headers;
use super::record::{Record, RecordBatchBuilder};
use super::typed::EventType;

/// A keyless event in binary mode, on partition 0 of its topic, with this number as its id and its
/// offset.
pub(crate) fn received_event<T: EventType>(source: &str, number: i64, data: &T) -> Record {
    let mut headers = Headers::new();
    for (name, value) in [
        ("ce_specversion", "1.0"),
        ("ce_id", &*number.to_string()),
        ("ce_source", source),
        ("ce_type", T::TYPE),
        ("content-type", "application/json"),
    ] {
        headers.push(name, Some(value.as_bytes()));
    }
    let value = serde_json::to_vec(data).expect("the payload has a JSON form");
    let mut batch = RecordBatchBuilder::new();
    let topic = batch.source(T::TOPIC.into(), 0);
    batch.push(topic, number, 0, None, Some(&value), headers.iter());
    batch.build(None).record(0).expect("the batch has a record")
}
