//! Maps a record to a row.
//!
//! Owns the meaning of the columns, and the hash that orders keys and assigns them to slots. Knows
//! no SQL.
//!
//! The columns are Debezium's for its outbox event router, so that it can replace the relay. `id`
//! and `type` are copies for people and for Debezium; the record that a relay publishes is built
//! from the other columns, byte for byte.

use super::store::{RowId, StoredRow};
use crate::event::{Headers, OutgoingRecord, decode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The number of slots, among which the keys are divided and which relays lease. Fixed, because
/// rows store their slot.
pub(crate) const SLOTS: i16 = 64;

/// The namespace of [`key_hash`]. It never changes: all releases that share a store must agree.
const HASH_NAMESPACE: Uuid = Uuid::from_u128(0x0196_e2c4_51d7_7f0a_9d0e_6b3f_a2c8_4e11);

/// A record as the columns of a row, beside those that the store fills.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// The event's id; a new id for a record that is no event. Together with the number it
    /// identifies the row; the record is built from the headers.
    pub(super) id: String,
    /// The event's type; used like the id.
    pub(super) ty: String,
    /// Debezium's `aggregatetype`, by which its router chooses the topic.
    pub(super) topic: String,
    /// Debezium's `aggregateid`; `None` without a key, or for a binary key.
    pub(super) key: Option<String>,
    /// A key that is not text.
    pub(super) binary_key: Option<Vec<u8>>,
    /// The value; `None` for a tombstone.
    pub(super) payload: Option<Vec<u8>>,
    /// All headers as JSON, in order and with repetitions.
    pub(super) headers: String,
    /// The partition, if the record fixes one.
    pub(super) partition: Option<i32>,
    /// The timestamp, if the record fixes one.
    pub(super) timestamp_ms: Option<i64>,
    /// Rows of one hash keep their order.
    pub(super) key_hash: i64,
    /// The slot whose relay publishes it.
    pub(super) slot: i16,
}

impl Row {
    /// The columns of a record. A record without a key gets a random hash: it is spread over the
    /// slots and ordered with nothing.
    pub(super) fn of(record: &OutgoingRecord) -> Self {
        let (id, ty) = identity(record);
        let key = record.key.as_deref();
        let text_key = key.and_then(as_text);
        let key_hash = match key {
            Some(key) => key_hash(&record.topic, key),
            // Without a key there is no order to keep, and no lock to wait for.
            None => Uuid::now_v7().as_u64_pair().1.cast_signed(),
        };
        Self {
            id,
            ty,
            topic: record.topic.clone(),
            binary_key: key.filter(|_| text_key.is_none()).map(<[u8]>::to_vec),
            key: text_key.map(str::to_owned),
            payload: record.value.as_deref().map(<[u8]>::to_vec),
            headers: encode_headers(&record.headers),
            partition: record.partition,
            timestamp_ms: record.timestamp_ms,
            key_hash,
            slot: slot(key_hash),
        }
    }

    /// The record that was passed to [`Row::of`].
    ///
    /// # Errors
    /// The fault of a row that another program wrote.
    pub(super) fn into_record(self) -> Result<OutgoingRecord, serde_json::Error> {
        let key = self.binary_key.or(self.key.map(String::into_bytes));
        Ok(OutgoingRecord {
            topic: self.topic,
            partition: self.partition,
            key: key.map(Bytes::from),
            value: self.payload.map(Bytes::from),
            headers: decode_headers(&self.headers)?,
            timestamp_ms: self.timestamp_ms,
        })
    }
}

impl Row {
    /// The row as a relay reads it. A row that cannot be read is no error here: it is refused like
    /// an event, which holds its key and shows the reason.
    pub(super) fn into_stored(self, sequence: i64, bytes: i64) -> StoredRow {
        StoredRow {
            id: RowId {
                sequence,
                event: self.id.as_str().into(),
            },
            key_hash: self.key_hash,
            slot: self.slot,
            topic: self.topic.clone(),
            bytes: usize::try_from(bytes).unwrap_or(0),
            record: self
                .into_record()
                .map_err(|error| format!("the row cannot be read: {error}")),
        }
    }
}

/// The number by which the records of a topic's key are ordered: the same in every process, release
/// and store. Two keys with the same number only wait for each other.
pub(crate) fn key_hash(topic: &str, key: &[u8]) -> i64 {
    // A topic name contains no zero byte, so the parts stay distinct.
    let name = [topic.as_bytes(), b"\0", key].concat();
    let (hash, _) = Uuid::new_v5(&HASH_NAMESPACE, &name).as_u64_pair();
    hash.cast_signed()
}

/// The slot of a hash.
pub(crate) fn slot(key_hash: i64) -> i16 {
    // The last bits: a UUID has its version in the middle of its first half, and the last 12 bits
    // are hash.
    (key_hash & i64::from(SLOTS - 1)) as i16
}

/// The event's id and type, as far as the columns can hold them.
fn identity(record: &OutgoingRecord) -> (String, String) {
    let column = |text: &[u8]| String::from_utf8_lossy(text).replace('\0', "");
    let header = |name| record.headers.last(name).map(column);
    if let Some(id) = header("ce_id") {
        return (id, header("ce_type").unwrap_or_default());
    }
    // A structured event has them in its value.
    match decode(record.headers.iter(), record.value.as_deref()) {
        Ok(envelope) => (
            column(envelope.attributes.id.as_bytes()),
            column(envelope.attributes.ty.as_bytes()),
        ),
        Err(_) => (Uuid::now_v7().to_string(), String::new()),
    }
}

/// PostgreSQL's text cannot contain a zero character.
fn as_text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'))
}

/// A header's name or value: as text where possible, so that the table is readable. Untagged: text
/// is a JSON string, other bytes an object with the key `base64`.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum TextOrBytes {
    Text(String),
    Binary { base64: String },
}

impl TextOrBytes {
    /// Text if the bytes are UTF-8.
    fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Binary {
                base64: STANDARD.encode(bytes),
            },
        }
    }

    fn into_bytes(self) -> Result<Vec<u8>, serde_json::Error> {
        match self {
            Self::Text(text) => Ok(text.into_bytes()),
            Self::Binary { base64 } => STANDARD
                .decode(base64)
                .map_err(<serde_json::Error as serde::de::Error>::custom),
        }
    }
}

/// One JSON array of `[name, value]`, in order and with repetitions; an absent value is null.
fn encode_headers(headers: &Headers) -> String {
    let pairs: Vec<(TextOrBytes, Option<TextOrBytes>)> = headers
        .iter()
        .map(|(name, value)| (TextOrBytes::of(name), value.map(TextOrBytes::of)))
        .collect();
    serde_json::to_string(&pairs).unwrap_or_else(|_| unreachable!("strings always serialise"))
}

/// Decodes the result of [`encode_headers`].
///
/// # Errors
/// For text that another program wrote.
fn decode_headers(json: &str) -> Result<Headers, serde_json::Error> {
    let pairs: Vec<(TextOrBytes, Option<TextOrBytes>)> = serde_json::from_str(json)?;
    let mut headers = Headers::new();
    for (name, value) in pairs {
        let value = value.map(TextOrBytes::into_bytes).transpose()?;
        headers.push_bytes(&name.into_bytes()?, value.as_deref());
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn record(key: Option<&[u8]>) -> OutgoingRecord {
        OutgoingRecord {
            topic: "t".to_owned(),
            partition: Some(3),
            key: key.map(Bytes::copy_from_slice),
            value: Some(Bytes::from_static(b"{}")),
            headers: Headers::new(),
            timestamp_ms: Some(7),
        }
    }

    #[test]
    fn the_hash_of_a_key_never_changes() {
        let hash = key_hash("shop.orders", b"o-1");
        assert_eq!((hash, slot(hash)), (-6_499_808_958_715_176_055, 9));
    }

    #[test]
    fn keys_spread_over_all_slots() {
        let slots: BTreeSet<i16> = (0..2_000)
            .map(|n: u32| slot(key_hash("t", n.to_string().as_bytes())))
            .collect();
        assert_eq!(slots, (0..SLOTS).collect());
        let keyless: BTreeSet<i16> = (0..2_000).map(|_| Row::of(&record(None)).slot).collect();
        assert_eq!(keyless, (0..SLOTS).collect());
    }

    #[test]
    fn topic_and_key_are_distinguished() {
        assert_ne!(key_hash("ab", b"c"), key_hash("a", b"bc"));
    }

    #[test]
    fn event_id_and_type_become_columns_in_both_modes() {
        let mut binary = record(Some(b"k"));
        binary.headers.push("ce_id", Some(b"1\x002"));
        binary.headers.push("ce_type", Some(b"opened"));
        let mut structured = record(Some(b"k"));
        let content_type = b"application/cloudevents+json";
        structured.headers.push("content-type", Some(content_type));
        structured.value = Some(Bytes::from_static(
            br#"{"specversion":"1.0","id":"12","source":"/s","type":"opened"}"#,
        ));
        for event in [binary, structured] {
            let row = Row::of(&event);
            assert_eq!((row.id.as_str(), row.ty.as_str()), ("12", "opened"));
        }
        let (row, other) = (Row::of(&record(None)), Row::of(&record(None)));
        assert_eq!(row.ty, "");
        assert_ne!(row.id, other.id, "what is no event gets an id of its own");
    }

    #[test]
    fn headers_of_others_are_refused_without_panic() {
        for json in ["", "{}", "[1]", r#"[[{"base64":"*"},null]]"#] {
            assert!(decode_headers(json).is_err(), "{json}");
        }
    }

    type Pairs = Vec<(Vec<u8>, Option<Vec<u8>>)>;

    proptest! {
        #[test]
        fn a_record_is_restored_unchanged(key: Option<Vec<u8>>, value: Option<Vec<u8>>, pairs: Pairs) {
            let mut headers = Headers::new();
            for (name, value) in &pairs {
                headers.push_bytes(name, value.as_deref());
            }
            let record = OutgoingRecord {
                value: value.map(Bytes::from),
                headers,
                ..record(key.as_deref())
            };
            let row = Row::of(&record);
            prop_assert!(row.key.is_none() || row.binary_key.is_none());
            prop_assert_eq!(row.into_record().expect("our own row"), record);
        }
    }
}
