//! The scope of a command, and its text form.
//!
//! Total: the text may come from a topic that others can write to.
//!
//! A scope has exactly one text. It is part of the keys of lasting commands: with two texts, two
//! pauses of one partition would be two keys, and a resume would cancel only one of them.

use crate::kafka::{RecordPosition, is_topic_name};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The scope of a command.
///
/// As text: `group`, `topic/orders`, `partition/orders/3`, `record/orders/3@17`,
/// `key/orders/customer-7`. Bytes of a key other than letters, digits and `-._:` are written as `%`
/// and two hexadecimal digits.
///
/// The enum is exhaustive on purpose: code that shows or authorises commands must handle every
/// scope.
///
/// ```
/// use evenkeel::control::Scope;
///
/// let scope: Scope = "key/orders/a%2Fb".parse().expect("a scope");
/// assert_eq!(scope, Scope::Key { topic: "orders".to_owned(), key: b"a/b".to_vec() });
/// assert_eq!(scope.to_string(), "key/orders/a%2Fb");
/// assert!(scope.may_affect("orders", 4) && !scope.covers("orders", 4));
/// assert!("key/orders/%41".parse::<Scope>().is_err(), "`A` is written as it is");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Scope {
    /// All topics that the group reads.
    Group,
    /// All partitions of a topic.
    Topic(String),
    /// One partition.
    Partition {
        /// The topic of the partition.
        topic: String,
        /// The number of the partition.
        partition: i32,
    },
    /// One record.
    Record(RecordPosition),
    /// The records of a topic with this key.
    Key {
        /// The topic of the records.
        topic: String,
        /// The key's bytes.
        key: Vec<u8>,
    },
}

impl Scope {
    /// Whether the scope contains the whole partition: a pause of it pauses the partition.
    pub fn covers(&self, topic: &str, partition: i32) -> bool {
        match self {
            Self::Group => true,
            Self::Topic(name) => name == topic,
            Self::Partition {
                topic: name,
                partition: number,
            } => name == topic && *number == partition,
            Self::Record(_) | Self::Key { .. } => false,
        }
    }

    /// Whether the scope may contain a part of the partition: a member that owns it is concerned. A
    /// key touches all partitions of its topic, since its partitioner is unknown.
    pub fn may_affect(&self, topic: &str, partition: i32) -> bool {
        match self {
            Self::Record(record) => record.topic == topic && record.partition == partition,
            Self::Key { topic: name, .. } => name == topic,
            _ => self.covers(topic, partition),
        }
    }

    /// Whether the scope contains the record at this offset. Ignores scopes of a key, which is
    /// unknown here.
    pub fn has(&self, topic: &str, partition: i32, offset: i64) -> bool {
        match self {
            Self::Record(record) => {
                record.offset == offset && record.partition == partition && record.topic == topic
            }
            _ => self.covers(topic, partition),
        }
    }

    /// The topic that the scope names. None for the whole group.
    pub fn topic(&self) -> Option<&str> {
        match self {
            Self::Group => None,
            Self::Topic(topic) | Self::Partition { topic, .. } | Self::Key { topic, .. } => {
                Some(topic)
            }
            Self::Record(record) => Some(&record.topic),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group => f.write_str("group"),
            Self::Topic(topic) => write!(f, "topic/{topic}"),
            Self::Partition { topic, partition } => write!(f, "partition/{topic}/{partition}"),
            Self::Record(record) => write!(f, "record/{record}"),
            Self::Key { topic, key } => {
                write!(f, "key/{topic}/")?;
                key.iter().try_for_each(|byte| match byte {
                    b'-' | b'.' | b'_' | b':' => write!(f, "{}", char::from(*byte)),
                    byte if byte.is_ascii_alphanumeric() => write!(f, "{}", char::from(*byte)),
                    byte => write!(f, "%{byte:02X}"),
                })
            }
        }
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "group" {
            return Ok(Self::Group);
        }
        let (kind, rest) = text.split_once('/').ok_or_else(|| unknown(text))?;
        match kind {
            "topic" => Ok(Self::Topic(topic(rest)?)),
            "partition" => {
                let (name, partition) = rest.rsplit_once('/').ok_or_else(|| unknown(text))?;
                let number = partition
                    .parse()
                    .ok()
                    .filter(|number: &i32| *number >= 0 && number.to_string() == partition);
                Ok(Self::Partition {
                    topic: topic(name)?,
                    partition: number.ok_or("the partition must be a number from 0")?,
                })
            }
            "record" => {
                let record: RecordPosition = rest.parse()?;
                // A scope has exactly one text: it is part of keys that compaction compares.
                match record.to_string() == rest {
                    true => Ok(Self::Record(record)),
                    false => Err(unknown(text)),
                }
            }
            "key" => {
                let (name, key) = rest.split_once('/').ok_or_else(|| unknown(text))?;
                let key = Self::Key {
                    topic: topic(name)?,
                    key: unescaped(key).ok_or_else(|| unknown(text))?,
                };
                match key.to_string() == text {
                    true => Ok(key),
                    false => Err(unknown(text)),
                }
            }
            _ => Err(unknown(text)),
        }
    }
}

fn unknown(text: &str) -> String {
    format!(
        "{text:?} is not a scope; write group, topic/T, partition/T/N, record/T/N@OFFSET or key/T/KEY"
    )
}

fn topic(name: &str) -> Result<String, String> {
    match is_topic_name(name) {
        true => Ok(name.to_owned()),
        false => Err(format!("{name:?} is not a topic name")),
    }
}

/// The bytes of an escaped key. None if an escape is malformed.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut key = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        key.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let value = digit(bytes.next()?)? * 16 + digit(bytes.next()?)?;
                u8::try_from(value).ok()?
            }
            byte => byte,
        });
    }
    Some(key)
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.to_string()
    }
}

impl TryFrom<String> for Scope {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_scope_round_trips_and_other_text_is_refused() {
        let check = |text: &str, valid: bool| {
            let read: Result<Scope, String> = text.parse();
            let written = read.as_ref().map(Scope::to_string).ok();
            assert_eq!(
                written.as_deref(),
                valid.then_some(text),
                "{text}: {read:?}"
            );
        };
        for good in [
            "group",
            "topic/shop.orders",
            "partition/shop.orders/0",
            "record/shop.orders/3@17",
            "key/orders/customer-7",
            "key/orders/",
            "key/orders/a%2Fb%00%FF",
        ] {
            check(good, true);
        }
        for bad in [
            "",
            "groups",
            "topic/",
            "topic/a b",
            "partition/orders",
            "partition/orders/-1",
            "partition/orders/03",
            "record/orders/3",
            "record/orders/03@17",
            "key/orders",
            "key/orders/%2",
            "key/orders/%zz",
            "key/orders/%41",
            "key/orders/ä",
        ] {
            check(bad, false);
        }
    }

    #[test]
    fn a_scope_covers_what_it_names_and_no_other() {
        let scope = |text: &str| -> Scope { text.parse().expect("a scope") };
        let covered = |text: &str| {
            let places = [("a", 0), ("a", 1), ("b", 0)];
            places.map(|(topic, partition)| scope(text).covers(topic, partition))
        };
        assert_eq!(covered("group"), [true; 3]);
        assert_eq!(covered("topic/a"), [true, true, false]);
        assert_eq!(covered("partition/a/1"), [false, true, false]);
        assert_eq!(covered("record/a/0@1"), [false; 3]);
        assert_eq!(covered("key/a/k"), [false; 3]);
        assert!(scope("record/a/0@1").has("a", 0, 1) && !scope("record/a/0@1").has("a", 0, 2));
        assert!(scope("topic/a").has("a", 1, 5) && !scope("topic/a").has("b", 1, 5));
        assert!(scope("key/a/k").may_affect("a", 4) && !scope("key/a/k").may_affect("b", 4));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(group|topic|partition|record|key)?/?\\PC*") {
            if let Ok(scope) = text.parse::<Scope>() {
                prop_assert_eq!(scope.to_string(), text);
            }
        }

        #[test]
        fn any_key_reads_back_as_written(key: Vec<u8>) {
            let scope = Scope::Key { topic: "t".to_owned(), key };
            prop_assert_eq!(scope.to_string().parse(), Ok(scope));
        }
    }
}
