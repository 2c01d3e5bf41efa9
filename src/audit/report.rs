//! What an audit came to.

use super::settings::AuditSettings;
use super::subject::Subject;
use serde::Serialize;
use std::collections::BTreeMap;

/// Characters of a source or an id that a finding keeps: they are anybody's text, of any length.
const TEXT_MAX: usize = 256;

/// What an audit came to. As JSON it is what serde makes of it: field names are a promise to scripts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// The consumer group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// Whether nothing was found.
    pub proven: bool,
    /// What was read of each partition.
    pub partitions: Vec<Stretch>,
    /// What became of the records, by event type; `(raw)` for those that are no events, `(unreadable)` for those that only say so.
    pub types: BTreeMap<String, Tally>,
    /// What became of all of them.
    pub total: Tally,
    /// Offsets in the audited range that the group has yet to settle: they are not judged.
    pub lag: u64,
    /// Records that have neither an effect nor a dead letter, are not parked and were not skipped.
    pub missing: Findings,
    /// Records that ended in two ways: with an effect and a dead letter that was never replayed, or with an effect by each of
    /// two handlers where one is expected.
    pub doubled: Findings,
    /// Records that had their effect before an earlier one of their key had it.
    pub out_of_order: Findings,
    /// Records without an effect whose source and id have the effect of a record of other content.
    pub reused: Findings,
    /// Batches of the audited range that cannot be read and were not skipped by a command: nobody knows what became of their
    /// records.
    pub unreadable: Findings,
    /// How often the topic was read.
    pub passes: u32,
}

/// What was read of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stretch {
    /// Partition.
    pub partition: i32,
    /// First offset still there.
    pub low: i64,
    /// First offset to be audited.
    pub from: i64,
    /// Offset to stop before.
    pub to: i64,
    /// The group's committed offset; none if it has never committed.
    pub committed: Option<i64>,
}

impl Stretch {
    /// Where the judged part ends: below it everything is settled, so the group says.
    pub fn settled(&self) -> i64 {
        let committed = self.committed.unwrap_or(self.from);
        committed.min(self.to).max(self.from)
    }
}

/// What became of records. Each counts in one of the members after the first, and those that lack an end are missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Records below the group's committed offset.
    pub records: u64,
    /// Had their effect. A record whose event stands on the topic twice counts twice, the effect was one.
    pub effects: u64,
    /// Are dead letters.
    pub dead_letters: u64,
    /// Wait in the retry topic.
    pub parked: u64,
    /// Were skipped by a command.
    pub skipped: u64,
    /// Are of a type that the group does not handle, as far as its store and its dead letters show.
    pub ignored: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.effects += other.effects;
        self.dead_letters += other.dead_letters;
        self.parked += other.parked;
        self.skipped += other.skipped;
        self.ignored += other.ignored;
    }
}

/// Findings of one kind: their number, and the first of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// How many there are.
    pub count: u64,
    /// The first of them.
    pub listed: Vec<Finding>,
}

/// A record with which something is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Event type.
    #[serde(rename = "type")]
    pub ty: String,
    /// Event source; for a raw record topic and partition.
    pub source: String,
    /// Event id; for a raw record its offset and a digest of its content.
    pub id: String,
    /// What is wrong, in words.
    pub detail: String,
}

impl Finding {
    pub(super) fn new(subject: &Subject, detail: String) -> Self {
        let text = |text: &str| text.chars().take(TEXT_MAX).collect();
        Self {
            partition: subject.place.partition,
            offset: subject.place.offset,
            ty: text(subject.kind.name()),
            source: text(&subject.source),
            id: text(&subject.id),
            detail,
        }
    }
}

impl Finding {
    /// Of a batch, whose records are known to nobody.
    pub(super) fn of_batch(partition: i32, offset: i64, detail: String) -> Self {
        Self {
            partition,
            offset,
            ty: "(unreadable)".to_owned(),
            source: String::new(),
            id: String::new(),
            detail,
        }
    }
}

impl Findings {
    pub(super) fn add(&mut self, listed_max: usize, finding: impl FnOnce() -> Finding) {
        self.count += 1;
        if self.listed.len() < listed_max {
            self.listed.push(finding());
        }
    }
}

impl AuditReport {
    pub(super) fn new(settings: &AuditSettings, partitions: Vec<Stretch>) -> Self {
        Self {
            group: settings.group.clone(),
            topic: settings.topic.clone(),
            proven: false,
            partitions,
            types: BTreeMap::new(),
            total: Tally::default(),
            lag: 0,
            missing: Findings::default(),
            doubled: Findings::default(),
            out_of_order: Findings::default(),
            reused: Findings::default(),
            unreadable: Findings::default(),
            passes: 0,
        }
    }

    /// Adds up what became of the records, and says whether it is as it should be.
    pub(super) fn close(&mut self) {
        self.total = Tally::default();
        for tally in self.types.values() {
            self.total.add(tally);
        }
        let lag = self.partitions.iter().map(|part| part.to - part.settled());
        self.lag = lag.map(i64::unsigned_abs).sum();
        let findings = [
            &self.missing,
            &self.doubled,
            &self.out_of_order,
            &self.reused,
            &self.unreadable,
        ];
        self.proven = findings.iter().all(|findings| findings.count == 0);
    }
}
