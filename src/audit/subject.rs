//! What a record is to the group: by what the inbox knows it, and in what order it stands.

use crate::event::{ContentDigest, DecodeError, decode, raw_identity};
use crate::kafka::reader::LogRecord;
use foldhash::quality::FixedState;
use std::hash::{BuildHasher, Hash};

/// A record's place in the audited topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// What decides which handler a record has.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    /// An event of this type.
    Event(String),
    /// No event: a raw handler has it, or it is a dead letter.
    Raw,
    /// It says that it is an event and cannot be read as one: no handler has it.
    Unreadable,
}

impl Kind {
    /// As it is told: no type begins with a bracket in any naming that is used.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Event(ty) => ty,
            Self::Raw => "(raw)",
            Self::Unreadable => "(unreadable)",
        }
    }
}

/// A record that the group owes an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) place: Place,
    pub(super) kind: Kind,
    pub(super) source: String,
    pub(super) id: String,
    /// What it says as an event, and as a record for what is none; none where that is not to be compared.
    pub(super) content: Option<ContentDigest>,
    /// What it says as a record.
    record: ContentDigest,
    /// Partition and key, as a number that no two of them share; none for a record without a key, which has no order.
    pub(super) lane: Option<u128>,
}

impl Subject {
    /// What stands, or stood, at `place` of `topic` with this timestamp. It may have been read from elsewhere, as a letter is.
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

    /// The same of a record that does not say what the one at its place said: one that was shortened, or edited.
    pub(super) fn unlike(self) -> Self {
        Self {
            content: None,
            ..self
        }
    }

    /// [`Self::new`] for a record of the audited topic.
    pub(super) fn of(record: &LogRecord) -> Self {
        let place = Place {
            partition: record.partition,
            offset: record.offset,
        };
        Self::new(&record.topic, place, record.timestamp_ms, record)
    }

    /// What a handler of any record knows it by, also one that is an event.
    pub(super) fn as_raw(&self, topic: &str) -> (String, String) {
        let Place { partition, offset } = self.place;
        raw_identity(topic, partition, offset, self.record)
    }

    /// The event's identity, as a number that no two of them share.
    pub(super) fn identity(&self) -> u128 {
        fingerprint(&(&self.source, &self.id))
    }

    /// Whether a letter, or a parked record, with this content may be of this record. One that was shortened may have lost what
    /// it was.
    pub(super) fn may_be(&self, other: &Self) -> bool {
        let is_event = |subject: &Self| matches!(subject.kind, Kind::Event(_));
        !is_event(self) || !is_event(other) || self.identity() == other.identity()
    }

    /// Bytes that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        256 + self.source.len() + self.id.len() + self.kind.name().len()
    }
}

/// 128 bits: among 100 million, that any two are the same is less likely than one in 10^22.
fn fingerprint(of: &impl Hash) -> u128 {
    let half = |seed| u128::from(FixedState::with_seed(seed).hash_one(of));
    half(0x6576_656e) << 64 | half(0x6b65_656c)
}
