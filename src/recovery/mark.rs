//! The memory of replays: which letters were replayed, by whom and when, and which run has not ended.
//!
//! Owns the records of the topic `replays.<letters' topic>`, which is compacted. Pure and total; who writes and reads them
//! is not decided here.
//!
//! A mark is written after the brokers have acknowledged the replayed record. What a killed run had published and not
//! marked is found on the destination: before a run publishes anything it notes there where the destinations end ([`Run`]),
//! and what stands behind those ends and says which letter it is the replay of ([`super::replay_of`]) is marked later.

use super::Position;
use crate::kafka::is_topic_name;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The key of the record about the latest run. No letter has it: theirs is `partition:offset`.
const RUN_KEY: &str = "run";

/// Ends of partitions by topic and number.
pub type Ends = BTreeMap<String, BTreeMap<i32, i64>>;

/// The topic that remembers what was replayed of `letters`; none where its name would be too long.
///
/// It needs `cleanup.policy=compact`.
pub fn replay_topic(letters: &str) -> Option<String> {
    let topic = format!("replays.{letters}");
    is_topic_name(&topic).then_some(topic)
}

/// A record of that topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// A letter was replayed.
    Letter {
        /// The letter's partition.
        partition: i32,
        /// The letter's offset.
        offset: i64,
        /// How; none takes the mark back.
        replayed: Option<Replayed>,
    },
    /// What is known about the latest run.
    Run(Run),
}

/// How a letter was replayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// By whom.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// To where, as [`Position`] writes it.
    pub to: String,
    /// In which run.
    pub run: String,
    /// The letter's own timestamp in milliseconds, which tells it from one at the same offset of a dead-letter topic that was made
    /// anew; none where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub letter_ms: Option<i64>,
}

impl Replayed {
    /// Whether it is the letter with this timestamp that was replayed. Where the mark does not say of which letter it is, one that
    /// was written later is another.
    pub fn is_of(&self, letter_ms: Option<i64>) -> bool {
        self.stamp().is_of(letter_ms)
    }

    fn stamp(&self) -> Stamp {
        Stamp {
            letter_ms: self.letter_ms,
            at_ms: self.at.as_millisecond(),
        }
    }
}

/// A run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its id.
    pub run: String,
    /// Who started it.
    pub by: String,
    /// When it began.
    pub at: Timestamp,
    /// Whether all that it published is marked. A run that was killed never says so.
    pub done: bool,
    /// Where the destinations ended before it published anything.
    pub ends: Ends,
    /// Where the letters ended when it began, by partition: a run that goes on where this one was killed ends there, too, or
    /// letters that fail again meanwhile would be replayed by it once more. Empty once that was reached.
    #[serde(default)]
    pub until: BTreeMap<i32, i64>,
}

impl Mark {
    /// The mark of a letter.
    pub fn of(letter: &Position, replayed: Option<Replayed>) -> Self {
        Self::Letter {
            partition: letter.partition,
            offset: letter.offset,
            replayed,
        }
    }

    /// The partition that it is written to: the first for a run, so that it is known where to watch for one; none lets the
    /// key decide.
    pub fn partition(&self) -> Option<i32> {
        match self {
            Self::Letter { .. } => None,
            Self::Run(_) => Some(0),
        }
    }

    /// The key.
    pub fn key(&self) -> String {
        match self {
            Self::Letter {
                partition, offset, ..
            } => format!("{partition}:{offset}"),
            Self::Run(_) => RUN_KEY.to_owned(),
        }
    }

    /// The value in JSON; none is a tombstone.
    ///
    /// # Errors
    /// None that is known; texts and numbers can always be written.
    pub fn value(&self) -> Result<Option<Vec<u8>>, serde_json::Error> {
        match self {
            Self::Letter { replayed, .. } => replayed.as_ref().map(serde_json::to_vec).transpose(),
            Self::Run(run) => serde_json::to_vec(run).map(Some),
        }
    }

    /// Reads a record; none for what is no mark.
    pub fn read(key: Option<&[u8]>, value: Option<&[u8]>) -> Option<Self> {
        let key = std::str::from_utf8(key?).ok()?;
        if key == RUN_KEY {
            return serde_json::from_slice(value?).ok().map(Self::Run);
        }
        let (partition, offset) = key.split_once(':')?;
        let replayed = match value {
            Some(value) => Some(serde_json::from_slice(value).ok()?),
            None => None,
        };
        Some(Self::Letter {
            partition: partition.parse().ok()?,
            offset: offset.parse().ok()?,
            replayed,
        })
    }
}

/// What was replayed of one topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replays {
    offsets: BTreeMap<i32, BTreeMap<i64, Stamp>>,
    latest: Option<Run>,
}

/// What tells a marked letter from another one at its offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    letter_ms: Option<i64>,
    at_ms: i64,
}

impl Stamp {
    fn is_of(self, letter_ms: Option<i64>) -> bool {
        match (self.letter_ms, letter_ms) {
            (Some(marked_ms), Some(letter_ms)) => marked_ms == letter_ms,
            (None, Some(letter_ms)) => letter_ms <= self.at_ms,
            (_, None) => true,
        }
    }
}

impl Replays {
    /// Takes a mark in; of two about one letter the later counts.
    pub fn apply(&mut self, mark: Mark) {
        match mark {
            Mark::Run(run) => self.latest = Some(run),
            Mark::Letter {
                partition,
                offset,
                replayed,
            } => {
                let offsets = self.offsets.entry(partition).or_default();
                match replayed {
                    Some(replayed) => offsets.insert(offset, replayed.stamp()),
                    None => offsets.remove(&offset),
                };
            }
        }
    }

    /// Whether the letter at this place was replayed, which has this timestamp.
    pub fn contains(&self, partition: i32, offset: i64, letter_ms: Option<i64>) -> bool {
        let stamp = self.stamp(partition, offset);
        stamp.is_some_and(|stamp| stamp.is_of(letter_ms))
    }

    /// Whether the letter at this place is marked as replayed at that time or later.
    pub fn is_marked_since(&self, partition: i32, offset: i64, at: Timestamp) -> bool {
        let stamp = self.stamp(partition, offset);
        stamp.is_some_and(|stamp| stamp.at_ms >= at.as_millisecond())
    }

    fn stamp(&self, partition: i32, offset: i64) -> Option<&Stamp> {
        self.offsets.get(&partition)?.get(&offset)
    }

    /// The marked letters of a partition before `offset`.
    pub fn before(&self, partition: i32, offset: i64) -> impl Iterator<Item = i64> {
        let offsets = self.offsets.get(&partition);
        offsets
            .into_iter()
            .flat_map(move |offsets| offsets.range(..offset).map(|(offset, _)| *offset))
    }

    /// The latest run, if it never said that it was done: it was killed, failed in part, or is still at work.
    pub fn unfinished(&self) -> Option<&Run> {
        self.latest.as_ref().filter(|run| !run.done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn replayed() -> Replayed {
        Replayed {
            by: "ada".to_owned(),
            at: Timestamp::UNIX_EPOCH,
            to: "orders/0@7".to_owned(),
            run: "r-1".to_owned(),
            letter_ms: None,
        }
    }

    fn letter(partition: i32, offset: i64, replayed: Option<Replayed>) -> Mark {
        Mark::Letter {
            partition,
            offset,
            replayed,
        }
    }

    fn run(done: bool) -> Run {
        Run {
            run: "r-1".to_owned(),
            by: "ada".to_owned(),
            at: Timestamp::UNIX_EPOCH,
            done,
            ends: BTreeMap::from([("orders".to_owned(), BTreeMap::from([(0, 3), (1, 0)]))]),
            until: BTreeMap::from([(0, 9)]),
        }
    }

    #[test]
    fn marks_read_back_as_written() {
        for mark in [
            letter(3, 42, Some(replayed())),
            letter(0, i64::MAX, None),
            Mark::Run(run(false)),
            Mark::Run(run(true)),
        ] {
            let value = mark.value().expect("writable");
            let read = Mark::read(Some(mark.key().as_bytes()), value.as_deref());
            assert_eq!(read, Some(mark));
        }
    }

    #[test]
    fn what_is_no_mark_is_passed_over() {
        let value = letter(0, 0, Some(replayed())).value().expect("writable");
        for (key, value) in [
            (None, value.as_deref()),
            (Some(&b"\xff"[..]), value.as_deref()),
            (Some(b"0"), value.as_deref()),
            (Some(b"0:x"), value.as_deref()),
            (Some(b"0:1"), Some(&b"{}"[..])),
            (Some(b"0:1"), Some(b"\xff")),
            (Some(b"run"), None),
            (Some(b"run"), Some(b"[]")),
        ] {
            assert_eq!(Mark::read(key, value), None, "{key:?}");
        }
    }

    #[test]
    fn the_latest_mark_of_a_letter_counts() {
        let mut replays = Replays::default();
        for offset in [5, 3, 9] {
            replays.apply(letter(1, offset, Some(replayed())));
        }
        let contains =
            |replays: &Replays, partition, offset| replays.contains(partition, offset, None);
        assert!(contains(&replays, 1, 5) && !contains(&replays, 1, 4) && !contains(&replays, 0, 5));
        assert_eq!(replays.before(1, 9).collect::<Vec<_>>(), [3, 5]);
        assert_eq!(replays.before(7, 9).count(), 0);
        replays.apply(letter(1, 5, None));
        assert!(!contains(&replays, 1, 5));
    }

    #[test]
    fn a_letter_of_a_topic_made_anew_is_another_one() {
        let check = |marked_ms, letter_ms, expected| {
            let marked = Replayed {
                letter_ms: marked_ms,
                at: Timestamp::from_millisecond(1_000).expect("a time"),
                ..replayed()
            };
            assert_eq!(
                marked.is_of(letter_ms),
                expected,
                "{marked_ms:?} {letter_ms:?}"
            );
            let mut replays = Replays::default();
            replays.apply(letter(0, 3, Some(marked)));
            assert_eq!(replays.contains(0, 3, letter_ms), expected);
        };
        check(Some(900), Some(900), true);
        check(Some(900), Some(950), false);
        check(Some(900), Some(2_000), false);
        check(Some(900), None, true);
        // Marks of before say only when the replay was.
        check(None, Some(900), true);
        check(None, Some(1_001), false);
        check(None, None, true);
    }

    #[test]
    fn a_run_is_unfinished_until_it_says_that_it_is_done() {
        let mut replays = Replays::default();
        assert_eq!(replays.unfinished(), None);
        replays.apply(Mark::Run(run(false)));
        assert_eq!(replays.unfinished(), Some(&run(false)));
        replays.apply(Mark::Run(run(true)));
        assert_eq!(replays.unfinished(), None);
    }

    #[test]
    fn the_topic_of_marks_has_a_name_that_brokers_accept() {
        assert_eq!(replay_topic("dlq.g.t").as_deref(), Some("replays.dlq.g.t"));
        assert_eq!(replay_topic(&"x".repeat(242)), None);
    }

    proptest! {
        #[test]
        fn any_record_is_a_mark_or_none(key: Option<Vec<u8>>, value: Option<Vec<u8>>) {
            let _ = Mark::read(key.as_deref(), value.as_deref());
        }
    }
}
