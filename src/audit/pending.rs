//! Records without an effect, until it is known what else became of them.
//!
//! They are kept up to a number of bytes, and then looked up all together: what is parked is read first, then the dead
//! letters, then the store again. A group that goes on meanwhile takes its records only in that direction, so none can slip
//! through between two looks.

use super::AuditError;
use super::evidence::Evidence;
use super::subject::{Place, Subject};
use crate::handler::Stage;
use crate::kafka::reader::LogRecord;
use crate::recovery::{DeadLetter, Entry, Owner, is_edited, record_timestamp_ms};
use std::collections::HashMap;

/// What became of a record that has no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Parked,
    Dead,
    Skipped,
    /// It has its effect by now.
    Effect,
    /// Another record of its identity has it.
    Reused,
    Missing,
}

/// Records whose end is to be found.
#[derive(Default)]
pub(super) struct Pending {
    subjects: HashMap<Place, Subject>,
    bytes: usize,
}

impl Pending {
    pub(super) fn add(&mut self, subject: Subject) {
        self.bytes += subject.bytes();
        self.subjects.insert(subject.place, subject);
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Looks all of them up; tells what became of each, in the order of their places.
    pub(super) fn settle(
        &mut self,
        letters: &Letters<'_>,
        completed: impl Fn(&[Subject]) -> Result<Vec<End>, AuditError>,
    ) -> Result<Vec<(Subject, End)>, AuditError> {
        let mut open = std::mem::take(self).subjects;
        let mut ends = Vec::with_capacity(open.len());
        if open.is_empty() {
            return Ok(ends);
        }
        let mut end = |open: &mut HashMap<Place, Subject>, found: &Subject, end| {
            if open.get(&found.place).is_some_and(|own| own.may_be(found)) {
                ends.extend(open.remove(&found.place).map(|subject| (subject, end)));
            }
        };
        letters.parked(&mut |subject| {
            end(&mut open, &subject, End::Parked);
            Ok(())
        })?;
        letters.each(&mut |letter| {
            let is_skip = letter.is_skip;
            let what = if is_skip { End::Skipped } else { End::Dead };
            end(&mut open, &letter.subject, what);
            Ok(())
        })?;
        for place in letters.evidence.skipped()? {
            ends.extend(open.remove(&place).map(|subject| (subject, End::Skipped)));
        }
        let left: Vec<Subject> = open.into_values().collect();
        let completed = completed(&left)?;
        ends.extend(left.into_iter().zip(completed));
        ends.sort_by_key(|(subject, _)| subject.place);
        Ok(ends)
    }
}

/// A dead letter of the audited group and topic.
pub(super) struct Letter {
    /// The record that it is of, by its place in the topic.
    pub(super) subject: Subject,
    /// Where the letter stands.
    pub(super) place: Place,
    /// When it was written.
    pub(super) written_ms: Option<i64>,
    /// Whether it does not say what the record said.
    pub(super) is_unlike: bool,
    /// Whether the record did not fail but was skipped by command.
    pub(super) is_skip: bool,
}

/// The records that a group has put aside, by where they stood.
pub(super) struct Letters<'a> {
    pub(super) evidence: &'a dyn Evidence,
    pub(super) group: &'a str,
    pub(super) topic: &'a str,
}

impl Letters<'_> {
    /// Every dead letter of the group and the topic: the dead-letter topic may be that of others, too.
    pub(super) fn each(
        &self,
        each: &mut dyn FnMut(Letter) -> Result<(), AuditError>,
    ) -> Result<(), AuditError> {
        self.evidence.letters(&mut |record| {
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
            let subject = Subject::new(self.topic, origin, failed_ms, &record);
            let is_unlike = failure.is_reference || is_edited(record.headers.iter());
            each(Letter {
                subject: match is_unlike {
                    true => subject.unlike(),
                    false => subject,
                },
                is_unlike,
                place: Place {
                    partition: record.partition,
                    offset: record.offset,
                },
                written_ms: record.timestamp_ms,
                is_skip: failure.stage.as_deref() == Some(Stage::Skipped.as_str()),
            })
        })
    }

    /// Every parked record.
    pub(super) fn parked(
        &self,
        each: &mut dyn FnMut(Subject) -> Result<(), AuditError>,
    ) -> Result<(), AuditError> {
        self.evidence
            .parked(&mut |record| match self.origin(&record) {
                Some(place) => each(Subject::new(self.topic, place, None, &record)),
                None => Ok(()),
            })
    }

    /// Every parked record that failed before: a record that waits behind another was not looked at yet.
    pub(super) fn failed(
        &self,
        each: &mut dyn FnMut(Subject) -> Result<(), AuditError>,
    ) -> Result<(), AuditError> {
        self.evidence.parked(&mut |record| {
            let has_failed = matches!(
                self.entry(&record),
                Entry::Parked { wait, .. } if wait.rounds > 0
            );
            match self.origin(&record).filter(|_| has_failed) {
                Some(place) => each(Subject::new(self.topic, place, None, &record)),
                None => Ok(()),
            }
        })
    }

    /// What a record of the retry topic is: that may be another group's, too.
    fn entry(&self, record: &LogRecord) -> Entry {
        let (group, topic) = (self.group, self.topic);
        Entry::read(record.headers.iter(), Owner { group, topic })
    }

    /// Where a parked record stood: a retry partition has the number of its source.
    fn origin(&self, record: &LogRecord) -> Option<Place> {
        match self.entry(record) {
            Entry::Parked { origin, .. } => origin.map(|offset| Place {
                partition: record.partition,
                offset,
            }),
            _ => None,
        }
    }
}
