//! The published events of a delivery, as a store keeps them beside its row: readable JSON.
//!
//! The format belongs to the stored rows: other releases read it, and operators may. A record
//! without replies has an empty value, which costs no space. Partition and timestamp are not kept,
//! because handlers publish by key and the log sets the time.

use crate::event::{Headers, OutgoingRecord};
use crate::inbox::InboxError;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// One published record, in the order of its fields in JSON. Fields are added only as optional
/// ones.
#[derive(Serialize, Deserialize)]
struct Reply {
    topic: String,
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(String, String)>,
}

/// Encodes published records; empty for no records. Events are JSON and their headers text, so
/// nothing is lost.
pub(in crate::inbox) fn encode(records: &[OutgoingRecord]) -> Vec<u8> {
    if records.is_empty() {
        return Vec::new();
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let reply = |record: &OutgoingRecord| Reply {
        topic: record.topic.clone(),
        key: record.key.as_deref().map(text),
        value: record.value.as_deref().map(text),
        headers: record
            .headers
            .iter()
            .map(|(name, value)| (text(name), text(value.unwrap_or_default())))
            .collect(),
    };
    let replies: Vec<Reply> = records.iter().map(reply).collect();
    serde_json::to_vec(&replies).expect("strings always serialise")
}

/// Decodes the result of [`encode`].
///
/// # Errors
/// [`InboxError::Replies`] for text that another program wrote. The delivery is completed all the
/// same; only its events are lost.
pub(in crate::inbox) fn decode(replies: &[u8]) -> Result<Vec<OutgoingRecord>, InboxError> {
    if replies.is_empty() {
        return Ok(Vec::new());
    }
    let replies: Vec<Reply> = serde_json::from_slice(replies).map_err(InboxError::Replies)?;
    let record = |reply: Reply| {
        let mut headers = Headers::new();
        for (name, value) in &reply.headers {
            headers.push(name, Some(value.as_bytes()));
        }
        OutgoingRecord {
            topic: reply.topic,
            partition: None,
            key: reply.key.map(Bytes::from),
            value: reply.value.map(Bytes::from),
            headers,
            timestamp_ms: None,
        }
    };
    Ok(replies.into_iter().map(record).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_come_back_as_they_were_published() {
        let mut headers = Headers::new();
        headers.push("ce_id", Some(b"1"));
        let record = OutgoingRecord {
            topic: "t".into(),
            partition: None,
            key: Some(Bytes::from_static(b"k")),
            value: Some(Bytes::from_static(b"{}")),
            headers,
            timestamp_ms: None,
        };
        let records = [
            record.clone(),
            OutgoingRecord {
                key: None,
                value: None,
                ..record
            },
        ];
        assert_eq!(decode(&encode(&records)).expect("own encoding"), records);
        assert!(encode(&[]).is_empty() && decode(b"").expect("none").is_empty());
        assert!(decode(b"[{").is_err());
    }
}
