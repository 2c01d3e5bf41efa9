//! Publishes letters in order, a bounded number at a time, and notes each that the brokers have acknowledged.
//!
//! Of one key at most one record is on its way, so that none can overtake another that fails. After a failure the later
//! letters of the key are held back: they would come before it.

use super::journal::Journal;
use super::plan::{Batch, Choice, Fate};
use crate::commands::dlq::Cluster;
use crate::commands::dlq::letters::Letter;
use crate::commands::dlq::originals::{Restored, restore};
use crate::exit::Ending;
use crate::pace::Pace;
use crate::progress::Progress;
use crate::receipt::ready_or_never;
use crate::stop::Stop;
use anyhow::Context;
use evenkeel::kafka::reader::LogRecord;
use evenkeel::publisher::{PendingReceipt, PublishError, Publisher, Receipt};
use evenkeel::recovery::{Destination, Position, Provenance, Replays, replayed};
use jiff::Timestamp;
use std::collections::{HashSet, VecDeque};
use std::pin::pin;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};

/// Records that are on their way at most: what a kill leaves unmarked.
const UNDERWAY_MAX: usize = 100;
/// Failures after which the rest is not tried any more.
const FAILURES_MAX: u64 = 100;

/// A key of a destination.
type Lane = (String, Vec<u8>);

/// A record on its way.
struct Underway {
    letter: Position,
    letter_ms: Option<i64>,
    to: String,
    lane: Option<Lane>,
    at: Timestamp,
    receipt: PendingReceipt,
}

/// Sends the letters of a run.
pub(super) struct Sender {
    publisher: Publisher,
    pub(super) by: String,
    pub(super) stop: Stop,
    cluster: Cluster,
    pace: Option<Pace>,
    limit: u64,
    tried: u64,
    replayed: u64,
    failed: u64,
    /// References whose originals are gone.
    gone: u64,
    held_back: u64,
    underway: VecDeque<Underway>,
    busy: HashSet<Lane>,
    held: HashSet<Lane>,
    marks: VecDeque<PendingReceipt>,
    stopped: Option<u8>,
    /// The producer takes nothing any more.
    broken: bool,
    /// Whether it is known of every record so far if it is on the log.
    clean: bool,
    progress: Progress,
}

impl Sender {
    /// One that waits for as long as for any answer of the cluster when it is asked to stop.
    pub(super) fn new(
        publisher: Publisher,
        by: &str,
        stop: Stop,
        cluster: Cluster,
        total: u64,
    ) -> Self {
        Self {
            publisher,
            by: by.to_owned(),
            stop,
            cluster,
            pace: None,
            limit: u64::MAX,
            tried: 0,
            replayed: 0,
            failed: 0,
            gone: 0,
            held_back: 0,
            underway: VecDeque::new(),
            busy: HashSet::new(),
            held: HashSet::new(),
            marks: VecDeque::new(),
            stopped: None,
            broken: false,
            clean: true,
            progress: Progress::start(total, "letters replayed"),
        }
    }

    /// The same with at most so many records a second, and in all.
    pub(super) fn limited(self, rate: Option<u32>, limit: u64) -> Self {
        let pace = rate.map(|rate| Pace::new(rate, Instant::now()));
        Self {
            pace,
            limit,
            ..self
        }
    }

    /// Whether nothing more is tried.
    pub(super) fn is_over(&self) -> bool {
        self.stopped.is_some()
            || self.broken
            || self.tried >= self.limit
            || self.failed >= FAILURES_MAX
    }

    /// Sends the letters of a batch that are to go; whether all that was sent is known to be on the log or not, and noted.
    pub(super) async fn all(
        &mut self,
        letters: mpsc::Receiver<anyhow::Result<LogRecord>>,
        choice: &Choice,
        replays: &Replays,
        journal: &Journal,
        batch: &mut Batch,
    ) -> anyhow::Result<bool> {
        self.clean = true;
        let sent = self
            .send_each(letters, choice, replays, journal, batch)
            .await;
        self.settle(journal, batch).await?;
        sent?;
        Ok(self.clean)
    }

    async fn send_each(
        &mut self,
        mut letters: mpsc::Receiver<anyhow::Result<LogRecord>>,
        choice: &Choice,
        replays: &Replays,
        journal: &Journal,
        batch: &mut Batch,
    ) -> anyhow::Result<()> {
        while !self.is_over() {
            let Some(Some(record)) = self.until(letters.recv(), journal, batch).await? else {
                break;
            };
            let letter = Letter::new(record?);
            if let Fate::Goes(to) = choice.fate(&letter, replays) {
                self.send(letter, to, journal, batch).await?;
            }
        }
        Ok(())
    }

    /// Sends one letter when it is its turn, unless its key is held back or a signal comes.
    async fn send(
        &mut self,
        letter: Letter,
        to: Destination,
        journal: &Journal,
        batch: &mut Batch,
    ) -> anyhow::Result<()> {
        let (position, letter_ms) = (letter.position(), letter.record.timestamp_ms);
        let lane = letter.record.key.clone().map(|key| (to.topic.clone(), key));
        self.wait_for_turn(lane.as_ref(), journal, batch).await?;
        if self.stopped.is_some() {
            return Ok(());
        }
        if lane.as_ref().is_some_and(|lane| self.held.contains(lane)) {
            self.held_back += 1;
            batch.way(&to.topic).held_back += 1;
            return Ok(());
        }
        self.tried += 1;
        let Some(letter) = self.restore(letter, &to, batch).await? else {
            return Ok(());
        };
        if let Some(pace) = &mut self.pace {
            pace.goes(Instant::now());
        }
        let provenance = Provenance {
            by: &self.by,
            at: Timestamp::now(),
            edited: batch.letters.are_edited(),
        };
        let (at, topic) = (provenance.at, to.topic.clone());
        let record = replayed(letter.record, to, &provenance);
        match self.publisher.enqueue_record(record).await {
            Ok(receipt) => {
                self.busy.extend(lane.clone());
                self.underway.push_back(Underway {
                    letter: position,
                    letter_ms,
                    to: topic,
                    lane,
                    at,
                    receipt,
                });
            }
            Err(error) => {
                batch.way(&topic).failed += 1;
                self.fail(&position, lane, &error);
            }
        }
        Ok(())
    }

    /// The letter with its value, wherever that stands; none when it is gone, or a signal comes. That the original is gone is
    /// final, so that later letters of its key do not wait for it.
    async fn restore(
        &mut self,
        letter: Letter,
        to: &Destination,
        batch: &mut Batch,
    ) -> anyhow::Result<Option<Letter>> {
        if !letter.failure.is_reference {
            return Ok(Some(letter));
        }
        let (cluster, stop) = (self.cluster.clone(), self.stop.clone());
        let restoring = move || restore(&cluster, letter, &stop);
        match tokio::task::spawn_blocking(restoring).await?? {
            Restored::Whole(letter) => return Ok(Some(letter)),
            Restored::Stopped(signal) => self.stopped = Some(signal),
            Restored::Gone(letter, why) => {
                self.gone += 1;
                batch.way(&to.topic).failed += 1;
                self.progress
                    .say(&format!("evenkeel: {}: {why}", letter.position()));
            }
        }
        Ok(None)
    }

    /// Waits for the rate, for room, and until no record of the key is on its way.
    async fn wait_for_turn(
        &mut self,
        lane: Option<&Lane>,
        journal: &Journal,
        batch: &mut Batch,
    ) -> anyhow::Result<()> {
        if let Some(due) = self.pace.as_ref().map(Pace::due) {
            self.until(sleep_until(due), journal, batch).await?;
        }
        let waits = |sender: &Self| {
            sender.underway.len() >= UNDERWAY_MAX
                || lane.is_some_and(|lane| sender.busy.contains(lane))
        };
        while self.stopped.is_none() && waits(self) {
            self.settle_front(journal, batch).await?;
        }
        Ok(())
    }

    /// Waits for `event`, and settles what is acknowledged meanwhile; none when a signal came first.
    async fn until<T>(
        &mut self,
        event: impl Future<Output = T>,
        journal: &Journal,
        batch: &mut Batch,
    ) -> anyhow::Result<Option<T>> {
        let mut event = pin!(event);
        loop {
            let front = self.underway.front_mut().map(|front| &mut front.receipt);
            tokio::select! {
                biased;
                number = self.stop.signalled() => {
                    self.stopped = Some(number);
                    return Ok(None);
                }
                outcome = ready_or_never(front) => self.receive(outcome, journal, batch).await?,
                happened = &mut event => return Ok(Some(happened)),
            }
        }
    }

    /// Settles the record that was sent first, unless a signal comes before.
    async fn settle_front(&mut self, journal: &Journal, batch: &mut Batch) -> anyhow::Result<()> {
        let front = self.underway.front_mut().map(|front| &mut front.receipt);
        tokio::select! {
            biased;
            number = self.stop.signalled() => self.stopped = Some(number),
            outcome = ready_or_never(front) => self.receive(outcome, journal, batch).await?,
        }
        Ok(())
    }

    /// Notes what became of the record that was sent first.
    async fn receive(
        &mut self,
        outcome: Result<Receipt, PublishError>,
        journal: &Journal,
        batch: &mut Batch,
    ) -> anyhow::Result<()> {
        let Some(front) = self.underway.pop_front() else {
            return Ok(());
        };
        if let Some(lane) = &front.lane {
            self.busy.remove(lane);
        }
        match outcome {
            Ok(receipt) => {
                self.replayed += 1;
                batch.way(&front.to).replayed += 1;
                self.progress.advance();
                let marked = journal.mark(&front.letter, front.letter_ms, front.at, receipt);
                self.marks.push_back(marked.await?);
                if self.marks.len() > UNDERWAY_MAX
                    && let Some(mark) = self.marks.pop_front()
                {
                    mark.await.context("noting what was replayed")?;
                }
            }
            Err(error) => {
                batch.way(&front.to).failed += 1;
                self.fail(&front.letter, front.lane, &error);
            }
        }
        Ok(())
    }

    fn fail(&mut self, letter: &Position, lane: Option<Lane>, error: &PublishError) {
        self.failed += 1;
        self.broken |= matches!(error, PublishError::Fatal(_));
        self.clean &= !matches!(error, PublishError::Fatal(_) | PublishError::Unknown { .. });
        let followers = if lane.is_some() {
            "; later letters of its key are held back"
        } else {
            ""
        };
        self.progress
            .say(&format!("evenkeel: {letter}: {error}{followers}"));
        self.held.extend(lane);
        if self.failed == FAILURES_MAX {
            self.progress.say(&format!(
                "evenkeel: {FAILURES_MAX} letters failed; the rest is not tried"
            ));
        }
    }

    /// Waits for what is on its way and for its marks; after a signal not for ever.
    async fn settle(&mut self, journal: &Journal, batch: &mut Batch) -> anyhow::Result<()> {
        while self.stopped.is_none() && !self.underway.is_empty() {
            self.settle_front(journal, batch).await?;
        }
        let deadline = Instant::now() + self.cluster.timeout;
        while let Some(front) = self.underway.front_mut() {
            match timeout_at(deadline, &mut front.receipt).await {
                Ok(outcome) => self.receive(outcome, journal, batch).await?,
                Err(_) => {
                    let letters = self.underway.len();
                    self.progress.say(&format!(
                        "evenkeel: {letters} letters have no acknowledgement yet; the next replay looks for them"
                    ));
                    self.underway.clear();
                    self.clean = false;
                }
            }
        }
        while let Some(mark) = self.marks.pop_front() {
            match self.stopped {
                None => mark.await.context("noting what was replayed").map(drop)?,
                Some(_) => self.clean &= matches!(timeout_at(deadline, mark).await, Ok(Ok(_))),
            }
        }
        self.busy.clear();
        Ok(())
    }

    /// How the run ended.
    pub(super) fn ending(&self) -> Ending {
        match self.stopped {
            Some(signal) => Ending::Stopped(signal),
            None if self.failed + self.gone + self.held_back > 0 => Ending::SomeFailed,
            None => Ending::Done,
        }
    }

    /// Says in a line what was done.
    pub(super) fn summarise(self) {
        drop(self.progress);
        let stopped = if self.stopped.is_some() {
            ", stopped"
        } else {
            ""
        };
        anstream::eprintln!(
            "evenkeel: replayed {}, failed {}, held back {}{stopped}",
            self.replayed,
            self.failed + self.gone,
            self.held_back
        );
    }
}
