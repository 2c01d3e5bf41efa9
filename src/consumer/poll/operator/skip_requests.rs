//! Tracks the records of this member's partitions that an operator wants skipped, until they are
//! settled.
//!
//! A request lasts until its record is settled by whatever means. It is kept through pauses and
//! rebalances by the control topic: a member that takes the partition over finds it there. The
//! offset alone does not identify a record, so that a request has the id of its topic as well.
//!
//! | state of the record | acknowledgement | what happens |
//! |---|---|---|
//! | not received, waiting or failed | none for 500 ms, then pending | skipped at its start |
//! | running | the same | skipped if the attempt fails |
//! | of a paused partition | pending | not marked until the resume |
//! | settled or parked before | already settled | nothing |
//! | dead-lettered by the skip | skipped | settled |
//! | of a partition that moves | none | its next owner does the same |

use crate::consumer::poll::rebalance::RebalanceContext;
use crate::consumer::shared::Shared;
use crate::consumer::shared::control::Control;
use crate::consumer::state::assignments::Assigned;
use crate::consumer::state::offset_tracker::{Epoch, PartitionProgress};
use crate::control::{CommandOutcome, Skip};
use crate::kafka::RecordPosition;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A skip that takes longer is acknowledged as pending.
const PENDING_AFTER: Duration = Duration::from_millis(500);

/// Open skip requests, by the id of their command.
#[derive(Default)]
pub(crate) struct SkipRequests(HashMap<String, OpenRequest>);

/// A request for a record of an assigned partition.
struct OpenRequest {
    skip: Skip,
    /// The id of the topic at the time of the request.
    topic_id: Option<String>,
    /// Since when this member has known it.
    since: Instant,
    /// Whether the request was acknowledged as pending.
    is_acknowledged: bool,
}

impl SkipRequests {
    /// Adds the requests for records of assigned partitions.
    pub(crate) fn collect(&mut self, shared: &Shared, member: &RebalanceContext) {
        let skips: Vec<Skip> = shared.control.state().skips().cloned().collect();
        for skip in skips {
            let record = &skip.record;
            let is_ours = member
                .assignments()
                .get(&record.topic, record.partition)
                .is_some();
            let topic_id = shared.control.topic_id(&record.topic);
            // After the topic was recreated, the offset belongs to another record, for which no
            // skip was requested.
            if is_ours && !skip.is_of_other_topic(topic_id.as_deref()) {
                let open = || OpenRequest {
                    since: Instant::now(),
                    is_acknowledged: skip.outcome.is_some(),
                    topic_id: topic_id.clone(),
                    skip: skip.clone(),
                };
                self.0.entry(skip.command.id.clone()).or_insert_with(open);
            }
        }
    }

    /// Checks the open requests, and acknowledges those whose record is settled.
    ///
    /// While a request is open, each turn reads the offset tracker.
    pub(crate) fn advance(&mut self, shared: &Shared, member: &RebalanceContext) {
        if self.0.is_empty() {
            return;
        }
        let progress = shared.tracker().positions();
        let progress: HashMap<Epoch, PartitionProgress> = progress
            .into_iter()
            .map(|position| (position.epoch, position))
            .collect();
        let control = &shared.control;
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
            let (is_done, is_paused) = (
                is_settled(assigned, progress, record),
                assigned.held.is_some(),
            );
            drop(assignments);
            if is_done {
                control.unskip(record);
                let detail = "it was settled or parked before it could be skipped; see also: evenkeel parked list";
                control.skip_ended(record, CommandOutcome::AlreadySettled, detail);
            } else {
                open.keep_open(control, is_paused);
            }
            !is_done
        });
    }
}

impl OpenRequest {
    /// Keeps the request open.
    ///
    /// Workers check for the mark before each attempt. Setting it again has no effect.
    fn keep_open(&mut self, control: &Control, is_paused: bool) {
        let record = &self.skip.record;
        match is_paused {
            // No record of a paused partition starts. Without the mark, other records are not
            // looked up either.
            true => control.unskip(record),
            false => control.skip(record, &self.skip.command),
        }
        if !self.is_acknowledged && (is_paused || self.since.elapsed() >= PENDING_AFTER) {
            self.is_acknowledged = true;
            let detail = match is_paused {
                true => "its partition is paused; the record is skipped after the resume",
                false => "it is skipped when its turn comes, or when its running attempt fails",
            };
            control.skip_ended(record, CommandOutcome::Pending, detail);
        }
    }
}

/// Whether nothing is left to be done for the record.
///
/// It is below the committed offset, or an earlier assignment settled it, or it was received and is
/// no longer unsettled.
fn is_settled(
    assigned: &Assigned,
    progress: Option<&PartitionProgress>,
    record: &RecordPosition,
) -> bool {
    let is_committed = assigned
        .committed
        .is_some_and(|committed| record.offset < committed);
    let was_received = |progress: &PartitionProgress| {
        let is_seen = progress.next.is_some_and(|next| record.offset < next);
        let mut unsettled = progress.unsettled.iter();
        is_seen && !unsettled.any(|range| range.contains(&record.offset))
    };
    is_committed
        || assigned.settled_above.contains(record.offset)
        || progress.is_some_and(was_received)
}
