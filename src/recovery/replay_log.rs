//! The log of replays: which dead letters were replayed, by whom and when, and which run has not
//! finished.
//!
//! Owns the records of the topic `replays.<dead-letter topic>`, which is compacted. Pure and total.
//! The callers write and read the records.
//!
//! A mark is written after the brokers have acknowledged the replayed record. The destination shows
//! the records that a killed run had published and not marked: before a run publishes its first
//! record, it notes the ends of the destinations ([`ReplayRun`]). Records behind these ends that
//! name a dead letter as their origin ([`super::replay_of`]) are marked later.
//!
//! The topic is read from its beginning, by every tool that lists or replays dead letters. So a
//! mark holds only what they need, and marks of deleted dead letters are removed with tombstones.

use crate::kafka::{RecordPosition, is_topic_name};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The key of the record about the latest run. No dead letter has it: theirs is `partition:offset`.
const RUN_KEY: &str = "run";

/// Ends of partitions by topic and number. An end is the offset after the last record.
pub type PartitionEnds = BTreeMap<String, BTreeMap<i32, i64>>;

/// The topic with the marks of the replayed records of `dead_letters`. None if its name would be
/// too long.
///
/// It needs `cleanup.policy=compact`: a mark must be kept as long as its dead letter.
///
/// ```
/// use evenkeel::recovery::replay_topic;
///
/// let topic = replay_topic("dlq.payments.shop.orders");
/// assert_eq!(topic.as_deref(), Some("replays.dlq.payments.shop.orders"));
/// ```
pub fn replay_topic(dead_letters: &str) -> Option<String> {
    let topic = format!("replays.{dead_letters}");
    is_topic_name(&topic).then_some(topic)
}

/// A record of that topic. See [`ReplayLogEntry::key`] and [`ReplayLogEntry::value`] for its form.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayLogEntry {
    /// A dead letter was replayed.
    DeadLetter {
        /// The dead letter's partition.
        partition: i32,
        /// The dead letter's offset.
        offset: i64,
        /// The replay. None removes the mark.
        replayed: Option<Replayed>,
    },
    /// The latest run.
    Run(ReplayRun),
}

/// The replay of a dead letter: the mark that keeps the next run from publishing it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// The operator.
    pub by: String,
    /// The time of the replay.
    pub at: Timestamp,
    /// The position of the replayed record, in the text form of [`RecordPosition`].
    pub to: String,
    /// The id of the run.
    pub run: String,
    /// The dead letter's own timestamp in milliseconds, which distinguishes it from one at the same
    /// offset of a recreated dead-letter topic. None if unknown.
    #[serde(rename = "letter_ms", default, skip_serializing_if = "Option::is_none")]
    pub dead_letter_ms: Option<i64>,
}

impl Replayed {
    /// Whether the dead letter with this timestamp was replayed. If the mark has no timestamp, a
    /// dead letter that was written later than the mark is another one.
    pub fn is_of(&self, dead_letter_ms: Option<i64>) -> bool {
        self.stamp().is_of(dead_letter_ms)
    }

    /// What the log keeps of a mark in memory.
    fn stamp(&self) -> Stamp {
        Stamp {
            dead_letter_ms: self.dead_letter_ms,
            at_ms: self.at.as_millisecond(),
        }
    }
}

/// A run: the replay of a set of dead letters. Written to partition 0 of the replay log before the
/// run publishes its first record, repeated while it is alive, and written once more at its end.
/// The JSON of all its versions can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayRun {
    /// The id of the run.
    pub run: String,
    /// The operator who started it.
    pub by: String,
    /// When it began.
    pub at: Timestamp,
    /// Whether all records that it published are marked. Never true for a run that was killed.
    pub done: bool,
    /// The ends of the destinations before it published its first record.
    pub ends: PartitionEnds,
    /// The ends of the dead-letter topic when it began, by partition. A run that continues it ends
    /// there too: otherwise it would replay once more dead letters that fail again meanwhile. Empty
    /// once they were reached.
    #[serde(default)]
    pub until: BTreeMap<i32, i64>,
}

impl ReplayLogEntry {
    /// Creates the mark of a dead letter.
    pub fn of(dead_letter: &RecordPosition, replayed: Option<Replayed>) -> Self {
        Self::DeadLetter {
            partition: dead_letter.partition,
            offset: dead_letter.offset,
            replayed,
        }
    }

    /// The partition that the record is written to: the first one for a run, so that a reader finds
    /// it there. None lets the key decide.
    pub fn partition(&self) -> Option<i32> {
        match self {
            Self::DeadLetter { .. } => None,
            Self::Run(_) => Some(0),
        }
    }

    /// The key of the record.
    pub fn key(&self) -> String {
        match self {
            Self::DeadLetter {
                partition, offset, ..
            } => format!("{partition}:{offset}"),
            Self::Run(_) => RUN_KEY.to_owned(),
        }
    }

    /// The value in JSON. None is a tombstone, which removes the mark at the next compaction.
    ///
    /// ```
    /// use evenkeel::recovery::ReplayLogEntry;
    ///
    /// let key = Some(b"2:17".as_slice());
    /// let removed = ReplayLogEntry::read(key, None).expect("the key is valid");
    /// assert_eq!(removed.key(), "2:17");
    /// assert_eq!(removed.value()?, None);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error only if JSON encoding fails, which its types exclude.
    pub fn value(&self) -> Result<Option<Vec<u8>>, serde_json::Error> {
        match self {
            Self::DeadLetter { replayed, .. } => {
                replayed.as_ref().map(serde_json::to_vec).transpose()
            }
            Self::Run(run) => serde_json::to_vec(run).map(Some),
        }
    }

    /// Decodes a record. None if it is invalid, or of a kind that this version does not know:
    /// readers skip it.
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
        Some(Self::DeadLetter {
            partition: partition.parse().ok()?,
            offset: offset.parse().ok()?,
            replayed,
        })
    }
}

/// The replayed dead letters of one topic: the entries of its replay log, applied in order.
///
/// ```
/// use evenkeel::kafka::RecordPosition;
/// use evenkeel::recovery::{ReplayLog, ReplayLogEntry, Replayed};
///
/// let dead_letter: RecordPosition = "dlq.payments.shop.orders/2@17".parse()?;
/// let replayed = Replayed {
///     by: "jane".to_owned(),
///     at: "2026-05-01T12:00:00Z".parse()?,
///     to: "retry.payments.shop.orders/2@5".to_owned(),
///     run: "018f".to_owned(),
///     dead_letter_ms: None,
/// };
/// let mut log = ReplayLog::default();
/// log.apply(ReplayLogEntry::of(&dead_letter, Some(replayed)));
/// assert!(log.contains(2, 17, None));
/// log.apply(ReplayLogEntry::of(&dead_letter, None));
/// assert!(!log.contains(2, 17, None), "the mark was removed");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// It holds all marks of the topic in memory, about 50 bytes each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplayLog {
    offsets: BTreeMap<i32, BTreeMap<i64, Stamp>>,
    latest: Option<ReplayRun>,
}

/// Distinguishes a marked dead letter from another one at its offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    dead_letter_ms: Option<i64>,
    at_ms: i64,
}

impl Stamp {
    /// Whether the mark is about the dead letter with this timestamp, and not about one at its
    /// offset in an earlier topic of the same name. In doubt it is: a dead letter that is replayed
    /// twice is worse than one that is reported as replayed.
    fn is_of(self, dead_letter_ms: Option<i64>) -> bool {
        match (self.dead_letter_ms, dead_letter_ms) {
            (Some(marked_ms), Some(dead_letter_ms)) => marked_ms == dead_letter_ms,
            (None, Some(dead_letter_ms)) => dead_letter_ms <= self.at_ms,
            (_, None) => true,
        }
    }
}

impl ReplayLog {
    /// Applies an entry. Of two about one dead letter, and of two runs, the later counts.
    pub fn apply(&mut self, mark: ReplayLogEntry) {
        match mark {
            ReplayLogEntry::Run(run) => self.latest = Some(run),
            ReplayLogEntry::DeadLetter {
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

    /// Whether the dead letter at this position, with this timestamp, was replayed.
    pub fn contains(&self, partition: i32, offset: i64, dead_letter_ms: Option<i64>) -> bool {
        let stamp = self.stamp(partition, offset);
        stamp.is_some_and(|stamp| stamp.is_of(dead_letter_ms))
    }

    /// Whether the dead letter at this position is marked as replayed at that time or later. Tells
    /// a replay that is recorded from an earlier one of the same dead letter.
    pub fn is_marked_since(&self, partition: i32, offset: i64, at: Timestamp) -> bool {
        let stamp = self.stamp(partition, offset);
        stamp.is_some_and(|stamp| stamp.at_ms >= at.as_millisecond())
    }

    fn stamp(&self, partition: i32, offset: i64) -> Option<&Stamp> {
        self.offsets.get(&partition)?.get(&offset)
    }

    /// The marked dead letters of a partition before `offset`, ascending. A purge removes the marks
    /// with their dead letters.
    pub fn before(&self, partition: i32, offset: i64) -> impl Iterator<Item = i64> {
        let offsets = self.offsets.get(&partition);
        offsets
            .into_iter()
            .flat_map(move |offsets| offsets.range(..offset).map(|(offset, _)| *offset))
    }

    /// The latest run, if it is not marked as done: it was killed, failed in part, or is still
    /// running.
    pub fn unfinished(&self) -> Option<&ReplayRun> {
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
            dead_letter_ms: None,
        }
    }

    fn dead_letter(partition: i32, offset: i64, replayed: Option<Replayed>) -> ReplayLogEntry {
        ReplayLogEntry::DeadLetter {
            partition,
            offset,
            replayed,
        }
    }

    fn run(done: bool) -> ReplayRun {
        ReplayRun {
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
            dead_letter(3, 42, Some(replayed())),
            dead_letter(0, i64::MAX, None),
            ReplayLogEntry::Run(run(false)),
            ReplayLogEntry::Run(run(true)),
        ] {
            let value = mark.value().expect("writable");
            let read = ReplayLogEntry::read(Some(mark.key().as_bytes()), value.as_deref());
            assert_eq!(read, Some(mark));
        }
    }

    #[test]
    fn malformed_entries_are_ignored() {
        let value = dead_letter(0, 0, Some(replayed()))
            .value()
            .expect("writable");
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
            assert_eq!(ReplayLogEntry::read(key, value), None, "{key:?}");
        }
    }

    #[test]
    fn the_latest_mark_of_a_dead_letter_counts() {
        let mut replays = ReplayLog::default();
        for offset in [5, 3, 9] {
            replays.apply(dead_letter(1, offset, Some(replayed())));
        }
        let contains =
            |replays: &ReplayLog, partition, offset| replays.contains(partition, offset, None);
        assert!(contains(&replays, 1, 5) && !contains(&replays, 1, 4) && !contains(&replays, 0, 5));
        assert_eq!(replays.before(1, 9).collect::<Vec<_>>(), [3, 5]);
        assert_eq!(replays.before(7, 9).count(), 0);
        replays.apply(dead_letter(1, 5, None));
        assert!(!contains(&replays, 1, 5));
    }

    #[test]
    fn a_recreated_topic_has_other_dead_letters() {
        let check = |marked_ms, dead_letter_ms, expected| {
            let marked = Replayed {
                dead_letter_ms: marked_ms,
                at: Timestamp::from_millisecond(1_000).expect("a time"),
                ..replayed()
            };
            assert_eq!(
                marked.is_of(dead_letter_ms),
                expected,
                "{marked_ms:?} {dead_letter_ms:?}"
            );
            let mut replays = ReplayLog::default();
            replays.apply(dead_letter(0, 3, Some(marked)));
            assert_eq!(replays.contains(0, 3, dead_letter_ms), expected);
        };
        check(Some(900), Some(900), true);
        check(Some(900), Some(950), false);
        check(Some(900), Some(2_000), false);
        check(Some(900), None, true);
        // Old marks have only the time of the replay.
        check(None, Some(900), true);
        check(None, Some(1_001), false);
        check(None, None, true);
    }

    #[test]
    fn a_run_is_unfinished_until_marked_as_done() {
        let mut replays = ReplayLog::default();
        assert_eq!(replays.unfinished(), None);
        replays.apply(ReplayLogEntry::Run(run(false)));
        assert_eq!(replays.unfinished(), Some(&run(false)));
        replays.apply(ReplayLogEntry::Run(run(true)));
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
            let _ = ReplayLogEntry::read(key.as_deref(), value.as_deref());
        }
    }
}
