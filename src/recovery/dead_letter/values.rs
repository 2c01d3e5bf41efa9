//! The values of headers by name.
//!
//! Of several headers with one name the last counts: a system that handles a record again appends
//! its headers. Values are untrusted. Each method returns `None` for what it cannot read, so that
//! one broken header never hides the others.

use crate::event::HeadersIter;
use crate::kafka::is_topic_name;
use jiff::Timestamp;

/// The values of headers by name.
pub(super) struct Values<'a>(pub(super) HeadersIter<'a>);

impl<'a> Values<'a> {
    /// The value as it is.
    pub(super) fn bytes(&self, name: &str) -> Option<&'a [u8]> {
        self.0.clone().last_value(name)
    }

    /// Text for people. Bytes that are not UTF-8 are replaced.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let text = String::from_utf8_lossy(self.bytes(name)?);
        (!text.is_empty()).then(|| text.into_owned())
    }

    /// Whether there are headers, and all their names begin with the prefix.
    pub(super) fn all_begin_with(&self, prefix: &str) -> bool {
        let mut names = self.0.clone().map(|(name, _)| name).peekable();
        names.peek().is_some() && names.all(|name| name.starts_with(prefix.as_bytes()))
    }

    /// The index of the prefix of the last header that has one of these prefixes.
    pub(super) fn last_that_begins_with(&self, prefixes: &[&str]) -> Option<usize> {
        let which = |name: &[u8]| {
            let mut prefixes = prefixes.iter();
            prefixes.position(|prefix| name.starts_with(prefix.as_bytes()))
        };
        self.0.clone().filter_map(|(name, _)| which(name)).last()
    }

    /// Text for programs. None if it is not UTF-8.
    pub(super) fn exact_text(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.bytes(name)?).ok()
    }

    /// A topic. None if Kafka does not allow the name: it may become the destination of a replay.
    pub(super) fn topic(&self, name: &str) -> Option<String> {
        let topic = self.exact_text(name)?;
        is_topic_name(topic).then(|| topic.to_owned())
    }

    /// A time in RFC 3339.
    pub(super) fn time(&self, name: &str) -> Option<Timestamp> {
        self.exact_text(name)?.parse().ok()
    }

    /// A partition as text.
    pub(super) fn partition(&self, name: &str) -> Option<i32> {
        let number = self.exact_text(name)?.parse().ok();
        number.filter(|number| *number >= 0)
    }

    /// An offset as text.
    pub(super) fn offset(&self, name: &str) -> Option<i64> {
        let number = self.exact_text(name)?.parse().ok();
        number.filter(|number| *number >= 0)
    }

    /// A count as text. A larger one than any record can have is read as the largest.
    pub(super) fn count(&self, name: &str) -> Option<u32> {
        let digits = self.bytes(name)?;
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        Some(self.exact_text(name)?.parse().unwrap_or(u32::MAX))
    }

    /// A big-endian number that is not negative.
    pub(super) fn int32(&self, name: &str) -> Option<i32> {
        let number = i32::from_be_bytes(self.bytes(name)?.try_into().ok()?);
        (number >= 0).then_some(number)
    }

    /// [`Self::int32`] with 64 bits.
    pub(super) fn int64(&self, name: &str) -> Option<i64> {
        let number = i64::from_be_bytes(self.bytes(name)?.try_into().ok()?);
        (number >= 0).then_some(number)
    }
}
