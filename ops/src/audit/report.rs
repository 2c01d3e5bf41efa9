//! The report of an audit.

use super::identity::Identity;
use super::settings::AuditSettings;
use serde::Serialize;
use std::collections::BTreeMap;

/// Characters of a source or an id that a finding keeps. Producers choose these texts, of any
/// length.
const TEXT_MAX: usize = 256;

/// The report of an audit. Serialised by serde; its JSON field names are stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// Name of the consumer group.
    pub group: String,
    /// Name of the topic.
    pub topic: String,
    /// Whether the audit has no findings.
    pub proven: bool,
    /// The offsets that were read of each partition.
    pub partitions: Vec<PartitionRange>,
    /// Ends of the records by event type. `(raw)` stands for records that are no events,
    /// `(unreadable)` for those that claim to be events and cannot be read.
    pub types: BTreeMap<String, EndCounts>,
    /// Ends of all records.
    pub total: EndCounts,
    /// Offsets of the audited range that the group has not settled. They are not audited.
    pub lag: u64,
    /// Records without an end: no effect, no dead letter, not parked and not skipped.
    pub missing: Findings,
    /// Records with two ends: an effect and a dead letter that was never replayed, or effects by
    /// two handlers where one is expected.
    pub doubled: Findings,
    /// Records whose effect came before that of an earlier record of their key.
    pub out_of_order: Findings,
    /// Records without an effect whose source and id belong to a handled record of other content.
    pub reused: Findings,
    /// Unreadable batches of the audited range that no operator skipped. The ends of their records
    /// are unknown.
    pub unreadable: Findings,
    /// How many times the topic was read.
    pub passes: u32,
}

/// The audited offsets of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionRange {
    /// Partition number.
    pub partition: i32,
    /// First offset that the partition still has.
    pub low: i64,
    /// First offset to audit.
    pub from: i64,
    /// Offset before which to stop.
    pub to: i64,
    /// The group's committed offset. `None` if it never committed one.
    pub committed: Option<i64>,
}

impl PartitionRange {
    /// End of the audited offsets: the committed offset, at most `to`. The group claims that
    /// everything below is settled.
    pub fn settled(&self) -> i64 {
        let committed = self.committed.unwrap_or(self.from);
        committed.min(self.to).max(self.from)
    }
}

/// Ends of records. Each record counts in at most one of the fields after the first. A record in
/// none of them is a finding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct EndCounts {
    /// Records below the group's committed offset.
    pub records: u64,
    /// Records with an effect. An event that is on the topic twice counts twice and has one effect.
    pub effects: u64,
    /// Records that are dead letters.
    pub dead_letters: u64,
    /// Records that wait in the retry topic.
    pub parked: u64,
    /// Records that an operator skipped.
    pub skipped: u64,
    /// Records of a type that the group does not handle, as far as its store and its dead letters
    /// show.
    pub ignored: u64,
}

impl EndCounts {
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
    /// Number of findings.
    pub count: u64,
    /// The first findings, at most [`AuditSettings::listed_max`](super::AuditSettings::listed_max).
    pub listed: Vec<Finding>,
}

/// One finding: a record, or an unreadable batch, and the problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Partition number.
    pub partition: i32,
    /// Offset of the record, or the first offset of the batch.
    pub offset: i64,
    /// Type of the event.
    #[serde(rename = "type")]
    pub ty: String,
    /// Source of the event. For a raw record: topic and partition.
    pub source: String,
    /// Id of the event. For a raw record: offset and a digest of its content.
    pub id: String,
    /// The problem, in words.
    pub detail: String,
}

impl Finding {
    pub(super) fn new(subject: &Identity, detail: String) -> Self {
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
    /// A finding about an unreadable batch. Its records are unknown.
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
    pub(super) fn new(settings: &AuditSettings, partitions: Vec<PartitionRange>) -> Self {
        Self {
            group: settings.group.clone(),
            topic: settings.topic.clone(),
            proven: false,
            partitions,
            types: BTreeMap::new(),
            total: EndCounts::default(),
            lag: 0,
            missing: Findings::default(),
            doubled: Findings::default(),
            out_of_order: Findings::default(),
            reused: Findings::default(),
            unreadable: Findings::default(),
            passes: 0,
        }
    }

    /// Computes the totals and whether the audit has no findings.
    pub(super) fn compute_totals(&mut self) {
        self.total = EndCounts::default();
        for counts in self.types.values() {
            self.total.add(counts);
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

/// The progress of an audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The current step.
    pub step: Step,
    /// Number of the pass over the topic, from 1.
    pub pass: u32,
    /// Records of this step that are done.
    pub done: u64,
    /// Offsets of this step. 0 if unknown.
    pub total: u64,
}

/// A step of an audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Reading the dead letters.
    DeadLetters,
    /// Reading the topic and querying the store.
    Topic,
    /// Reading the topic for copies of events that seem to be out of order.
    Copies,
}
