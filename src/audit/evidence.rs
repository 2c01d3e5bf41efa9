//! What an audit asks for: the logs, and the store.

use super::AuditError;
use super::report::Stretch;
use super::subject::Place;
use crate::inbox::{Completion, InboxKey};
use crate::kafka::reader::LogRecord;
use crate::recovery::Replayed;
use std::collections::HashSet;

/// Takes the next record, or ends the reading with an error.
pub(super) type Each<'a> = dyn FnMut(LogRecord) -> Result<(), AuditError> + 'a;

/// The logs and the store. Every method may block, and each reading begins afresh: what came since the last one is in it.
pub(super) trait Evidence {
    /// The records of the topic at these offsets, in offset order within each partition.
    fn topic(&self, stretches: &[Offsets], each: &mut Each<'_>) -> Result<(), AuditError>;

    /// The records of the dead-letter topic.
    fn letters(&self, each: &mut Each<'_>) -> Result<(), AuditError>;

    /// The records of the retry topic that are not settled.
    fn parked(&self, each: &mut Each<'_>) -> Result<(), AuditError>;

    /// Which letters are marked as replayed, and of which the mark was taken back: partition and offset, the latest last.
    fn replays(&self, each: &mut dyn FnMut(Place, Option<Replayed>)) -> Result<(), AuditError>;

    /// Records of which members said that they were skipped by command.
    fn skipped(&self) -> Result<HashSet<Place>, AuditError>;

    /// How each delivery was completed.
    fn completed(&self, keys: &[InboxKey]) -> Result<Vec<Option<Completion>>, AuditError>;

    /// Whether the store has anything of these handlers of the group.
    fn has_handlers(&self, group: &str, handlers: &[String]) -> Result<Vec<bool>, AuditError>;

    /// Whether the store has anything of the group.
    fn has_group(&self, group: &str) -> Result<bool, AuditError>;
}

/// Offsets of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offsets {
    pub(super) partition: i32,
    pub(super) start: i64,
    pub(super) end: i64,
}

/// What is judged.
pub(super) fn judged(stretches: &[Stretch]) -> Vec<Offsets> {
    let judged = stretches.iter().map(|stretch| Offsets {
        partition: stretch.partition,
        start: stretch.from,
        end: stretch.settled(),
    });
    judged.filter(|part| part.start < part.end).collect()
}
