//! Pauses and resumes a partition that stays assigned.
//!
//! Runs on the poll thread. Pausing fences the partition's epoch, so that none of its records
//! starts, stops forwarding its queue and stops fetching. The partition resumes under a new epoch
//! from the committed offset. The client discards records that it fetched before, so that no record
//! is tracked under a wrong epoch.
//!
//! The committed offset, and not the client's position, decides where it resumes: records that were
//! taken and released unsettled are below the client's position, and would be lost.
//!
//! A fence cannot be lifted, so that a resume always starts a new epoch. If the drain reached its
//! deadline, a record that still runs is delivered a second time beside its first attempt, as after
//! a revoke.
//!
//! # States
//!
//! ```text
//!           pause               drained, or the timeout          resume
//! reading ───────▶ Draining ─────────────────────────▶ Drained ─────────────▶ reading, new epoch
//! ```
//!
//! `held` of an assignment is the state. The reasons for a pause (an operator, a log reset, a retry
//! topic that appeared) are evaluated anew on every turn. No reason owns a pause, so that two of
//! them need no counting.
//!
//! # Example
//!
//! The committed offset is 40; 41 is settled, and 40 runs in a slow handler. A pause fences the
//! partition: nothing else starts. If 40 ends in time, 42 is committed and the resume continues
//! there. Otherwise 40 stays committed with 41 in the metadata. The resume starts 40 again, while
//! the first attempt may still run, and passes over 41.

use crate::consumer::commit::{
    CommitRequest, CommittedPositions, PositionQuery, TopicPartition, list, owned_of,
};
use crate::consumer::poll::rebalance::RebalanceContext;
use crate::consumer::poll::telemetry;
use crate::consumer::retry_reader::reader;
use crate::consumer::state::assignments::{Assigned, PauseState};
use crate::consumer::state::offset_tracker::Epoch;
use crate::consumer::state::partition::epochs_of;
use crate::kafka::native::{Committed, TopicId, forward, set_leader_epoch, unforward};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{self, TryRecvError};
use std::time::{Duration, Instant};

/// How long a seek may take.
pub(crate) const SEEK_TIMEOUT: Duration = Duration::from_secs(5);

impl RebalanceContext {
    /// Pauses these partitions. It does not wait for running handlers.
    ///
    /// Running handlers have the revoke timeout to finish. A partition that is not assigned is
    /// ignored.
    pub(crate) fn pause(&self, consumer: &BaseConsumer<Self>, places: &[TopicPartition]) {
        let until = Instant::now() + self.shared.settings.revoke_timeout;
        for (topic, partition) in places {
            let Some(held) = self.assignments().get(topic, *partition).map(|assigned| {
                assigned.partition.fence();
                Arc::clone(&assigned.partition)
            }) else {
                continue;
            };
            // Its parked records are no longer read or handed out.
            let epochs: Vec<Epoch> = epochs_of(&held).collect();
            let _ = self
                .reader_requests
                .send(reader::ReaderRequest::Revoked(epochs.clone()));
            self.shared.retry_topics.wake_reader();
            if let Err(error) = unforward(consumer, topic, *partition) {
                telemetry::queue_still_forwarded(&self.shared.group, topic, *partition, &error);
            }
            let drain = self.fence(&epochs);
            if let Some(assigned) = self.assignments().get(topic, *partition) {
                assigned.held = Some(PauseState::Draining { drain, until });
            }
        }
        self.stop_fetching(consumer, places);
    }

    /// Advances pauses in progress. Returns whether partitions are still being drained.
    ///
    /// A drained partition's offsets are committed at once, so that another member, or a restart,
    /// finds them during a long pause.
    pub(crate) fn advance_pauses(&self) -> bool {
        let (mut drained, mut is_draining) = (Vec::new(), false);
        for assigned in self.assignments().all() {
            match &mut assigned.held {
                Some(PauseState::Draining { drain, until }) => {
                    let is_done = drain.wait(Duration::ZERO);
                    if is_done || Instant::now() >= *until {
                        assigned.held = Some(PauseState::Drained { in_time: is_done });
                        drained.extend(epochs_of(&assigned.partition));
                    } else {
                        is_draining = true;
                    }
                }
                Some(PauseState::Drained { .. }) | None => {}
            }
        }
        if !drained.is_empty() {
            let (answer, _) = mpsc::channel();
            // The offset is committed again when the partition is resumed, which waits for the
            // answer.
            let _ = self
                .commit_requests
                .send(CommitRequest::Commit(drained, answer));
        }
        is_draining
    }

    /// Resets the client's pause of revoked partitions: it must not apply when they are assigned
    /// again.
    pub(crate) fn forget_pauses(&self, consumer: &BaseConsumer<Self>, gone: &[Assigned]) {
        let paused = gone
            .iter()
            .filter(|assigned| assigned.held.is_some() || assigned.is_unreadable);
        let places: Vec<TopicPartition> = paused
            .map(|assigned| {
                let partition = &assigned.partition;
                (Arc::clone(&partition.topic), partition.partition)
            })
            .collect();
        if !places.is_empty() {
            // A partition that is already revoked cannot be resumed.
            let _ = consumer.resume(&list(&places));
        }
    }

    /// Stops the client's fetches, which would fill its queue with records that are discarded.
    fn stop_fetching(&self, consumer: &BaseConsumer<Self>, places: &[TopicPartition]) {
        if places.is_empty() {
            return;
        }
        let list = list(places);
        let paused = consumer.pause(&list).and_then(|()| {
            let elements = list.elements();
            elements.iter().try_for_each(|element| element.error())
        });
        if let Err(error) = paused {
            // Its queue is bounded, and no thread takes from it.
            tracing::debug!(
                group = self.shared.group,
                %error,
                "the client continues to fetch paused partitions"
            );
        }
    }

    /// Resumes partitions from their committed offsets. Returns those that were resumed. The others
    /// stay paused, and the caller tries again.
    ///
    /// The committing thread looks the offsets up: this thread serves all partitions and does not
    /// wait for the answer.
    ///
    /// It takes several turns: the first sends the query to the committing thread, later ones
    /// receive the answer. The positions of partitions with a log reset are committed before.
    pub(crate) fn resume(
        &self,
        consumer: &BaseConsumer<Self>,
        places: &[TopicPartition],
    ) -> Vec<TopicPartition> {
        let is_drained = |place: &&TopicPartition| {
            let mut assignments = self.assignments();
            let assigned = assignments.get(&place.0, place.1);
            assigned
                .is_some_and(|assigned| matches!(assigned.held, Some(PauseState::Drained { .. })))
        };
        let mut places: Vec<TopicPartition> = places.iter().filter(is_drained).cloned().collect();
        places.sort();
        if places.is_empty() {
            return places;
        }
        let places = self.commit_reset_positions(consumer, places);
        if places.is_empty() {
            return places;
        }
        let Some(answer) = self.query_positions(&places) else {
            return Vec::new();
        };
        match answer.and_then(|positions| self.resume_from(consumer, &places, positions)) {
            Ok(resumed) => resumed,
            Err(error) => {
                telemetry::resume_failed(&self.shared.group, &error);
                Vec::new()
            }
        }
    }

    /// Requests a commit of the settled offsets of these partitions and a lookup of the committed
    /// ones. None until the answer has arrived.
    ///
    /// There is one query at a time. A query for other partitions, or for epochs that have changed,
    /// replaces it.
    fn query_positions(
        &self,
        places: &[TopicPartition],
    ) -> Option<KafkaResult<CommittedPositions>> {
        let mut open_query = self.position_query();
        if let Some(query) = open_query.as_ref()
            && query.is_about(places, &self.epochs_to_commit(places))
        {
            return match query.answer.try_recv() {
                Err(TryRecvError::Empty) => None,
                Ok(answer) => {
                    *open_query = None;
                    answer
                }
                // The committing thread may end at any time.
                Err(TryRecvError::Disconnected) => {
                    *open_query = None;
                    None
                }
            };
        }
        let (sender, answer) = mpsc::channel();
        let epochs = self.epochs_to_commit(places);
        *open_query = Some(PositionQuery {
            places: places.to_vec(),
            epochs: epochs.clone(),
            answer,
        });
        let _ = self.commit_requests.send(CommitRequest::CommitAndLookUp(
            epochs,
            places.to_vec(),
            sender,
        ));
        None
    }

    /// The epochs whose settled offsets are committed before the lookup.
    fn epochs_to_commit(&self, places: &[TopicPartition]) -> Vec<Epoch> {
        let mut assignments = self.assignments();
        let mut epochs = Vec::with_capacity(places.len());
        for place in places {
            if let Some(assigned) = assignments.get(&place.0, place.1) {
                // Offsets settled before a log reset are not committed.
                let own = assigned.fall_back.map(|_| assigned.partition.epoch);
                epochs.extend(epochs_of(&assigned.partition).filter(|epoch| Some(*epoch) != own));
            }
        }
        epochs
    }

    /// Seeks the partitions to these positions and starts their new epochs. None of them, if the
    /// position of one is unknown.
    fn resume_from(
        &self,
        consumer: &BaseConsumer<Self>,
        places: &[TopicPartition],
        positions: CommittedPositions,
    ) -> KafkaResult<Vec<TopicPartition>> {
        let mut started = HashSet::new();
        for place in places {
            if let Some(assigned) = self.assignments().get(&place.0, place.1)
                && (assigned.committed.is_some() || assigned.next.is_some())
            {
                started.insert(place);
            }
        }
        let position_of = |place: &TopicPartition| positions.get(&(place.0.to_string(), place.1));
        let is_unknown = |place: &&TopicPartition| {
            started.contains(place) && position_of(place).and_then(|found| found.offset).is_none()
        };
        if let Some((topic, partition)) = places.iter().find(is_unknown) {
            // The client would continue after the last record it delivered, and records released
            // unsettled would be lost.
            telemetry::committed_offset_missing(&self.shared.group, topic, *partition);
            return Ok(Vec::new());
        }
        // Without a committed offset no record was passed on. The client starts where it would have
        // started, unless records were taken that were not passed on.
        let mut seeks = TopicPartitionList::new();
        for place in places {
            let taken_from = || self.assignments().get(&place.0, place.1)?.taken_from;
            let committed = position_of(place).and_then(|found| found.offset);
            if let Some(offset) = committed.or_else(taken_from) {
                seeks.add_partition_offset(&place.0, place.1, Offset::Offset(offset))?;
            }
        }
        for place in places {
            if let Some(found) = position_of(place) {
                set_leader_epoch(&seeks, &place.0, place.1, found.leader_epoch)?;
            }
        }
        if seeks.count() > 0 {
            let sought = consumer.seek_partitions(seeks, SEEK_TIMEOUT)?;
            sought
                .elements()
                .iter()
                .try_for_each(|element| element.error())?;
        }
        let ids = self.topic_ids(consumer, &list(places));
        for place in places {
            self.begin_epoch(place, position_of(place), ids.get(&*place.0).copied());
        }
        if let Err(error) = self.restart_fetching(consumer, places) {
            self.shared
                .abort(format!("paused partitions cannot be read again: {error}"));
        }
        Ok(places.to_vec())
    }

    /// Starts a new epoch of a partition.
    ///
    /// The partition stays assigned in the client and gets a new state: its partition object, its
    /// retry partition, its tracks. What is known of its log is read from the commit, as at an
    /// assignment.
    fn begin_epoch(
        &self,
        (topic, partition): &TopicPartition,
        committed: Option<&Committed>,
        topic_id: Option<TopicId>,
    ) {
        let mut assignments = self.assignments();
        let Some(before) = assignments.remove(topic, *partition) else {
            return;
        };
        let old: Vec<Epoch> = epochs_of(&before.partition).collect();
        let _ = self
            .commit_requests
            .send(CommitRequest::Forget(old.clone()));
        {
            let mut tracker = self.shared.tracker();
            old.into_iter().for_each(|old| tracker.revoke(old));
        }
        let retry = self.retry_partition(&mut assignments, topic);
        assignments.insert(topic, *partition, before.received, retry);
        let Some(assigned) = assignments.get(topic, *partition) else {
            return;
        };
        // The end of a log changes with its reset.
        assigned.end = before.end.filter(|_| before.fall_back.is_none());
        let nothing = Committed::default();
        assigned.restore_progress(&self.shared, committed.unwrap_or(&nothing), topic_id);
        // The brokers checked the leader epoch at the seek.
        assigned.committed_under = None;
        self.register(owned_of(assigned));
    }

    /// Forwards and fetches the records of partitions again.
    ///
    /// If it fails, the partition would stay silent for ever: the caller ends the run.
    fn restart_fetching(
        &self,
        consumer: &BaseConsumer<Self>,
        places: &[TopicPartition],
    ) -> KafkaResult<()> {
        if let Some(targets) = self.targets() {
            for (topic, partition) in places {
                let is_gated = |assigned: &mut Assigned| assigned.is_gated;
                let mut assignments = self.assignments();
                // A gated partition is forwarded to the open queue after its parked set is
                // complete.
                let target = match assignments.get(topic, *partition).is_some_and(is_gated) {
                    true => targets.gated,
                    false => targets.open,
                };
                forward(consumer, topic, *partition, target)?;
            }
        }
        consumer.resume(&list(places))
    }
}
