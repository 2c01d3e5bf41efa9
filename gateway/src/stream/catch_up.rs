//! Catching up: a stream that is behind the ring reads from the brokers up to the ring's end.
//!
//! Owns the turns of the streams that catch up. Knows one topic and one place at a time.
//!
//! # Bounds
//! A turn has a permit and a reader of its own. It ends at the ring's end, after [`TURN_MAX`], or
//! if the stream does not take what was read; the stream then joins the ring, or waits for another
//! turn behind the others. What was read and not taken is at most two chunks.

use super::frame::Filter;
use super::ring::{LogEntry, LogGap, RingItem};
use super::source::{Burst, Trouble, problem_of};
use super::telemetry;
use super::topic_log::{TopicLog, TopicLogs};
use crate::http::Problem;
use evenkeel::kafka::KafkaError;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

/// The longest turn.
const TURN_MAX: Duration = Duration::from_secs(30);
/// How long one burst waits for a record.
const BURST_WAIT: Duration = Duration::from_millis(200);
/// The pause after an error of the brokers, before the stream may ask for another turn.
const ERROR_PAUSE: Duration = Duration::from_secs(1);
/// The age up to which the first offsets of the topic count as known at the start of a turn.
const FACTS_AGE_MAX: Duration = Duration::from_secs(1);

/// What was read in a turn.
#[derive(Debug)]
pub(super) enum CaughtUp {
    /// Events of the stream, and the positions after them and after all other records.
    Chunk(VecDeque<RingItem>, Vec<i64>),
    /// The stream cannot continue.
    Failed(Problem),
}

/// Starts a turn from these positions up to `end`. The channel closes at its end. Dropping the
/// receiver ends it.
pub(super) fn start(
    logs: &Arc<TopicLogs>,
    log: &Arc<TopicLog>,
    filter: &Arc<Filter>,
    from: Vec<i64>,
    end: Vec<i64>,
) -> mpsc::Receiver<CaughtUp> {
    let (sender, receiver) = mpsc::channel(1);
    let turn = Turn {
        logs: Arc::clone(logs),
        log: Arc::clone(log),
        filter: Arc::clone(filter),
        sender,
    };
    tokio::spawn(Box::pin(turn.run(from, end)));
    receiver
}

struct Turn {
    logs: Arc<TopicLogs>,
    log: Arc<TopicLog>,
    filter: Arc<Filter>,
    sender: mpsc::Sender<CaughtUp>,
}

/// The stream is gone, or takes nothing.
struct NotTaken;

impl Turn {
    async fn run(self, from: Vec<i64>, end: Vec<i64>) {
        let permit = tokio::select! {
            permit = Arc::clone(&self.logs.catch_ups).acquire_owned() => permit,
            () = self.sender.closed() => return,
        };
        telemetry::catch_up_started(&self.log.topic);
        let read = self.read(from, end).await;
        // The pause is for this stream, and not for those that wait for a turn.
        drop(permit);
        match read {
            Ok(()) => {}
            Err(error @ (KafkaError::UnknownTopic { .. } | KafkaError::Refused { .. })) => {
                let problem = problem_of(&self.log.topic, &error);
                let _ = self.sender.send(CaughtUp::Failed(problem)).await;
            }
            Err(error) => {
                telemetry::brokers_unreachable(&self.log.topic, &error);
                tokio::select! {
                    () = sleep(ERROR_PAUSE) => {}
                    () = self.sender.closed() => {}
                }
            }
        }
    }

    /// Reads up to the end, or for the longest time of a turn.
    async fn read(&self, mut from: Vec<i64>, end: Vec<i64>) -> Result<(), KafkaError> {
        // The ring has moved on while the stream waited for its turn.
        let end = self.log.end().map_or(end, |end| end.next);
        from.resize(end.len(), 0);
        let facts = self.logs.facts(&self.log, FACTS_AGE_MAX).await?;
        let mut chunk = VecDeque::new();
        for (partition, (position, low)) in (0..).zip(from.iter_mut().zip(facts.lows())) {
            if *position < low {
                chunk.push_back(RingItem::Gap(LogGap {
                    partition,
                    from: *position,
                    to: low,
                }));
                *position = low;
            }
        }
        if self.send(chunk, from.clone()).await.is_err() {
            return Ok(());
        }
        let mut reader = self.logs.source.read(&self.log.topic, &from, &end).await?;
        let began = Instant::now();
        loop {
            let mut burst = reader.burst(BURST_WAIT).await;
            let trouble = burst.trouble.take();
            let is_over = burst.at_end || began.elapsed() >= TURN_MAX || trouble.is_some();
            // At the end, the last offsets of a partition may hold no records.
            let has_all = burst.at_end && trouble.is_none();
            let reached = if has_all { end.clone() } else { reader.next() };
            let chunk = self.wanted(burst);
            if self.send(chunk, reached).await.is_err() {
                return Ok(());
            }
            if let Some(trouble) = trouble {
                return self.after(trouble).await;
            }
            if is_over {
                return Ok(());
            }
        }
    }

    /// The gaps of the burst, and the events that the stream wants.
    fn wanted(&self, burst: Burst) -> VecDeque<RingItem> {
        let wanted = burst.items.into_iter().filter_map(|entry| match entry {
            LogEntry::Item(item) => {
                let event = item.event.filter(|event| self.filter.matches(event));
                event.map(RingItem::Event)
            }
            LogEntry::Gap(gap) => Some(RingItem::Gap(gap)),
        });
        wanted.collect()
    }

    async fn send(&self, items: VecDeque<RingItem>, reached: Vec<i64>) -> Result<(), NotTaken> {
        let limit = self.logs.settings.slow_client_timeout;
        let sent = self
            .sender
            .send_timeout(CaughtUp::Chunk(items, reached), limit)
            .await;
        sent.map_err(|_| NotTaken)
    }

    /// What follows after the reader had to stop.
    async fn after(&self, trouble: Trouble) -> Result<(), KafkaError> {
        match trouble {
            // The shared reader finds out what happened to the log.
            Trouble::WentBack(_) => {
                sleep(ERROR_PAUSE).await;
                Ok(())
            }
            Trouble::Unreadable(batch) => {
                let (partition, from) = (batch.partition, batch.offset);
                let range = self.logs.source.extent(batch).await?;
                let gap = LogGap {
                    partition,
                    from,
                    to: range.end,
                };
                telemetry::batch_skipped(&self.log.topic, partition, from, range.end);
                let _ = self.send([RingItem::Gap(gap)].into(), Vec::new()).await;
                Ok(())
            }
            Trouble::Unreachable(error) | Trouble::Failed(error) => Err(error),
        }
    }
}
