//! Cursors: the position of a stream in all partitions of its topics, as text for the client.
//!
//! Pure. Knows neither clients nor brokers.
//!
//! # Form
//! base64url without padding of: a version byte; the number of topics; for each topic, sorted by
//! name, the length and bytes of its name, one byte that is 1 if a topic id of 16 bytes follows,
//! the number of partitions, and the next offset of each; at last the CRC-32 of all of that, in
//! little-endian order. Numbers are LEB128 of the shortest form.
//!
//! A cursor is not signed. Whoever changes one, and its checksum, reaches only positions that a
//! new cursor may have too: the rights and the filter of each request decide what is read.

use crate::http::{Problem, ProblemKind};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use evenkeel::kafka::is_topic_name;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The id of a topic in its cluster. A topic that is deleted and created again has another.
pub type TopicIdentity = [u8; 16];

/// The only version that is written and read.
const VERSION: u8 = 1;
/// The bytes of the checksum at the end.
const CHECKSUM_BYTES: usize = 4;

/// A position in all partitions of the topics of a stream.
///
/// Its text, by `Display` and [`FromStr`], is the `id` of server-sent events. Two cursors of equal
/// positions have equal texts.
///
/// ```
/// use evenkeel_gateway::stream::{Cursor, TopicPosition};
///
/// let orders = TopicPosition::new("shop.orders", None, [17, 0, 4]);
/// let cursor = Cursor::new([orders])?;
/// let text = cursor.to_string();
/// assert_eq!(text.parse::<Cursor>(), Ok(cursor));
/// # Ok::<(), evenkeel_gateway::stream::CursorError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    topics: Vec<TopicPosition>,
}

/// A position in all partitions of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicPosition {
    /// The name of the topic.
    pub topic: Arc<str>,
    /// Its id, if the brokers know ids.
    pub identity: Option<TopicIdentity>,
    /// The next offset to read in each partition, from partition 0 on.
    pub next: Vec<i64>,
}

impl TopicPosition {
    /// A position in the topic of this name.
    pub fn new(
        topic: impl Into<Arc<str>>,
        identity: Option<TopicIdentity>,
        next: impl Into<Vec<i64>>,
    ) -> Self {
        Self {
            topic: topic.into(),
            identity,
            next: next.into(),
        }
    }
}

/// Why a text is not a cursor, or positions cannot become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CursorError {
    /// The text is longer than [`Cursor::TEXT_MAX`].
    #[error("the cursor is longer than 64 KiB")]
    TooLong,
    /// The text is not base64url, or a part is missing or changed.
    #[error("the cursor is damaged; use one as it was received")]
    Damaged,
    /// The cursor is of another version of this gateway.
    #[error("the cursor has an unknown version")]
    Version,
    /// It has too many topics or partitions, or none, or topics that are not sorted.
    #[error("a cursor has 1 to 64 different topics and 1 to 10,000 partitions")]
    Content,
}

impl From<CursorError> for Problem {
    fn from(error: CursorError) -> Self {
        Self::new(ProblemKind::Malformed, error.to_string())
    }
}

impl Cursor {
    /// The most topics of a cursor.
    pub const TOPICS_MAX: usize = 64;
    /// The most partitions of a cursor, over all topics.
    pub const PARTITIONS_MAX: usize = 10_000;
    /// The longest text, in bytes.
    pub const TEXT_MAX: usize = 64 << 10;

    /// Creates a cursor. The topics may come in any order.
    ///
    /// # Errors
    /// [`CursorError::Content`] for no topic or too many, a topic twice, without partitions or
    /// with an impossible name, too many partitions, and negative offsets.
    pub fn new(topics: impl IntoIterator<Item = TopicPosition>) -> Result<Self, CursorError> {
        let mut topics: Vec<TopicPosition> = topics.into_iter().collect();
        topics.sort_unstable_by(|a, b| a.topic.cmp(&b.topic));
        let cursor = Self { topics };
        match cursor.is_valid() {
            true => Ok(cursor),
            false => Err(CursorError::Content),
        }
    }

    /// The topics, sorted by name.
    pub fn topics(&self) -> &[TopicPosition] {
        &self.topics
    }

    fn is_valid(&self) -> bool {
        let partitions: usize = self.topics.iter().map(|topic| topic.next.len()).sum();
        let is_fine = |topic: &TopicPosition| {
            is_topic_name(&topic.topic)
                && !topic.next.is_empty()
                && topic.next.iter().all(|offset| *offset >= 0)
        };
        (1..=Self::TOPICS_MAX).contains(&self.topics.len())
            && partitions <= Self::PARTITIONS_MAX
            && self.topics.iter().all(is_fine)
            && self.topics.is_sorted_by(|a, b| a.topic < b.topic)
    }

    fn decode(bytes: &[u8]) -> Result<Self, CursorError> {
        let content = bytes.len().checked_sub(CHECKSUM_BYTES);
        let (content, checksum) = bytes.split_at(content.ok_or(CursorError::Damaged)?);
        if crc32fast::hash(content).to_le_bytes() != checksum {
            return Err(CursorError::Damaged);
        }
        let (version, content) = content.split_first().ok_or(CursorError::Damaged)?;
        if *version != VERSION {
            return Err(CursorError::Version);
        }
        let mut rest = Rest(content);
        let topics = rest.count(Self::TOPICS_MAX)?;
        let mut cursor = Self {
            topics: Vec::with_capacity(topics),
        };
        for _ in 0..topics {
            cursor.topics.push(rest.topic()?);
        }
        match rest.0.is_empty() && cursor.is_valid() {
            true => Ok(cursor),
            false => Err(CursorError::Content),
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topics = self.topics.iter();
        f.write_str(&cursor_text(topics.map(|topic| {
            (
                &*topic.topic,
                topic.identity.as_ref(),
                topic.next.as_slice(),
            )
        })))
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        if text.len() > Self::TEXT_MAX {
            return Err(CursorError::TooLong);
        }
        // The engine refuses padding, other alphabets and superfluous bits at the end.
        let bytes = URL_SAFE_NO_PAD.decode(text);
        Self::decode(&bytes.map_err(|_| CursorError::Damaged)?)
    }
}

/// The text of the cursor with these topics, which must be sorted by name. Written for each event,
/// so it takes borrowed parts.
pub(super) fn cursor_text<'a>(
    topics: impl ExactSizeIterator<Item = (&'a str, Option<&'a TopicIdentity>, &'a [i64])>,
) -> String {
    let mut bytes = vec![VERSION];
    push_number(&mut bytes, topics.len() as u64);
    for (topic, identity, next) in topics {
        push_number(&mut bytes, topic.len() as u64);
        bytes.extend_from_slice(topic.as_bytes());
        bytes.push(u8::from(identity.is_some()));
        bytes.extend_from_slice(identity.map_or(&[][..], |identity| &identity[..]));
        push_number(&mut bytes, next.len() as u64);
        for offset in next {
            push_number(&mut bytes, offset.cast_unsigned());
        }
    }
    let checksum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn push_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// The bytes that are not decoded yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], CursorError> {
        let split = self.0.split_at_checked(length);
        let (taken, rest) = split.ok_or(CursorError::Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    /// A number in its shortest form.
    fn number(&mut self) -> Result<u64, CursorError> {
        let mut number = 0_u64;
        for place in 0..10 {
            let byte = self.take(1)?[0];
            let bits = u64::from(byte & 0x7f);
            if place == 9 && byte > 1 {
                break;
            }
            number |= bits << (7 * place);
            if byte < 0x80 {
                let is_shortest = place == 0 || byte != 0;
                return if is_shortest {
                    Ok(number)
                } else {
                    Err(CursorError::Damaged)
                };
            }
        }
        Err(CursorError::Damaged)
    }

    fn count(&mut self, max: usize) -> Result<usize, CursorError> {
        let count = usize::try_from(self.number()?).map_err(|_| CursorError::Content)?;
        if count <= max {
            Ok(count)
        } else {
            Err(CursorError::Content)
        }
    }

    fn topic(&mut self) -> Result<TopicPosition, CursorError> {
        let length = self.count(self.0.len())?;
        let name = std::str::from_utf8(self.take(length)?).map_err(|_| CursorError::Content)?;
        let identity = match self.take(1)?[0] {
            0 => None,
            1 => self.take(16)?.try_into().ok(),
            _ => return Err(CursorError::Damaged),
        };
        // Each partition has at least one byte, so the text's length bounds the memory.
        let partitions = self.count(Cursor::PARTITIONS_MAX.min(self.0.len()))?;
        let mut next = Vec::with_capacity(partitions);
        for _ in 0..partitions {
            let offset = i64::try_from(self.number()?).map_err(|_| CursorError::Content)?;
            next.push(offset);
        }
        Ok(TopicPosition::new(name, identity, next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    fn cursors() -> impl Strategy<Value = Cursor> {
        let topic = (any::<Option<TopicIdentity>>(), vec(0..=i64::MAX, 1..20));
        btree_map("[a-z][a-z.-]{0,20}", topic, 1..6).prop_map(|topics| {
            let topics = topics
                .into_iter()
                .map(|(topic, (identity, next))| TopicPosition::new(topic, identity, next));
            Cursor::new(topics).expect("the strategy makes valid cursors")
        })
    }

    fn small() -> Cursor {
        let payments = TopicPosition::new("payments", Some([7; 16]), [300, 0]);
        let orders = TopicPosition::new("orders", None, [i64::MAX]);
        Cursor::new([payments, orders]).expect("a valid cursor")
    }

    proptest! {
        #[test]
        fn every_cursor_round_trips(cursor in cursors()) {
            let text = cursor.to_string();
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)));
            prop_assert_eq!(text.parse::<Cursor>(), Ok(cursor));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            let _ = text.parse::<Cursor>();
        }

        /// Bytes with a correct checksum, which a client can make.
        #[test]
        fn any_content_is_read_in_one_form_only(mut bytes in vec(any::<u8>(), 0..80)) {
            bytes.insert(0, VERSION);
            bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
            if let Ok(cursor) = Cursor::decode(&bytes) {
                prop_assert_eq!(cursor.to_string(), URL_SAFE_NO_PAD.encode(&bytes));
            }
        }
    }

    #[test]
    fn damage_of_any_single_byte_is_noticed() {
        let text = small().to_string();
        for at in 0..text.len() {
            for byte in (b' '..=b'~').filter(|byte| *byte != text.as_bytes()[at]) {
                let mut damaged = text.clone().into_bytes();
                damaged[at] = byte;
                let damaged = String::from_utf8(damaged).expect("ASCII");
                assert!(damaged.parse::<Cursor>().is_err(), "{damaged}");
            }
            assert!(text[..at].parse::<Cursor>().is_err(), "cut at {at}");
        }
    }

    #[test]
    fn topics_are_sorted_whatever_their_order_was() {
        let cursor = small();
        let names: Vec<&str> = cursor.topics().iter().map(|topic| &*topic.topic).collect();
        assert_eq!(names, ["orders", "payments"]);
    }

    #[test]
    fn impossible_contents_are_refused() {
        let topic = |name: &str, next: Vec<i64>| TopicPosition::new(name, None, next);
        let many = (0..=Cursor::TOPICS_MAX).map(|n| topic(&format!("t{n}"), vec![0]));
        for topics in [
            vec![],
            many.collect(),
            vec![topic("a", vec![0]), topic("a", vec![0])],
            vec![topic("a", vec![])],
            vec![topic("a b", vec![0])],
            vec![topic("a", vec![-1])],
            vec![topic("a", vec![0; Cursor::PARTITIONS_MAX + 1])],
        ] {
            assert_eq!(Cursor::new(topics), Err(CursorError::Content));
        }
        let long = "A".repeat(Cursor::TEXT_MAX + 1);
        assert_eq!(long.parse::<Cursor>(), Err(CursorError::TooLong));
        let mut later = vec![VERSION + 1, 0];
        later.extend_from_slice(&crc32fast::hash(&later).to_le_bytes());
        assert_eq!(Cursor::decode(&later), Err(CursorError::Version));
    }
}
