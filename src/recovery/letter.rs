//! Reads dead letters, whoever wrote them.
//!
//! Owns the names and the encodings of four families of failure headers. Total: headers are anybody's bytes, so that what
//! does not fit is left out, what is too large is clamped, and a topic is only what can be one. Reads no value.

mod families;

#[cfg(test)]
mod tests;

use super::replay::{FIRST_FAILURE, REPLAY_COUNT};
use crate::event::HeadersIter;
use crate::kafka::is_topic_name;
use jiff::Timestamp;
use serde::Serialize;

/// Who writes failure headers of that kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Kafka's share groups (KIP-1191), `__dlq.errors.*`, and this library, which adds `evenkeel.dlq.error.*`.
    Kafka,
    /// Kafka Streams (KIP-1034), `__streams.errors.*`.
    Streams,
    /// Kafka Connect's sinks, `__connect.errors.*`.
    Connect,
    /// Spring Kafka, `kafka_dlt-*`.
    Spring,
}

/// What the headers of a dead letter say about the failure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DeadLetter {
    /// Who wrote it; none for a record without failure headers.
    pub family: Option<Family>,
    /// The topic that the record failed on.
    pub topic: Option<String>,
    /// Its partition there.
    pub partition: Option<i32>,
    /// Its offset there.
    pub offset: Option<i64>,
    /// The group, or the connector, that gave it up.
    pub group: Option<String>,
    /// The error's class: ours (`transient`, `permanent`, `outage`), or the name of an exception's class.
    pub class: Option<String>,
    /// Where it failed: ours (`decode`, `schema`, `handler`, `timeout`, `panic`, `inbox`, `skipped`), or Connect's stage.
    pub stage: Option<String>,
    /// What happened.
    pub message: Option<String>,
    /// How often it was tried.
    pub attempts: Option<u32>,
    /// When it failed for the first time, or was given up where that is not said, as far as replays have handed that on.
    pub first_failure: Option<Timestamp>,
    /// When it was given up.
    pub last_failure: Option<Timestamp>,
    /// The service that gave it up.
    pub service: Option<String>,
    /// The process of the service.
    pub instance: Option<String>,
    /// How often it was replayed before.
    pub replay_count: u32,
    /// Whether it lacks the value, which stands where it failed for as long as it is kept there.
    pub is_reference: bool,
}

impl DeadLetter {
    /// Reads the headers of a record.
    ///
    /// Where a record carries headers of several families, as one that travelled through several systems does, those that
    /// were added last count, and of several headers of one name the last.
    pub fn read(headers: HeadersIter<'_>) -> Self {
        let values = Values(headers.clone());
        let family = headers.filter_map(|(name, _)| families::of(name)).last();
        let mut letter =
            family.map_or_else(Self::default, |family| families::read(family, &values));
        letter.replay_count = values.count(REPLAY_COUNT).unwrap_or(0);
        letter.first_failure = values.time(FIRST_FAILURE).or(letter.last_failure);
        letter
    }
}

/// The values of headers by name.
struct Values<'a>(HeadersIter<'a>);

impl<'a> Values<'a> {
    fn bytes(&self, name: &str) -> Option<&'a [u8]> {
        self.0.clone().last_value(name)
    }

    /// Text for people: what is no UTF-8 in it is shown as such.
    fn text(&self, name: &str) -> Option<String> {
        let text = String::from_utf8_lossy(self.bytes(name)?);
        (!text.is_empty()).then(|| text.into_owned())
    }

    fn exact_text(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.bytes(name)?).ok()
    }

    fn topic(&self, name: &str) -> Option<String> {
        let topic = self.exact_text(name)?;
        is_topic_name(topic).then(|| topic.to_owned())
    }

    fn time(&self, name: &str) -> Option<Timestamp> {
        self.exact_text(name)?.parse().ok()
    }

    /// A partition as text.
    fn partition(&self, name: &str) -> Option<i32> {
        let number = self.exact_text(name)?.parse().ok();
        number.filter(|number| *number >= 0)
    }

    /// An offset as text.
    fn offset(&self, name: &str) -> Option<i64> {
        let number = self.exact_text(name)?.parse().ok();
        number.filter(|number| *number >= 0)
    }

    /// A count as text; one that no record can have is read as the largest there is.
    fn count(&self, name: &str) -> Option<u32> {
        let digits = self.bytes(name)?;
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        Some(self.exact_text(name)?.parse().unwrap_or(u32::MAX))
    }

    /// A number in big-endian order that is none of the negative ones.
    fn int32(&self, name: &str) -> Option<i32> {
        let number = i32::from_be_bytes(self.bytes(name)?.try_into().ok()?);
        (number >= 0).then_some(number)
    }

    /// [`Self::int32`] of 64 bits.
    fn int64(&self, name: &str) -> Option<i64> {
        let number = i64::from_be_bytes(self.bytes(name)?.try_into().ok()?);
        (number >= 0).then_some(number)
    }
}
