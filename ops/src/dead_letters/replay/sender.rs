//! Publishes dead letters in order, with a bounded number in flight, and records each one that the
//! brokers acknowledged.
//!
//! At most one record per key is in flight, so no record can overtake an earlier one that fails.
//! After a failure the later dead letters of the key are held back, because they would arrive
//! before it.
//!
//! Acknowledgements are awaited in the order of sending. While the sender waits for anything else
//! (the next dead letter, the rate limit), it settles what is acknowledged, so that the replay log
//! is never far behind. A stop is checked at every wait; records in flight then have the cluster's
//! timeout to be acknowledged.

use super::execution::{Limits, ReplayOutcome};
use super::plan::{Batch, Fate, ReplaySelection};
use super::recorder::{RECORDING_REPLAYS, Recorder, while_doing};
use crate::dead_letters::originals::{Restored, restore};
use crate::dead_letters::{DeadLetterError, DeadLetterRecord};
use crate::sending::rate_limit::RateLimit;
use crate::sending::receipts::ready_or_never;
use crate::{Cluster, Observer, blocking};
use evenkeel::kafka::RecordPosition;
use evenkeel::kafka::reader::LogRecord;
use evenkeel::publisher::{PendingReceipt, PublishError, Publisher, Receipt};
use evenkeel::recovery::{Destination, Provenance, ReplayLog, replayed};
use jiff::Timestamp;
use std::collections::{HashSet, VecDeque};
use std::pin::pin;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

/// Maximum number of records in flight. A kill leaves at most this many replays unrecorded.
const IN_FLIGHT_MAX: usize = 100;
/// Number of failures after which the run ends.
const FAILURES_MAX: u64 = 100;

/// A destination and a key.
type Lane = (String, Vec<u8>);

/// A record in flight.
struct InFlight {
    dead_letter: RecordPosition,
    /// The dead letter's own timestamp, for its mark.
    written_ms: Option<i64>,
    /// The destination topic.
    to: String,
    /// None for a record without a key, which has no order.
    lane: Option<Lane>,
    /// The time of the replay.
    at: Timestamp,
    receipt: PendingReceipt,
}

/// Publishes the dead letters of a run.
pub(super) struct Sender<'a> {
    publisher: Publisher,
    by: &'a str,
    stop: CancellationToken,
    cluster: &'a Cluster,
    rate: Option<RateLimit>,
    /// The most dead letters to try.
    limit: u64,
    tried: u64,
    replayed: u64,
    failed: u64,
    /// Number of dead letters without content whose originals are lost. They do not count towards
    /// [`FAILURES_MAX`]: a topic may be full of them, and the cluster is not at fault.
    originals_lost: u64,
    held_back: u64,
    /// In the order of sending.
    in_flight: VecDeque<InFlight>,
    /// Lanes with a record in flight.
    busy: HashSet<Lane>,
    /// Lanes after a failure: nothing more is sent.
    held: HashSet<Lane>,
    /// Entries of the replay log that are not acknowledged.
    entries: VecDeque<PendingReceipt>,
    is_stopped: bool,
    /// Whether the producer accepts no more records.
    is_producer_broken: bool,
    /// Whether the outcome of every record so far is known.
    is_clean: bool,
    observer: &'a dyn Observer,
}

impl<'a> Sender<'a> {
    /// Creates a sender. After a stop, it waits for outstanding acknowledgements for the cluster's
    /// request timeout.
    pub(super) fn new(
        publisher: Publisher,
        by: &'a str,
        stop: CancellationToken,
        cluster: &'a Cluster,
        observer: &'a dyn Observer,
    ) -> Self {
        Self {
            publisher,
            by,
            stop,
            cluster,
            rate: None,
            limit: u64::MAX,
            tried: 0,
            replayed: 0,
            failed: 0,
            originals_lost: 0,
            held_back: 0,
            in_flight: VecDeque::new(),
            busy: HashSet::new(),
            held: HashSet::new(),
            entries: VecDeque::new(),
            is_stopped: false,
            is_producer_broken: false,
            is_clean: true,
            observer,
        }
    }

    /// Sets the rate and the maximum number of records.
    pub(super) fn limit(&mut self, limits: Limits) {
        let rate = limits.rate.map(|rate| RateLimit::new(rate, Instant::now()));
        (self.rate, self.limit) = (rate, limits.records);
    }

    /// The operator who replays.
    pub(super) fn by(&self) -> &'a str {
        self.by
    }

    /// The token that stops the run.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Whether the run ends: nothing more is tried.
    pub(super) fn is_over(&self) -> bool {
        self.is_stopped
            || self.is_producer_broken
            || self.tried >= self.limit
            || self.failed >= FAILURES_MAX
    }

    /// Publishes the dead letters of a batch. Returns whether the outcome of every record is known
    /// and recorded.
    pub(super) async fn send_all(
        &mut self,
        records: mpsc::Receiver<Result<LogRecord, DeadLetterError>>,
        selection: &ReplaySelection,
        replays: &ReplayLog,
        recorder: &Recorder,
        batch: &mut Batch,
    ) -> Result<bool, DeadLetterError> {
        self.is_clean = true;
        let sent = self
            .send_each(records, selection, replays, recorder, batch)
            .await;
        self.settle(recorder, batch).await?;
        sent?;
        Ok(self.is_clean)
    }

    /// Publishes until no dead letter is left or the run is over. Records may still be in flight.
    async fn send_each(
        &mut self,
        mut records: mpsc::Receiver<Result<LogRecord, DeadLetterError>>,
        selection: &ReplaySelection,
        replays: &ReplayLog,
        recorder: &Recorder,
        batch: &mut Batch,
    ) -> Result<(), DeadLetterError> {
        while !self.is_over() {
            let Some(Some(record)) = self
                .wait_while_settling(records.recv(), recorder, batch)
                .await?
            else {
                break;
            };
            let dead_letter = DeadLetterRecord::new(record?);
            if let Fate::Replay(to) = selection.fate(&dead_letter, replays) {
                self.send(dead_letter, to, recorder, batch).await?;
            }
        }
        Ok(())
    }

    /// Publishes one dead letter in its turn, unless its key is held back or the run is stopped.
    /// The key is checked after the wait: the record that it waited for may have failed. From
    /// then on a dead letter counts as tried, whether it is published or not.
    async fn send(
        &mut self,
        dead_letter: DeadLetterRecord,
        to: Destination,
        recorder: &Recorder,
        batch: &mut Batch,
    ) -> Result<(), DeadLetterError> {
        let (position, written_ms) = (dead_letter.position(), dead_letter.record.timestamp_ms);
        let key = dead_letter.record.key.clone();
        let lane = key.map(|key| (to.topic.clone(), key));
        self.wait_for_turn(lane.as_ref(), recorder, batch).await?;
        if self.is_stopped {
            return Ok(());
        }
        if lane.as_ref().is_some_and(|lane| self.held.contains(lane)) {
            self.held_back += 1;
            batch.route(&to.topic).held_back += 1;
            return Ok(());
        }
        self.tried += 1;
        let Some(dead_letter) = self.restore(dead_letter, &to, batch).await? else {
            return Ok(());
        };
        if let Some(rate) = &mut self.rate {
            rate.record_sent(Instant::now());
        }
        let provenance = Provenance {
            by: self.by,
            at: Timestamp::now(),
            edited: batch.source.are_edited(),
        };
        let (at, topic) = (provenance.at, to.topic.clone());
        let record = replayed(dead_letter.record, to, &provenance);
        match self.publisher.enqueue_record(record).await {
            Ok(receipt) => {
                self.busy.extend(lane.clone());
                self.in_flight.push_back(InFlight {
                    dead_letter: position,
                    written_ms,
                    to: topic,
                    lane,
                    at,
                    receipt,
                });
            }
            Err(error) => {
                batch.route(&topic).failed += 1;
                self.fail(&position, lane, &error);
            }
        }
        Ok(())
    }

    /// The dead letter with its value. `None` if the value is lost, or if the run is stopped. A
    /// lost original is final, so later dead letters of the key do not wait for it.
    async fn restore(
        &mut self,
        dead_letter: DeadLetterRecord,
        to: &Destination,
        batch: &mut Batch,
    ) -> Result<Option<DeadLetterRecord>, DeadLetterError> {
        if !dead_letter.is_incomplete() {
            return Ok(Some(dead_letter));
        }
        let (cluster, stop) = (self.cluster.clone(), self.stop.clone());
        let restoring = move || restore(&cluster, dead_letter, &stop);
        match blocking::run(restoring).await? {
            Restored::Whole(dead_letter) => return Ok(Some(dead_letter)),
            Restored::Stopped => self.is_stopped = true,
            Restored::Gone(dead_letter, why) => {
                self.originals_lost += 1;
                batch.route(&to.topic).failed += 1;
                let position = dead_letter.position();
                self.observer.notice(&format!("{position}: {why}"));
            }
        }
        Ok(None)
    }

    /// Waits for the rate limit, for room, and until no record of the key is in flight. Returns
    /// early if the run is stopped.
    async fn wait_for_turn(
        &mut self,
        lane: Option<&Lane>,
        recorder: &Recorder,
        batch: &mut Batch,
    ) -> Result<(), DeadLetterError> {
        if let Some(due) = self.rate.as_ref().map(RateLimit::due) {
            self.wait_while_settling(sleep_until(due), recorder, batch)
                .await?;
        }
        let waits = |sender: &Self| {
            sender.in_flight.len() >= IN_FLIGHT_MAX
                || lane.is_some_and(|lane| sender.busy.contains(lane))
        };
        while !self.is_stopped && waits(self) {
            self.settle_oldest(recorder, batch).await?;
        }
        Ok(())
    }

    /// Waits for `event`, and settles acknowledged records meanwhile. `None` if the run is stopped
    /// first.
    async fn wait_while_settling<T>(
        &mut self,
        event: impl Future<Output = T>,
        recorder: &Recorder,
        batch: &mut Batch,
    ) -> Result<Option<T>, DeadLetterError> {
        let mut event = pin!(event);
        loop {
            let oldest = self.in_flight.front_mut().map(|oldest| &mut oldest.receipt);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    self.is_stopped = true;
                    return Ok(None);
                }
                outcome = ready_or_never(oldest) => self.receive(outcome, recorder, batch).await?,
                output = &mut event => return Ok(Some(output)),
            }
        }
    }

    /// Settles the oldest record in flight, unless the run is stopped first. Pending for ever if
    /// none is in flight: the caller checks.
    async fn settle_oldest(
        &mut self,
        recorder: &Recorder,
        batch: &mut Batch,
    ) -> Result<(), DeadLetterError> {
        let oldest = self.in_flight.front_mut().map(|oldest| &mut oldest.receipt);
        tokio::select! {
            biased;
            () = self.stop.cancelled() => self.is_stopped = true,
            outcome = ready_or_never(oldest) => self.receive(outcome, recorder, batch).await?,
        }
        Ok(())
    }

    /// Records the outcome of the oldest record in flight. Its entry in the replay log is enqueued
    /// and not awaited, except that at most [`IN_FLIGHT_MAX`] entries are unacknowledged.
    async fn receive(
        &mut self,
        outcome: Result<Receipt, PublishError>,
        recorder: &Recorder,
        batch: &mut Batch,
    ) -> Result<(), DeadLetterError> {
        let Some(oldest) = self.in_flight.pop_front() else {
            return Ok(());
        };
        if let Some(lane) = &oldest.lane {
            self.busy.remove(lane);
        }
        match outcome {
            Ok(receipt) => {
                self.replayed += 1;
                batch.route(&oldest.to).replayed += 1;
                self.observer.advance();
                let recorded =
                    recorder.replayed(&oldest.dead_letter, oldest.written_ms, oldest.at, receipt);
                self.entries.push_back(recorded.await?);
                if self.entries.len() > IN_FLIGHT_MAX
                    && let Some(entry) = self.entries.pop_front()
                {
                    entry.await.map_err(while_doing(RECORDING_REPLAYS))?;
                }
            }
            Err(error) => {
                batch.route(&oldest.to).failed += 1;
                self.fail(&oldest.dead_letter, oldest.lane, &error);
            }
        }
        Ok(())
    }

    /// Notes that a dead letter could not be published, and holds its lane. After a fatal error, or
    /// one that leaves the outcome open, the run is not clean: the next one looks for the record.
    fn fail(&mut self, position: &RecordPosition, lane: Option<Lane>, error: &PublishError) {
        self.failed += 1;
        self.is_producer_broken |= matches!(error, PublishError::Fatal(_));
        self.is_clean &= !matches!(error, PublishError::Fatal(_) | PublishError::Unknown { .. });
        let followers = if lane.is_some() {
            "; later dead letters of its key are held back"
        } else {
            ""
        };
        self.observer
            .notice(&format!("{position}: {error}{followers}"));
        self.held.extend(lane);
        if self.failed == FAILURES_MAX {
            self.observer.notice(&format!(
                "{FAILURES_MAX} dead letters could not be published; the replay ends, and the rest \
                 is left to the next one"
            ));
        }
    }

    /// Waits for all records in flight and for their entries. After a stop the wait is limited; the
    /// run is then not clean, and the next one looks for what was left.
    async fn settle(
        &mut self,
        recorder: &Recorder,
        batch: &mut Batch,
    ) -> Result<(), DeadLetterError> {
        while !self.is_stopped && !self.in_flight.is_empty() {
            self.settle_oldest(recorder, batch).await?;
        }
        let deadline = Instant::now() + self.cluster.timeout;
        while let Some(oldest) = self.in_flight.front_mut() {
            match timeout_at(deadline, &mut oldest.receipt).await {
                Ok(outcome) => self.receive(outcome, recorder, batch).await?,
                Err(_) => {
                    let dead_letters = self.in_flight.len();
                    self.observer.notice(&format!(
                        "{dead_letters} dead letters were not acknowledged in time; the next \
                         replay checks whether they were published"
                    ));
                    self.in_flight.clear();
                    self.is_clean = false;
                }
            }
        }
        while let Some(entry) = self.entries.pop_front() {
            match self.is_stopped {
                false => entry
                    .await
                    .map_err(while_doing(RECORDING_REPLAYS))
                    .map(drop)?,
                true => self.is_clean &= matches!(timeout_at(deadline, entry).await, Ok(Ok(_))),
            }
        }
        self.busy.clear();
        Ok(())
    }

    /// The outcome of the run, with the error that ended it early.
    pub(super) fn outcome(self, error: Option<DeadLetterError>) -> ReplayOutcome {
        ReplayOutcome {
            replayed: self.replayed,
            failed: self.failed + self.originals_lost,
            held_back: self.held_back,
            is_stopped: self.is_stopped,
            error,
        }
    }
}
