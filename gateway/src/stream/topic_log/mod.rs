//! The shared reading of a topic: one reader and one ring for all its subscriptions.
//!
//! Owns the life of the readers: started by the first subscription, ended some time after the
//! last. Knows no filter and no client.
//!
//! A reader that has to be replaced (new partitions, a log that was cut, an unreadable batch)
//! continues at the ring's positions, so that subscriptions notice nothing but the gap.

mod facts;

use self::facts::FactsCache;
use crate::http::{Problem, ProblemKind};
use crate::stream::cursor::TopicIdentity;
use crate::stream::frame::StreamedEvent;
use crate::stream::ring::{Joined, LogGap, LogItem, Place, Restart, Ring, Taken};
use crate::stream::settings::StreamSettings;
use crate::stream::source::{LogReader, LogSource, TopicFacts, Trouble, problem_of};
use crate::stream::telemetry;
use evenkeel::kafka::KafkaError;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

/// How long one burst waits for a record. Bounds how late a stop is noticed.
const BURST_WAIT: Duration = Duration::from_millis(500);
/// The interval at which partitions, ids and ends are requested.
const FACTS_INTERVAL: Duration = Duration::from_secs(10);
/// The least interval of these requests, if there is a reason for one.
const FACTS_PAUSE: Duration = Duration::from_secs(1);

/// The readings of all topics that have subscriptions.
#[derive(Debug)]
pub(super) struct TopicLogs {
    pub(super) source: LogSource,
    pub(super) settings: StreamSettings,
    /// One permit for each stream that catches up.
    pub(super) catch_ups: Arc<Semaphore>,
    logs: Mutex<BTreeMap<Arc<str>, Arc<TopicLog>>>,
}

/// The reading of one topic.
#[derive(Debug)]
pub(super) struct TopicLog {
    pub(super) topic: Arc<str>,
    state: RwLock<LogState>,
    /// Counts the changes of the state.
    changes: watch::Sender<u64>,
    subscriptions: AtomicUsize,
    facts: FactsCache,
}

#[derive(Debug)]
enum LogState {
    Starting,
    Running(Option<TopicIdentity>, Ring),
    /// The reader has ended, and the log left the list.
    Ended(Problem),
}

/// The end of a ring.
#[derive(Debug)]
pub(super) struct LogEnd {
    /// The id of the topic, if the brokers know ids.
    pub(super) identity: Option<TopicIdentity>,
    /// The generation of the offsets.
    pub(super) generation: u64,
    /// The next offset of each partition.
    pub(super) next: Vec<i64>,
}

/// A subscription's share in a log, which keeps the reader running.
#[derive(Debug)]
pub(super) struct LogHandle(Arc<TopicLog>);

impl std::ops::Deref for LogHandle {
    type Target = Arc<TopicLog>;

    fn deref(&self) -> &Arc<TopicLog> {
        &self.0
    }
}

impl Drop for LogHandle {
    fn drop(&mut self) {
        self.0.subscriptions.fetch_sub(1, Ordering::Relaxed);
    }
}

impl TopicLogs {
    pub(super) fn new(source: LogSource, settings: StreamSettings) -> Self {
        Self {
            catch_ups: Arc::new(Semaphore::new(settings.catch_ups_max.max(1))),
            source,
            settings,
            logs: Mutex::default(),
        }
    }

    /// The log of a topic, which is started if it is not running. Returns when its ring is ready.
    ///
    /// # Errors
    /// If the topic does not exist or the brokers do not answer.
    pub(super) async fn open(self: &Arc<Self>, topic: &str) -> Result<LogHandle, Problem> {
        let log = self.handle(topic);
        let mut changes = log.changes.subscribe();
        let ready = async {
            loop {
                match &*log.read_state() {
                    LogState::Starting => {}
                    LogState::Running(..) => return Ok(()),
                    LogState::Ended(problem) => return Err(problem.clone()),
                }
                if changes.changed().await.is_err() {
                    return Err(ended());
                }
            }
        };
        // A connection and one request, each with its own limit.
        let ready = timeout(self.settings.broker_timeout.saturating_mul(3), ready).await;
        match ready {
            Ok(ready) => ready.map(|()| log),
            Err(_) => {
                let problem = Problem::new(ProblemKind::Unavailable, "the brokers do not answer");
                Err(problem.with_retry_after(Duration::from_secs(2)))
            }
        }
    }

    fn handle(self: &Arc<Self>, topic: &str) -> LogHandle {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let log = match logs.get(topic) {
            Some(log) => Arc::clone(log),
            None => {
                let log = Arc::new(TopicLog::new(topic));
                logs.insert(Arc::clone(&log.topic), Arc::clone(&log));
                tokio::spawn(Box::pin(run(Arc::clone(self), Arc::clone(&log))));
                log
            }
        };
        // Under the lock, so that the reader does not end in between.
        log.subscriptions.fetch_add(1, Ordering::Relaxed);
        LogHandle(log)
    }

    /// Removes a log from the list, so that the next subscription starts a new one. With
    /// `only_unused` only if it has no subscription. Returns whether it was removed.
    fn remove(&self, log: &TopicLog, only_unused: bool) -> bool {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        if only_unused && log.subscriptions.load(Ordering::Relaxed) > 0 {
            return false;
        }
        logs.remove(&log.topic);
        true
    }

    /// The facts of a topic, at most `age_max` old. Concurrent callers share one request.
    pub(super) async fn facts(
        &self,
        log: &TopicLog,
        age_max: Duration,
    ) -> Result<Arc<TopicFacts>, KafkaError> {
        let limit = self.settings.broker_timeout;
        let known = &log.facts;
        known.get(&self.source, &log.topic, age_max, limit).await
    }
}

impl TopicLog {
    fn new(topic: &str) -> Self {
        Self {
            topic: topic.into(),
            state: RwLock::new(LogState::Starting),
            changes: watch::Sender::new(0),
            subscriptions: AtomicUsize::new(0),
            facts: FactsCache::default(),
        }
    }

    /// Receives a value at each change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// See [`Ring::join`]. Returns also the id of the topic that the place is in now.
    ///
    /// # Errors
    /// The reason for which the log ended.
    pub(super) fn join(
        &self,
        place: &mut Place,
    ) -> Result<(Option<TopicIdentity>, Joined), Problem> {
        self.with_ring(|identity, ring| (identity, ring.join(place)))
    }

    /// See [`Ring::take`].
    ///
    /// # Errors
    /// The reason for which the log ended.
    pub(super) fn take(
        &self,
        place: &mut Place,
        is_wanted: impl Fn(&StreamedEvent) -> bool,
    ) -> Result<Taken, Problem> {
        self.with_ring(|_, ring| ring.take(place, is_wanted))
    }

    /// The end of the ring.
    ///
    /// # Errors
    /// The reason for which the log ended.
    pub(super) fn end(&self) -> Result<LogEnd, Problem> {
        self.with_ring(|identity, ring| LogEnd {
            identity,
            generation: ring.generation(),
            next: ring.next().to_vec(),
        })
    }

    fn with_ring<T>(
        &self,
        read: impl FnOnce(Option<TopicIdentity>, &Ring) -> T,
    ) -> Result<T, Problem> {
        match &*self.read_state() {
            LogState::Running(identity, ring) => Ok(read(*identity, ring)),
            LogState::Ended(problem) => Err(problem.clone()),
            LogState::Starting => Err(ended()),
        }
    }

    fn read_state(&self) -> std::sync::RwLockReadGuard<'_, LogState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_state(&self, state: LogState) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Changes the ring, and wakes the subscriptions.
    fn change<T>(&self, change: impl FnOnce(&mut Option<TopicIdentity>, &mut Ring) -> T) -> T
    where
        T: Default,
    {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let LogState::Running(identity, ring) = &mut *state else {
            return T::default();
        };
        let result = change(identity, ring);
        let bytes = ring.bytes();
        drop(state);
        telemetry::ring_changed(&self.topic, bytes);
        self.changes.send_modify(|changes| *changes += 1);
        result
    }

    /// Appends records to the ring.
    pub(super) fn append(&self, items: Vec<LogItem>) {
        if !items.is_empty() {
            self.change(|_, ring| items.into_iter().for_each(|item| ring.append(item)));
        }
    }

    fn append_gaps(&self, gaps: Vec<LogGap>) {
        if !gaps.is_empty() {
            self.change(|_, ring| gaps.into_iter().for_each(|gap| ring.append_gap(gap)));
        }
    }

    /// Compares the ring with the topic. Returns the positions at which to read on, if the reader
    /// has to be replaced.
    fn reconcile(&self, facts: &TopicFacts) -> Option<Vec<i64>> {
        let was_recreated = match &*self.read_state() {
            LogState::Running(Some(known), _) => facts.identity.is_some_and(|id| id != *known),
            _ => false,
        };
        let is_cut = self.is_beyond(facts);
        if was_recreated || is_cut {
            telemetry::log_restarted(&self.topic, was_recreated);
        }
        self.change(|identity, ring| {
            if facts.identity.is_some() {
                *identity = facts.identity;
            }
            if was_recreated || ring.next().len() > facts.partitions.len() {
                ring.restart(facts.lows(), Restart::Recreated);
                return Some(ring.next().to_vec());
            }
            if is_cut {
                let ends = facts
                    .partitions
                    .iter()
                    .map(|bounds| bounds.high.unwrap_or(i64::MAX));
                let cut = ring
                    .next()
                    .iter()
                    .zip(ends)
                    .map(|(next, end)| end.min(*next));
                let mut cut: Vec<i64> = cut.collect();
                cut.resize(facts.partitions.len(), 0);
                ring.restart(cut, Restart::Truncated);
                return Some(ring.next().to_vec());
            }
            ring.grow(facts.partitions.len())
                .then(|| ring.next().to_vec())
        })
    }

    /// Whether the ring is beyond the end of a partition.
    fn is_beyond(&self, facts: &TopicFacts) -> bool {
        let next = self.end().map(|end| end.next).unwrap_or_default();
        let mut ends = next.iter().zip(&facts.partitions);
        ends.any(|(next, bounds)| bounds.high.is_some_and(|high| *next > high))
    }
}

/// The answer if a log ends between two calls.
fn ended() -> Problem {
    Problem::new(
        ProblemKind::Unavailable,
        "the reading of the topic ended; try again",
    )
    .with_retry_after(Duration::from_secs(1))
}

/// Runs the reader of a topic to its end.
async fn run(logs: Arc<TopicLogs>, log: Arc<TopicLog>) {
    let problem = match follow(&logs, &log).await {
        Ok(()) => ended(),
        Err(error) => {
            telemetry::reader_failed(&log.topic, &error.to_string());
            logs.remove(&log, false);
            problem_of(&log.topic, &error)
        }
    };
    telemetry::ring_changed(&log.topic, 0);
    log.set_state(LogState::Ended(problem));
}

/// Follows the topic until no subscription needs it.
async fn follow(logs: &TopicLogs, log: &TopicLog) -> Result<(), KafkaError> {
    let facts = logs.facts(log, Duration::ZERO).await?;
    let from = facts.highs().ok_or_else(|| KafkaError::Timeout {
        what: format!("waiting for the leaders of {}", log.topic),
        seconds: logs.settings.broker_timeout.as_secs(),
    })?;
    let settings = &logs.settings;
    let ring = Ring::new(
        from.clone(),
        settings.ring_bytes_max,
        settings.ring_events_max,
    );
    let mut follower = Follower {
        logs,
        log,
        reader: logs.source.follow(&log.topic, &from).await?,
        checked: Instant::now(),
        used: Instant::now(),
    };
    log.set_state(LogState::Running(facts.identity, ring));
    telemetry::reader_started(&log.topic);
    while !follower.is_unused() {
        follower.step().await?;
    }
    telemetry::reader_stopped(&log.topic);
    Ok(())
}

/// The loop of a topic's reader.
struct Follower<'a> {
    logs: &'a TopicLogs,
    log: &'a TopicLog,
    reader: LogReader,
    /// When the facts were compared.
    checked: Instant,
    /// When there was a subscription.
    used: Instant,
}

impl Follower<'_> {
    /// Whether no subscription came for long enough. The log has left the list then.
    fn is_unused(&mut self) -> bool {
        if self.log.subscriptions.load(Ordering::Relaxed) > 0 {
            self.used = Instant::now();
        }
        self.used.elapsed() >= self.logs.settings.reader_idle && self.logs.remove(self.log, true)
    }

    /// Reads once, and reacts to what came.
    async fn step(&mut self) -> Result<(), KafkaError> {
        let burst = self.reader.burst(BURST_WAIT).await;
        self.log.append(burst.items);
        let since = self.checked.elapsed();
        let has_jumps = self.reader.has_jumps();
        let is_full = self.reader.is_full_of_jumps();
        let mut is_due = is_full || since >= FACTS_INTERVAL || (has_jumps && since >= FACTS_PAUSE);
        let mut must_reopen = false;
        match burst.trouble {
            None => {}
            Some(Trouble::Unreachable(error)) => {
                telemetry::brokers_unreachable(&self.log.topic, &error);
            }
            Some(Trouble::Unreadable(batch)) => {
                let partition = batch.partition;
                let offset = batch.offset;
                let found = self.logs.source.extent(batch).await;
                let to = found.map_or(offset + 1, |range| range.end);
                telemetry::batch_skipped(&self.log.topic, partition, offset, to);
                self.log.append_gaps(vec![LogGap {
                    partition,
                    from: offset,
                    to,
                }]);
                (is_due, must_reopen) = (true, true);
            }
            Some(Trouble::WentBack) => (is_due, must_reopen) = (true, true),
            Some(Trouble::Failed(error @ KafkaError::Refused { .. })) => return Err(error),
            Some(Trouble::Failed(error)) => {
                telemetry::retrying(&self.log.topic, &error, FACTS_PAUSE);
                sleep(FACTS_PAUSE).await;
                (is_due, must_reopen) = (true, true);
            }
        }
        let replaced = if is_due { self.check().await? } else { None };
        match replaced {
            Some(from) => self.reopen(&from).await,
            None if must_reopen => {
                let from = self.log.end().map(|end| end.next).unwrap_or_default();
                self.reopen(&from).await
            }
            None => Ok(()),
        }
    }

    async fn reopen(&mut self, from: &[i64]) -> Result<(), KafkaError> {
        self.reader = self.logs.source.follow(&self.log.topic, from).await?;
        Ok(())
    }

    /// Compares with the brokers. Returns the positions to read on at, if the reader has to be
    /// replaced.
    async fn check(&mut self) -> Result<Option<Vec<i64>>, KafkaError> {
        let facts = facts_of(self.logs, self.log).await;
        // After the answer: while the brokers do not answer, records are read between two waits.
        self.checked = Instant::now();
        let Some(mut facts) = facts? else {
            if self.reader.is_full_of_jumps() {
                // Nothing is read, and a failure is answered at once for a while.
                sleep(FACTS_PAUSE).await;
            }
            return Ok(None);
        };
        if self.log.is_beyond(&facts) {
            // An end can be reported too low for a moment, after a change of the leader.
            sleep(FACTS_PAUSE).await;
            facts = match facts_of(self.logs, self.log).await? {
                Some(facts) => facts,
                None => return Ok(None),
            };
        }
        let jumps = self.reader.take_jumps();
        self.log.append_gaps(facts.lost(jumps));
        Ok(self.log.reconcile(&facts))
    }
}

/// The facts of a topic. None if the brokers do not answer.
async fn facts_of(logs: &TopicLogs, log: &TopicLog) -> Result<Option<Arc<TopicFacts>>, KafkaError> {
    match logs.facts(log, Duration::ZERO).await {
        Ok(facts) => Ok(Some(facts)),
        Err(error @ (KafkaError::UnknownTopic { .. } | KafkaError::Refused { .. })) => Err(error),
        Err(error) => {
            telemetry::brokers_unreachable(&log.topic, &error);
            Ok(None)
        }
    }
}

#[cfg(test)]
impl TopicLogs {
    /// A log that runs without a reader: the test appends.
    pub(super) fn with_running(&self, topic: &str, positions: Vec<i64>) -> LogHandle {
        let log = Arc::new(TopicLog::new(topic));
        log.set_state(LogState::Running(None, Ring::new(positions, 1 << 20, 100)));
        log.subscriptions.fetch_add(1, Ordering::Relaxed);
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.insert(Arc::clone(&log.topic), Arc::clone(&log));
        LogHandle(log)
    }
}

#[cfg(test)]
mod tests;
