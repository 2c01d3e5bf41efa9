//! The sources of an audit: the logs and the store.

use super::AuditError;
use super::identity::Place;
use super::report::PartitionRange;
use evenkeel::inbox::{Completion, InboxKey};
use evenkeel::kafka::reader::LogRecord;
use evenkeel::recovery::Replayed;
use std::collections::HashSet;

/// Receives the next record. An error ends the read.
pub(super) type EachRecord<'a> = dyn FnMut(LogRecord) -> Result<(), AuditError> + 'a;

/// The logs and the store. Called by the audit's blocking thread: every method may block. Each read
/// starts anew, so it includes the records that were written since the last one.
pub(super) trait Sources {
    /// The records of the topic at these offsets, in offset order within each partition.
    fn topic(&self, ranges: &[Offsets], each: &mut EachRecord<'_>) -> Result<(), AuditError>;

    /// The records of the dead-letter topic.
    fn dead_letters(&self, each: &mut EachRecord<'_>) -> Result<(), AuditError>;

    /// The records of the retry topic that are not settled.
    fn parked(&self, each: &mut EachRecord<'_>) -> Result<(), AuditError>;

    /// Marks of replayed dead letters, and removals of such marks: partition and offset of the dead
    /// letter. The latest entry comes last.
    fn replays(&self, each: &mut dyn FnMut(Place, Option<Replayed>)) -> Result<(), AuditError>;

    /// Records that an operator skipped, as members acknowledged.
    fn skipped(&self) -> Result<HashSet<Place>, AuditError>;

    /// The completion of each delivery.
    fn completed(&self, keys: &[InboxKey]) -> Result<Vec<Option<Completion>>, AuditError>;

    /// Whether the store has a row of each of these handlers of the group.
    fn has_handlers(&self, group: &str, handlers: &[String]) -> Result<Vec<bool>, AuditError>;

    /// Whether the store has a row of the group.
    fn has_group(&self, group: &str) -> Result<bool, AuditError>;
}

/// Offsets of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offsets {
    pub(super) partition: i32,
    pub(super) start: i64,
    pub(super) end: i64,
}

/// The offsets to audit, without empty partitions.
pub(super) fn audited_offsets(ranges: &[PartitionRange]) -> Vec<Offsets> {
    let audited = ranges.iter().map(|range| Offsets {
        partition: range.partition,
        start: range.from,
        end: range.settled(),
    });
    audited.filter(|part| part.start < part.end).collect()
}

/// The total number of offsets.
pub(super) fn length(parts: &[Offsets]) -> u64 {
    let length = parts.iter().map(|part| part.end - part.start);
    length.map(i64::unsigned_abs).sum()
}
