//! The scope of a command, in words and as data. Pure.

use evenkeel::control::Scope;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A scope as part of a sentence. A key that is not UTF-8 is shown with replacement characters.
///
/// ```
/// use evenkeel::control::Scope;
/// use evenkeel_ops::groups::scope::in_words;
///
/// assert_eq!(in_words(&Scope::Group), "the whole group");
/// assert_eq!(in_words(&Scope::Topic("shop.orders".to_owned())), "the topic shop.orders");
/// ```
pub fn in_words(scope: &Scope) -> String {
    match scope {
        Scope::Group => "the whole group".to_owned(),
        Scope::Topic(topic) => format!("the topic {topic}"),
        Scope::Partition { topic, partition } => format!("{topic}/{partition}"),
        Scope::Record(record) => format!("the record {record}"),
        Scope::Key { topic, key } => {
            format!("the key {} of {topic}", String::from_utf8_lossy(key))
        }
    }
}

/// A scope in words (`Display`) and as JSON. Its serialised form is stable; fields that do not
/// apply are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Target {
    /// `group`, `topic`, `partition`, `record` or `key`.
    pub scope: &'static str,
    /// The topic. `None` for a whole group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The partition, for a partition or a record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    /// The offset, for a record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// The key, for a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(skip)]
    in_words: String,
}

impl From<&Scope> for Target {
    fn from(scope: &Scope) -> Self {
        let mut target = Self {
            scope: "group",
            topic: scope.topic().map(str::to_owned),
            partition: None,
            offset: None,
            key: None,
            in_words: in_words(scope),
        };
        match scope {
            Scope::Group => {}
            Scope::Topic(_) => target.scope = "topic",
            Scope::Partition { partition, .. } => {
                (target.scope, target.partition) = ("partition", Some(*partition));
            }
            Scope::Record(record) => {
                (target.scope, target.partition) = ("record", Some(record.partition));
                target.offset = Some(record.offset);
            }
            Scope::Key { key, .. } => {
                let key = String::from_utf8_lossy(key).into_owned();
                (target.scope, target.key) = ("key", Some(key));
            }
        }
        target
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.in_words)
    }
}

/// Partitions of one topic. Its serialised form is stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Partitions {
    /// Name of the topic.
    pub topic: String,
    /// Partition numbers, sorted.
    pub partitions: Vec<i32>,
}

/// The partitions that scopes name, by topic, sorted and without repetitions. Other scopes are left
/// out.
///
/// ```
/// use evenkeel::control::Scope;
/// use evenkeel_ops::groups::scope::{by_topic, ranges};
///
/// let scope = |partition| Scope::Partition { topic: "shop.orders".to_owned(), partition };
/// let partitions = by_topic(&[scope(5), scope(1), scope(0)]);
/// assert_eq!(ranges(&partitions), "shop.orders/0-1,5");
/// ```
pub fn by_topic(scopes: &[Scope]) -> Vec<Partitions> {
    let mut all: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
    for scope in scopes {
        if let Scope::Partition { topic, partition } = scope {
            all.entry(topic).or_default().insert(*partition);
        }
    }
    let of = |(topic, partitions): (&str, BTreeSet<i32>)| Partitions {
        topic: topic.to_owned(),
        partitions: partitions.into_iter().collect(),
    };
    all.into_iter().map(of).collect()
}

/// Partitions as ranges, for people: `shop.orders/0-11 shop.payments/0,2-3`. The numbers of a topic
/// must be sorted, as [`by_topic`] returns them.
pub fn ranges(of_topics: &[Partitions]) -> String {
    let of_topic = |of: &Partitions| {
        let mut ranges: Vec<(i32, i32)> = Vec::new();
        for number in &of.partitions {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == *number => *last = *number,
                _ => ranges.push((*number, *number)),
            }
        }
        let text = |(first, last): &(i32, i32)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        let ranges: Vec<String> = ranges.iter().map(text).collect();
        format!("{}/{}", of.topic, ranges.join(","))
    };
    let all: Vec<String> = of_topics.iter().map(of_topic).collect();
    all.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_shown_as_ranges() {
        let check = |partitions: &[(&str, i32)], expected: &str| {
            let scope = |(topic, partition): &(&str, i32)| Scope::Partition {
                topic: (*topic).to_owned(),
                partition: *partition,
            };
            let scopes: Vec<Scope> = partitions.iter().map(scope).collect();
            assert_eq!(ranges(&by_topic(&scopes)), expected);
        };
        check(&[], "");
        check(&[("a", 3)], "a/3");
        check(
            &[("b", 1), ("a", 2), ("a", 0), ("a", 1), ("a", 10)],
            "a/0-2,10 b/1",
        );
        check(&[("a", 0), ("a", 2), ("a", 4)], "a/0,2,4");
    }
}
