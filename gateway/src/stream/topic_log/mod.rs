//! The shared reading of a topic: one reader and one ring for all its subscriptions.
//!
//! Owns the life of the readers: started by the first subscription, ended some time after the
//! last. Knows no filter and no client.
//!
//! A reader that has to be replaced (new partitions, a log that was cut, an unreadable batch)
//! continues at the ring's positions, so that subscriptions notice nothing but the gap.
//!
//! Requests about the topic run beside the reading, which a slow answer does not delay. Gaps come
//! into the ring in the order of the log, before any later record of their partition: no cursor
//! passes a gap before it is reported.
//!
//! # Logs that were cut
//! An unclean election of a leader cuts a log, which may grow again beyond the ring. It is noticed
//! by an end below the ring, or by the client, which compares leader epochs when the leader changes
//! and goes back to where the logs diverge. It is not noticed if the log grew again while no
//! gateway read the topic: a cursor has no leader epoch. Nor if the reader had read no record since
//! it was opened, or if the log was replaced from its first record on.
//!
//! A client whose offset is out of range goes back, too: to the first record of the log. That is no
//! divergence, and the ends tell what was cut. It is told from one by the records before the place:
//! there are none.

mod facts;
mod shared_log;

pub(super) use self::shared_log::{LogEnd, TopicLog};

use self::shared_log::{LogState, ended, is_at_end, is_beyond};
use crate::http::{Problem, ProblemKind};
use crate::stream::ring::{LogGap, Ring};
use crate::stream::settings::StreamSettings;
use crate::stream::source::{LogReader, LogSource, PlaceOfReturn, TopicFacts, Trouble, problem_of};
use crate::stream::telemetry;
use evenkeel::kafka::KafkaError;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// How long one burst waits for a record. Bounds how late a stop is noticed.
const BURST_WAIT: Duration = Duration::from_millis(500);
/// The interval at which partitions, ids and ends are requested.
const FACTS_INTERVAL: Duration = Duration::from_secs(10);
/// The pause before another request, if an answer is doubtful or there is none.
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
        let mut changes = log.changes();
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
async fn follow(logs: &Arc<TopicLogs>, log: &Arc<TopicLog>) -> Result<(), KafkaError> {
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
        request: None,
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
    logs: &'a Arc<TopicLogs>,
    log: &'a Arc<TopicLog>,
    reader: LogReader,
    /// When the facts were compared.
    checked: Instant,
    /// The request for the facts that is under way, and the ring's positions before it.
    request: Option<(Vec<i64>, JoinHandle<FactsAnswer>)>,
    /// When there was a subscription.
    used: Instant,
}

/// The facts. None if the brokers do not answer.
type FactsAnswer = Result<Option<Arc<TopicFacts>>, KafkaError>;

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
        let mut must_reopen = false;
        match burst.trouble {
            None => {}
            Some(Trouble::Unreachable(error)) => {
                telemetry::brokers_unreachable(&self.log.topic, &error);
            }
            Some(Trouble::Unreadable(batch)) => {
                let (partition, from) = (batch.partition, batch.offset);
                let found = self.logs.source.extent(batch).await;
                let to = found.map_or(from + 1, |range| range.end);
                telemetry::batch_skipped(&self.log.topic, partition, from, to);
                self.log.append(vec![LogGap {
                    partition,
                    from,
                    to,
                }]);
                must_reopen = true;
            }
            Some(Trouble::WentBack(place)) => return self.go_back(place).await,
            Some(Trouble::Failed(error @ KafkaError::Refused { .. })) => return Err(error),
            Some(Trouble::Failed(error)) => {
                telemetry::retrying(&self.log.topic, &error, FACTS_PAUSE);
                sleep(FACTS_PAUSE).await;
                // The topic may have been deleted.
                self.request_facts();
                must_reopen = true;
            }
        }
        let replaced = self.compare().await?;
        match replaced.or_else(|| must_reopen.then(|| self.log.positions())) {
            Some(from) => self.reopen(&from).await,
            None => Ok(()),
        }
    }

    async fn reopen(&mut self, from: &[i64]) -> Result<(), KafkaError> {
        self.reader = self.logs.source.follow(&self.log.topic, from).await?;
        Ok(())
    }

    /// Requests the facts, unless a request is under way.
    fn request_facts(&mut self) {
        if self.request.is_some() {
            return;
        }
        let before = self.log.positions();
        let (logs, log, asked) = (Arc::clone(self.logs), Arc::clone(self.log), before.clone());
        let answer = async move { confirmed_facts(&logs, &log, &asked).await };
        self.request = Some((before, tokio::spawn(Box::pin(answer))));
    }

    /// Compares with the brokers now and then. Waits for no answer. Returns the positions to read
    /// on at, if the reader has to be replaced.
    async fn compare(&mut self) -> Result<Option<Vec<i64>>, KafkaError> {
        if self.checked.elapsed() >= FACTS_INTERVAL {
            self.request_facts();
        }
        let answered = self.request.take_if(|(_, answer)| answer.is_finished());
        let Some((before, answer)) = answered else {
            return Ok(None);
        };
        self.checked = Instant::now();
        // A request that panicked is one without an answer.
        let facts = answer.await.unwrap_or(Ok(None))?;
        Ok(facts.and_then(|facts| self.log.reconcile(&before, None, &facts)))
    }

    /// Replaces the reader, which went back to a passed offset. Nothing is read before it is known
    /// what the positions mean now.
    async fn go_back(&mut self, place: Option<PlaceOfReturn>) -> Result<(), KafkaError> {
        // Its positions are those of the log before.
        self.request = None;
        let before = self.log.positions();
        let (facts, is_cut) = loop {
            if let Some(facts) = confirmed_facts(self.logs, self.log, &before).await?
                && let Some(found) = is_divergence(self.logs, self.log, place, &facts).await?
            {
                break (facts, found);
            }
            sleep(FACTS_PAUSE).await;
        };
        let cut = place.filter(|_| is_cut);
        let cut = cut.map(|place| (place.partition, place.offset));
        self.checked = Instant::now();
        let replaced = self.log.reconcile(&before, cut, &facts);
        let from = replaced.unwrap_or_else(|| self.log.positions());
        self.reopen(&from).await
    }
}

/// Whether a reader went back because the logs diverge there. None if the brokers do not answer.
async fn is_divergence(
    logs: &TopicLogs,
    log: &TopicLog,
    place: Option<PlaceOfReturn>,
    facts: &TopicFacts,
) -> Result<Option<bool>, KafkaError> {
    match place {
        Some(place) if !is_at_end(place, facts) => {
            answered(log, logs.source.has_record_before(&log.topic, place).await)
        }
        _ => Ok(Some(false)),
    }
}

/// The facts of a topic. Asks again if a position is beyond the end of a partition: an end can be
/// reported too low for a moment, after a change of the leader.
async fn confirmed_facts(logs: &TopicLogs, log: &TopicLog, positions: &[i64]) -> FactsAnswer {
    match facts_of(logs, log).await? {
        Some(facts) if is_beyond(positions, &facts) => {
            sleep(FACTS_PAUSE).await;
            facts_of(logs, log).await
        }
        facts => Ok(facts),
    }
}

/// The facts of a topic. None if the brokers do not answer.
async fn facts_of(logs: &TopicLogs, log: &TopicLog) -> FactsAnswer {
    answered(log, logs.facts(log, Duration::ZERO).await)
}

/// The answer to a request. None if the brokers do not give one, which is logged.
fn answered<T>(log: &TopicLog, answer: Result<T, KafkaError>) -> Result<Option<T>, KafkaError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
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
