//! The end of a bounded run: whether its records are received and settled, up to the end offsets at
//! the assignment.

use crate::consumer::poll::PollThread;
use crate::consumer::report::ConsumerError;
use crate::consumer::settings::StopWhen;
use crate::consumer::shared::clock::steady_ms;
use crate::consumer::state::admission::{self, Progress};
use crate::kafka::KafkaError;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a bounded run without further records waits before it returns the error of a batch that
/// cannot be read.
///
/// Records of other partitions may still reach the bound.
const UNREADABLE_GRACE: Duration = Duration::from_secs(10);
/// How long end offsets may be unknown before a run to the end fails.
const END_OFFSETS_UNKNOWN_MAX: Duration = Duration::from_secs(60);
/// How long one lookup of end offsets may take.
const END_OFFSETS_TIMEOUT: Duration = Duration::from_secs(10);

impl PollThread {
    /// Whether the run is done. An unreadable batch ends it with an error, after everything else is
    /// done.
    ///
    /// Between a revoke and the next assignment the member has no partition, so that none is short
    /// of its end: the flag `awaited` keeps the run from ending then.
    pub(super) fn bound_reached(&mut self) -> Result<bool, ConsumerError> {
        let bound = self.shared.settings.stop_when;
        if bound == StopWhen::Endless {
            return Ok(false);
        }
        let joined = {
            let mut assignments = self.client.consumer.context().assignments();
            // See above: another assignment follows.
            let is_between = assignments.awaited && assignments.all().next().is_none();
            assignments.joined && !is_between
        };
        let ends_reached =
            joined && bound == StopWhen::UntilEnd && !self.is_resetting && self.ends_reached()?;
        let progress = Progress {
            received: self.net_received(),
            in_flight: self.shared.in_flight(),
            idle_for: self.last_record_at.map(|at| at.elapsed()),
            ends_reached,
        };
        let is_done = admission::is_done(bound, progress);
        let is_stuck = progress.in_flight == 0 && (is_done || progress.is_idle(UNREADABLE_GRACE));
        match self.unreadable.blocking_batch() {
            None => Ok(is_done),
            // The error is returned after all other records are done and the extent of the batch is
            // known.
            Some((batch, true)) if is_stuck => {
                Err(KafkaError::UnreadableBatch(batch.clone()).into())
            }
            Some(_) => Ok(false),
        }
    }

    /// Records received, without those released unsettled: they are redelivered.
    ///
    /// A run of a number of records counts them only once.
    pub(super) fn net_received(&self) -> u64 {
        let abandoned = self.shared.counters.abandoned.load(Ordering::Relaxed);
        self.received.saturating_sub(abandoned)
    }

    /// Whether every assigned partition is settled up to its end at the assignment.
    ///
    /// A partition counts as done in one of these ways: settled up to its end, blocked by a batch
    /// that cannot be read (the error follows when all others are done), or absent from a recreated
    /// topic. Its parked records that were due at the first assignment must be done as well.
    fn ends_reached(&mut self) -> Result<bool, ConsumerError> {
        if let Err(error) = self.look_up_ends() {
            // The next lookup finds a leader that has moved.
            let since = *self.ends_unknown_since.get_or_insert_with(Instant::now);
            return match since.elapsed() < END_OFFSETS_UNKNOWN_MAX {
                true => Ok(false),
                false => Err(error),
            };
        }
        self.ends_unknown_since = None;
        let settled: HashMap<_, _> = self
            .shared
            .tracker()
            .positions()
            .into_iter()
            .map(|position| (position.epoch, position.watermark))
            .collect();
        let first_assigned_ms = *self.first_assigned_ms.get_or_insert_with(steady_ms);
        let mut assignments = self.client.consumer.context().assignments();
        let closed = assignments.all().find_map(|assigned| {
            let retry = assigned.partition.retry.as_ref()?;
            (!retry.is_open()).then(|| (Arc::clone(&retry.topic), assigned.partition.partition))
        });
        if let Some((topic, partition)) = closed {
            // It is unknown whether a record is due there.
            let since = *self.retry_unknown_since.get_or_insert_with(Instant::now);
            return match since.elapsed() < END_OFFSETS_UNKNOWN_MAX {
                true => Ok(false),
                false => Err(ConsumerError::Unreadable {
                    topic: topic.to_string(),
                    partition,
                    why: "its parked records are unknown".to_owned(),
                }),
            };
        }
        self.retry_unknown_since = None;
        Ok(assignments.all().all(|assigned| {
            let retry = assigned.partition.retry.as_ref();
            if retry.is_some_and(|retry| !retry.is_done_with(first_assigned_ms)) {
                return false;
            }
            let watermark = settled
                .get(&assigned.partition.epoch)
                .copied()
                .flatten()
                .unwrap_or(i64::MIN);
            // A partition that cannot be read does not block: its error is returned after the
            // others are done.
            assigned.is_absent()
                || assigned.end.is_some_and(|end| watermark >= end)
                || self.unreadable.is_blocked(assigned.partition.epoch)
        }))
    }

    /// Looks up the ends of partitions that have none yet, in one request: single requests would
    /// each wait behind the partition's fetches.
    ///
    /// The end is the one at the assignment: records that are written during the run do not extend
    /// it. A partition whose committed offset is its end is done: its end is set to `i64::MIN`.
    fn look_up_ends(&self) -> Result<(), ConsumerError> {
        let mut unknown = TopicPartitionList::new();
        for assigned in self.client.consumer.context().assignments().all() {
            if assigned.end.is_none() && !assigned.is_absent() {
                let partition = &assigned.partition;
                let element = unknown.add_partition_offset(
                    &partition.topic,
                    partition.partition,
                    Offset::End,
                );
                element.map_err(end_offsets_error)?;
            }
        }
        if unknown.count() == 0 {
            return Ok(());
        }
        let ends = self
            .client
            .consumer
            .offsets_for_times(unknown, END_OFFSETS_TIMEOUT)
            .map_err(end_offsets_error)?;
        let mut assignments = self.client.consumer.context().assignments();
        for element in ends.elements() {
            element.error().map_err(end_offsets_error)?;
            let Some(assigned) = assignments.get(element.topic(), element.partition()) else {
                continue;
            };
            let end = element.offset().to_raw().unwrap_or(0).max(0);
            // A committed offset above the end means a log reset: the partition is read from its
            // beginning.
            let is_at_end = assigned.committed.unwrap_or(0) == end;
            assigned.end = Some(if is_at_end { i64::MIN } else { end });
        }
        Ok(())
    }
}

/// The error of a lookup of end offsets.
fn end_offsets_error(source: ClientError) -> ConsumerError {
    KafkaError::Client {
        what: "the ends of the assigned partitions cannot be read".to_owned(),
        source,
    }
    .into()
}
