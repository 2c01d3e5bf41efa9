//! Reads dead letters of any writer.
//!
//! Selects the family of failure headers (`header_families.rs` has their names and encodings) and
//! reads it. Total: headers are untrusted bytes, so that invalid values are omitted, too large numbers are clamped, and a topic
//! must have a valid name. Reads no value of a record.

use super::details::DeadLetter;
use super::failure_headers::{FIRST_FAILURE, REPLAY_COUNT, is_failure_header};
use super::header_families;
use super::values::Values;
use crate::event::HeadersIter;

impl DeadLetter {
    /// Reads the headers of a record.
    ///
    /// If a record has headers of several families, as one that passed through several systems,
    /// those that were added last count. Of several headers with one name the last counts. Never
    /// fails: an unreadable value is left out, and a record without failure headers has no
    /// [`family`](Self::family).
    ///
    /// ```
    /// use evenkeel::event::Headers;
    /// use evenkeel::recovery::DeadLetter;
    ///
    /// let failure = DeadLetter::read(Headers::new().iter());
    /// assert_eq!(failure.family, None, "it is no dead letter");
    /// ```
    pub fn read(headers: HeadersIter<'_>) -> Self {
        let values = Values(headers.clone());
        let family = headers
            .filter_map(|(name, _)| header_families::of(name))
            .last();
        let mut dead_letter = family.map_or_else(Self::default, |family| {
            header_families::read(family, &values)
        });
        dead_letter.replay_count = values.count(REPLAY_COUNT).unwrap_or(0);
        dead_letter.first_failure = values.time(FIRST_FAILURE).or(dead_letter.last_failure);
        dead_letter
    }

    /// Whether a header of this dead letter describes a failure or a replay. A replayed record does
    /// not keep such headers. Some names count only in a dead letter of the family that writes
    /// them, because an application may use them too (`source_topic`).
    ///
    /// ```
    /// use evenkeel::recovery::DeadLetter;
    ///
    /// let failure = DeadLetter::default();
    /// assert!(failure.is_failure_header(b"__dlq.errors.message"));
    /// assert!(!failure.is_failure_header(b"source_topic"), "it is the application's own");
    /// ```
    pub fn is_failure_header(&self, name: &[u8]) -> bool {
        let own = self.family.map_or(&[][..], header_families::prefixes);
        is_failure_header(name) || own.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
    }

    /// The key of the original record, if the dead letter's `key` is another one.
    pub(in crate::recovery) fn original_key<'a>(
        &self,
        headers: HeadersIter<'a>,
        key: Option<&[u8]>,
    ) -> Option<&'a [u8]> {
        header_families::key(self.family?, &Values(headers), key)
    }
}
