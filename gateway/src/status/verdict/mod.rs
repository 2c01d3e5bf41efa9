//! The state of an event in a group: facts in, state out. Pure.
//!
//! The order of the rules follows the way of a record. An effect in the inbox is final, whatever
//! the logs have: the offset may not be committed yet, or a dead letter was replayed. A parked
//! record is settled in its source partition, so that the retry topic is looked at only then, and
//! the dead letters only if nothing is parked.

use super::answer::{Behind, GroupState, GroupStatus};
use evenkeel::consumer::{ParkedKey, PartitionProgress};
use evenkeel::kafka::RecordPosition;
use jiff::Timestamp;
use std::ops::Range;

/// The facts about one record and one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// The position of the record.
    pub(super) at: RecordPosition,
    /// The members of the group.
    pub(super) members: Members,
    /// The progress of the group on the partition.
    pub(super) progress: PartitionProgress,
    /// Its place in the retry topic.
    pub(super) parked: Parked,
    /// Its last dead letter.
    pub(super) dead_letter: DeadLetterSearch,
    /// The operator whose skip of the record the group acknowledged.
    pub(super) skipped_by: Option<String>,
    /// When its effect was committed, in milliseconds since 1970.
    pub(super) completed_ms: Option<i64>,
}

impl Facts {
    /// A record of which only the group's progress is known.
    pub(super) fn new(at: RecordPosition, members: Members, progress: PartitionProgress) -> Self {
        Self {
            at,
            members,
            progress,
            parked: Parked::No,
            dead_letter: DeadLetterSearch::Nothing,
            skipped_by: None,
            completed_ms: None,
        }
    }
}

/// The members of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Members {
    /// The group does not exist.
    NoGroup,
    /// This many members are known.
    Count(usize),
    /// The brokers cannot tell.
    Unknown,
}

/// The place of a record in a retry topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Parked {
    /// It is not there.
    No,
    /// It is the next record of its key.
    First {
        /// The time of the next attempt, in milliseconds since 1970. 0 for at once.
        not_before_ms: i64,
        /// The number of attempts so far. 0 if it waited behind another record until now.
        attempts: u32,
        class: Option<String>,
        message: Option<String>,
    },
    /// It waits behind another record of its key.
    Behind {
        /// The offset of that record in the source topic.
        offset: Option<i64>,
        /// The time of that record's next attempt. `None` if it waits for an operator.
        not_before_ms: Option<i64>,
        reason: String,
    },
    /// The retry partition has more unsettled entries than are read.
    TooMany,
}

/// The result of a search for the last dead letter of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DeadLetterSearch {
    Nothing,
    Found(FoundDeadLetter),
    /// The search ended at its limit before the end of the topic.
    Incomplete,
}

/// A dead letter of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundDeadLetter {
    pub(super) at: RecordPosition,
    pub(super) class: Option<String>,
    pub(super) message: Option<String>,
    pub(super) attempts: Option<u32>,
    /// The operator, if the record was skipped and did not fail.
    pub(super) skipped_by: Option<String>,
    /// Whether it was replayed.
    pub(super) is_replayed: bool,
    /// Whether all dead letters and marks of replays were read: otherwise a later one may exist.
    pub(super) is_last: bool,
}

/// The place of the record at `source_offset` among the waiting keys of its partition.
pub(super) fn parked_in(keys: &[ParkedKey], source_offset: i64) -> Parked {
    let place = keys.iter().find_map(|key| {
        let mut offsets = key.source_offsets.iter();
        let at = offsets.position(|offset| *offset == Some(source_offset))?;
        Some((key, at))
    });
    let Some((key, at)) = place else {
        return Parked::No;
    };
    if let Some(dead) = key.held_for {
        return Parked::Behind {
            offset: Some(dead),
            not_before_ms: None,
            reason: "its key is held until the dead letter of this record is replayed".to_owned(),
        };
    }
    match at {
        0 => Parked::First {
            not_before_ms: key.wait.not_before_ms,
            attempts: key.wait.attempts,
            class: key.why.class.clone(),
            message: key.why.message.clone(),
        },
        _ => Parked::Behind {
            offset: key.source_offset,
            not_before_ms: Some(key.wait.not_before_ms),
            reason: match &key.why.message {
                Some(message) => message.clone(),
                None => "an earlier record of its key is not settled".to_owned(),
            },
        },
    }
}

/// The state of a record in a group.
pub(super) fn verdict(group: &str, facts: &Facts) -> GroupStatus {
    if let Some(at_ms) = facts.completed_ms {
        let mut status = GroupStatus::new(group, GroupState::Settled);
        status.completed_at = time(at_ms);
        return status;
    }
    if !facts.progress.is_settled(facts.at.offset) {
        return unsettled(group, facts);
    }
    if facts.parked != Parked::No {
        return parked(group, facts);
    }
    settled(group, facts)
}

/// A record that the group has not settled.
fn unsettled(group: &str, facts: &Facts) -> GroupStatus {
    let committed = facts.progress.committed;
    let state = match (facts.members, committed) {
        (Members::NoGroup, None) => {
            let mut status = GroupStatus::new(group, GroupState::Unknown);
            status.reason = Some("the group does not exist".to_owned());
            return status;
        }
        (Members::NoGroup | Members::Count(0), _) => GroupState::Unassigned,
        (Members::Count(_) | Members::Unknown, _) => GroupState::Pending,
    };
    let mut status = GroupStatus::new(group, state);
    status.records_before = committed.map(|committed| {
        let before = committed..facts.at.offset;
        unsettled_in(&before, &facts.progress.settled_above)
    });
    status
}

/// The number of offsets in `before` that are in none of the ranges, which do not overlap.
fn unsettled_in(before: &Range<i64>, settled: &[Range<i64>]) -> u64 {
    let length = |range: Range<i64>| (range.end - range.start).max(0).unsigned_abs();
    let inside = settled
        .iter()
        .map(|run| length(run.start.max(before.start)..run.end.min(before.end)));
    length(before.clone()).saturating_sub(inside.sum())
}

/// A record that is in the retry topic.
fn parked(group: &str, facts: &Facts) -> GroupStatus {
    match &facts.parked {
        Parked::First {
            not_before_ms,
            attempts,
            class,
            message,
        } => {
            let mut status = GroupStatus::new(group, GroupState::Retrying);
            status.until = due(*not_before_ms);
            status.attempt = Some(*attempts);
            status.class.clone_from(class);
            status.reason.clone_from(message);
            status
        }
        Parked::Behind {
            offset,
            not_before_ms,
            reason,
        } => {
            let mut status = GroupStatus::new(group, GroupState::Waiting);
            let mut behind = Behind::new(&facts.at.topic, facts.at.partition, *offset);
            behind.reason = Some(reason.clone());
            status.behind = Some(behind);
            status.until = not_before_ms.and_then(due);
            status
        }
        Parked::TooMany => unknown(
            group,
            "too many records are parked to look for this one; see the group's waiting keys",
        ),
        Parked::No => GroupStatus::new(group, GroupState::Settled),
    }
}

/// A record that is settled and not parked.
fn settled(group: &str, facts: &Facts) -> GroupStatus {
    let skipped = |by: &str, at: Option<&RecordPosition>| {
        let mut status = GroupStatus::new(group, GroupState::Skipped);
        status.skipped_by = Some(by.to_owned());
        status.dead_letter = at.cloned();
        status
    };
    let found = match &facts.dead_letter {
        DeadLetterSearch::Found(found) => Some(found),
        DeadLetterSearch::Nothing | DeadLetterSearch::Incomplete => None,
    };
    if let Some(found) = found.filter(|found| !found.is_last) {
        let reason = "it was dead-lettered; the dead letters or the marks of replays are too many \
                      to tell whether that is its last state";
        let mut status = unknown(group, reason);
        status.dead_letter = Some(found.at.clone());
        return status;
    }
    let replayed = found.is_some_and(|found| found.is_replayed);
    if replayed {
        let mut status = GroupStatus::new(group, GroupState::Settled);
        status.reason = Some("its dead letter was replayed".to_owned());
        return status;
    }
    if let Some(found) = found {
        if let Some(by) = &found.skipped_by {
            return skipped(by, Some(&found.at));
        }
        let mut status = GroupStatus::new(group, GroupState::Dead);
        status.attempt = found.attempts;
        status.class.clone_from(&found.class);
        status.reason.clone_from(&found.message);
        status.dead_letter = Some(found.at.clone());
        return status;
    }
    if let Some(by) = &facts.skipped_by {
        return skipped(by, None);
    }
    match facts.dead_letter {
        DeadLetterSearch::Incomplete => unknown(
            group,
            "the dead letters are too many to search; the event is settled or dead",
        ),
        _ => GroupStatus::new(group, GroupState::Settled),
    }
}

/// A group whose state could not be determined.
pub(super) fn unknown(group: &str, reason: impl Into<String>) -> GroupStatus {
    let mut status = GroupStatus::new(group, GroupState::Unknown);
    status.reason = Some(reason.into());
    status
}

/// The time of an attempt. `None` for one that is due at once.
fn due(not_before_ms: i64) -> Option<Timestamp> {
    time(not_before_ms).filter(|_| not_before_ms > 0)
}

fn time(ms: i64) -> Option<Timestamp> {
    Timestamp::from_millisecond(ms).ok()
}

#[cfg(test)]
mod tests;
