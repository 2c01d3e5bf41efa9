//! Records without an effect, until their end is known.
//!
//! They are collected up to a number of bytes and then looked up together: first in the retry
//! topic, then in the dead-letter topic, then again in the store. A running group moves its records
//! only in this direction, so the lookup cannot miss a record that moves meanwhile.

use super::AuditError;
use super::identity::{Identity, Place};
use super::sources::Sources;
use evenkeel::handler::Stage;
use evenkeel::kafka::reader::LogRecord;
use evenkeel::recovery::{DeadLetter, Owner, RetryTopicEntry, is_edited, record_timestamp_ms};
use std::collections::HashMap;

/// The end of a record that had no effect when the topic was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Parked,
    Dead,
    Skipped,
    /// It has an effect now.
    Effect,
    /// Another record of its identity has the effect.
    Reused,
    Missing,
}

/// Records whose end is unknown.
#[derive(Default)]
pub(super) struct Pending {
    subjects: HashMap<Place, Identity>,
    bytes: usize,
}

impl Pending {
    pub(super) fn add(&mut self, subject: Identity) {
        self.bytes += subject.bytes();
        self.subjects.insert(subject.place, subject);
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Looks up all of them. Returns the end of each, sorted by position.
    pub(super) fn settle(
        &mut self,
        dead_letters: &DeadLetters<'_>,
        completed: impl Fn(&[Identity]) -> Result<Vec<End>, AuditError>,
    ) -> Result<Vec<(Identity, End)>, AuditError> {
        let mut open = std::mem::take(self).subjects;
        let mut ends = Vec::with_capacity(open.len());
        if open.is_empty() {
            return Ok(ends);
        }
        let mut end = |open: &mut HashMap<Place, Identity>, found: &Identity, end| {
            if open
                .get(&found.place)
                .is_some_and(|own| own.may_belong_to(found))
            {
                ends.extend(open.remove(&found.place).map(|subject| (subject, end)));
            }
        };
        dead_letters.parked(&mut |subject| {
            end(&mut open, &subject, End::Parked);
            Ok(())
        })?;
        dead_letters.each(&mut |dead_letter| {
            let is_skip = dead_letter.is_skip;
            let what = if is_skip { End::Skipped } else { End::Dead };
            end(&mut open, &dead_letter.subject, what);
            Ok(())
        })?;
        for place in dead_letters.sources.skipped()? {
            ends.extend(open.remove(&place).map(|subject| (subject, End::Skipped)));
        }
        let left: Vec<Identity> = open.into_values().collect();
        let completed = completed(&left)?;
        ends.extend(left.into_iter().zip(completed));
        ends.sort_by_key(|(subject, _)| subject.place);
        Ok(ends)
    }
}

/// A dead letter of the audited group and topic.
pub(super) struct AuditedDeadLetter {
    /// The record that failed, by its position in the audited topic.
    pub(super) subject: Identity,
    /// Position in the dead-letter topic.
    pub(super) place: Place,
    /// Timestamp of the dead letter, in milliseconds.
    pub(super) written_ms: Option<i64>,
    /// Whether its content differs from the original's.
    pub(super) has_other_content: bool,
    /// Whether an operator skipped the record, which thus did not fail.
    pub(super) is_skip: bool,
}

/// The dead letters and parked records of the audited group and topic.
pub(super) struct DeadLetters<'a> {
    pub(super) sources: &'a dyn Sources,
    pub(super) group: &'a str,
    pub(super) topic: &'a str,
}

impl DeadLetters<'_> {
    /// Passes every dead letter of the group and topic to the closure. Other groups may write to
    /// the same dead-letter topic.
    pub(super) fn each(
        &self,
        each: &mut dyn FnMut(AuditedDeadLetter) -> Result<(), AuditError>,
    ) -> Result<(), AuditError> {
        self.sources.dead_letters(&mut |record| {
            let failure = DeadLetter::read(record.headers.iter());
            let (Some(partition), Some(offset)) = (failure.partition, failure.offset) else {
                return Ok(());
            };
            if failure.topic.as_deref() != Some(self.topic)
                || failure.group.as_deref() != Some(self.group)
            {
                return Ok(());
            }
            let origin = Place { partition, offset };
            let failed_ms = record_timestamp_ms(&record.headers);
            let subject = Identity::new(self.topic, origin, failed_ms, &record);
            let has_other_content = failure.is_reference || is_edited(record.headers.iter());
            each(AuditedDeadLetter {
                subject: match has_other_content {
                    true => subject.without_content(),
                    false => subject,
                },
                has_other_content,
                place: Place {
                    partition: record.partition,
                    offset: record.offset,
                },
                written_ms: record.timestamp_ms,
                is_skip: failure.stage.as_deref() == Some(Stage::Skipped.as_str()),
            })
        })
    }

    /// Passes every parked record to the closure.
    pub(super) fn parked(
        &self,
        each: &mut dyn FnMut(Identity) -> Result<(), AuditError>,
    ) -> Result<(), AuditError> {
        self.sources
            .parked(&mut |record| match self.origin(&record) {
                Some(place) => each(Identity::new(self.topic, place, None, &record)),
                None => Ok(()),
            })
    }

    /// Passes every parked record that failed to the closure. A record that waits behind another
    /// was not handled yet.
    pub(super) fn failed(
        &self,
        each: &mut dyn FnMut(Identity) -> Result<(), AuditError>,
    ) -> Result<(), AuditError> {
        self.sources.parked(&mut |record| {
            let has_failed = matches!(
                self.entry(&record),
                RetryTopicEntry::Parked { wait, .. } if wait.rounds > 0
            );
            match self.origin(&record).filter(|_| has_failed) {
                Some(place) => each(Identity::new(self.topic, place, None, &record)),
                None => Ok(()),
            }
        })
    }

    /// The retry entry that a record is. Another group may write to the same retry topic.
    fn entry(&self, record: &LogRecord) -> RetryTopicEntry {
        let (group, topic) = (self.group, self.topic);
        RetryTopicEntry::read(record.headers.iter(), Owner { group, topic })
    }

    /// The source position of a parked record: a retry partition has the number of its source
    /// partition.
    fn origin(&self, record: &LogRecord) -> Option<Place> {
        match self.entry(record) {
            RetryTopicEntry::Parked { source_offset, .. } => source_offset.map(|offset| Place {
                partition: record.partition,
                offset,
            }),
            _ => None,
        }
    }
}
