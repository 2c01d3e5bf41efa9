//! The identity of a record: the inbox keys that it may have, and its ordering key.

use evenkeel::event::{ContentDigest, DecodeError, decode, raw_identity};
use evenkeel::kafka::reader::LogRecord;
use foldhash::quality::FixedState;
use std::hash::{BuildHasher, Hash};

/// Partition and offset in the audited topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// The kind of a record. It decides which handler the record has.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    /// An event of this type.
    Event(String),
    /// Not an event: its handler is a raw handler, or it is a dead letter.
    Raw,
    /// Claims to be an event but cannot be read as one. It has no handler.
    Unreadable,
}

impl Kind {
    /// The name in the report. No naming convention in use has types that begin with a bracket.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Event(ty) => ty,
            Self::Raw => "(raw)",
            Self::Unreadable => "(unreadable)",
        }
    }
}

/// A record that must have one end: an effect, a dead letter, a parked record or a skip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) place: Place,
    pub(super) kind: Kind,
    pub(super) source: String,
    pub(super) id: String,
    /// Digest of the event's content, or of the record's content if it is no event. `None` if it
    /// must not be compared.
    pub(super) content: Option<ContentDigest>,
    /// Digest of the record's content.
    record: ContentDigest,
    /// Fingerprint of partition and key. `None` for a record without a key, which has no order.
    pub(super) lane: Option<u128>,
}

impl Identity {
    /// The record at `place` of `topic` with this timestamp. The content may come from elsewhere:
    /// from its dead letter or parked record.
    pub(super) fn new(
        topic: &str,
        place: Place,
        timestamp_ms: Option<i64>,
        record: &LogRecord,
    ) -> Self {
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let as_record = ContentDigest::of_record(timestamp_ms.filter(|ms| *ms >= 0), key, value);
        let lane = record.key.as_ref();
        let lane = lane.map(|key| fingerprint(&(place.partition, key)));
        let decoded = decode(record.headers.iter(), record.value.as_deref());
        let (kind, (source, id), content) = match decoded {
            Ok(event) => {
                let attributes = event.attributes;
                let data = event.data.as_deref().unwrap_or(b"null");
                let content = ContentDigest::of_event(&attributes.ty, data);
                let identity = (attributes.source, attributes.id);
                (Kind::Event(attributes.ty), identity, content)
            }
            Err(error) => {
                let kind = match error {
                    DecodeError::NotAnEvent => Kind::Raw,
                    _ => Kind::Unreadable,
                };
                let identity = raw_identity(topic, place.partition, place.offset, as_record);
                (kind, identity, as_record)
            }
        };
        Self {
            place,
            kind,
            source,
            id,
            content: Some(content),
            record: as_record,
            lane,
        }
    }

    /// Marks a record whose content differs from the original's because it was truncated or edited.
    pub(super) fn without_content(self) -> Self {
        Self {
            content: None,
            ..self
        }
    }

    /// [`Self::new`] for a record that was read from the audited topic.
    pub(super) fn of(record: &LogRecord) -> Self {
        let place = Place {
            partition: record.partition,
            offset: record.offset,
        };
        Self::new(&record.topic, place, record.timestamp_ms, record)
    }

    /// Source and id that a raw or fallback handler uses for the record, even if it is an event.
    pub(super) fn as_raw(&self, topic: &str) -> (String, String) {
        let Place { partition, offset } = self.place;
        raw_identity(topic, partition, offset, self.record)
    }

    /// Fingerprint of the event's source and id.
    pub(super) fn identity(&self) -> u128 {
        fingerprint(&(&self.source, &self.id))
    }

    /// Whether a dead letter or parked record with this content may belong to this record. A
    /// truncated one may have lost the event's attributes.
    pub(super) fn may_belong_to(&self, other: &Self) -> bool {
        let is_event = |subject: &Self| matches!(subject.kind, Kind::Event(_));
        !is_event(self) || !is_event(other) || self.identity() == other.identity()
    }

    /// Approximate memory in bytes.
    pub(super) fn bytes(&self) -> usize {
        256 + self.source.len() + self.id.len() + self.kind.name().len()
    }
}

/// A hash of 128 bits. Among 100 million values, the probability of a collision is below 1 in
/// 10^22.
fn fingerprint(of: &impl Hash) -> u128 {
    let half = |seed| u128::from(FixedState::with_seed(seed).hash_one(of));
    half(0x6576_656e) << 64 | half(0x6b65_656c)
}
