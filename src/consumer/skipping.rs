//! The records of our partitions that are to be skipped, until they are settled.
//!
//! Runs on the poll thread. That a record is skipped is done where it starts or waits (`worker`, `recover`); here it is said
//! which, and found out what became of those that were settled in another way.

use super::control::Control;
use super::engine::Engine;
use super::ledger::{Epoch, Position as Progress};
use super::rebalance::{Assigned, Member};
use crate::control::{Outcome, Skip};
use crate::recovery::Position;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A record to be skipped that is not settled after this time is acknowledged as pending.
const PENDING_AFTER: Duration = Duration::from_millis(500);

/// Records to be skipped that are not settled, by the id of the command.
#[derive(Default)]
pub(crate) struct Skipping(HashMap<String, Open>);

struct Open {
    skip: Skip,
    /// The topic that it was found in.
    topic_id: Option<String>,
    since: Instant,
    /// Whether it was said that it is pending.
    is_told: bool,
}

impl Skipping {
    /// Finds the records of our partitions that are to be skipped.
    pub(crate) fn find(&mut self, engine: &Engine, member: &Member) {
        let skips: Vec<Skip> = engine.control.state().skips().cloned().collect();
        for skip in skips {
            let record = &skip.record;
            let is_ours = member
                .assignments()
                .get(&record.topic, record.partition)
                .is_some();
            let topic_id = engine.control.topic_id(&record.topic);
            // What stands there now, after the topic was deleted and created again, nobody has asked to skip.
            if is_ours && !skip.is_outlived_by(topic_id.as_deref()) {
                let open = || Open {
                    since: Instant::now(),
                    is_told: skip.outcome.is_some(),
                    topic_id: topic_id.clone(),
                    skip: skip.clone(),
                };
                self.0.entry(skip.command.id.clone()).or_insert_with(open);
            }
        }
    }

    /// Looks what has become of them.
    pub(crate) fn mind(&mut self, engine: &Engine, member: &Member) {
        if self.0.is_empty() {
            return;
        }
        let progress = engine.ledger().positions();
        let progress: HashMap<Epoch, Progress> = progress
            .into_iter()
            .map(|position| (position.epoch, position))
            .collect();
        let control = &engine.control;
        self.0.retain(|_, open| {
            let record = &open.skip.record;
            let mut assignments = member.assignments();
            let Some(assigned) = assignments.get(&record.topic, record.partition) else {
                control.unskip(record);
                return false;
            };
            if open.topic_id.is_some() && open.topic_id != control.topic_id(&record.topic) {
                control.unskip(record);
                return false;
            }
            let progress = progress.get(&assigned.partition.epoch);
            let (is_over, is_held) = (
                is_settled(assigned, progress, record),
                assigned.held.is_some(),
            );
            drop(assignments);
            if is_over {
                control.unskip(record);
                let detail = "it was settled or parked before it could be skipped; see also: evenkeel parked list";
                control.skip_ended(record, Outcome::AlreadySettled, detail);
            } else {
                open.stays(control, is_held);
            }
            !is_over
        });
    }
}

impl Open {
    /// It is still to be skipped.
    fn stays(&mut self, control: &Control, is_held: bool) {
        let record = &self.skip.record;
        match is_held {
            // Nothing of it starts, and every other record would be looked up for its sake.
            true => control.unskip(record),
            false => control.skip(record, &self.skip.command),
        }
        if !self.is_told && (is_held || self.since.elapsed() >= PENDING_AFTER) {
            self.is_told = true;
            let detail = match is_held {
                true => "its partition is paused; it is skipped when that goes on",
                false => "it is skipped when its turn comes, or when its running attempt fails",
            };
            control.skip_ended(record, Outcome::Pending, detail);
        }
    }
}

/// Whether nothing is left to be done for the record.
fn is_settled(assigned: &Assigned, progress: Option<&Progress>, record: &Position) -> bool {
    let is_before = assigned
        .committed
        .is_some_and(|committed| record.offset < committed);
    let is_behind = |progress: &Progress| {
        let is_seen = progress.next.is_some_and(|next| record.offset < next);
        let mut unsettled = progress.unsettled.iter();
        is_seen && !unsettled.any(|range| range.contains(&record.offset))
    };
    is_before || assigned.settled_above.contains(record.offset) || progress.is_some_and(is_behind)
}
