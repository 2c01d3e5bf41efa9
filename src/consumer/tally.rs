//! What a worker counts in a turn, reported to the consumer's counters and metrics once at its end.

use super::engine::Engine;
use crate::handler::Outcome;
use crate::recovery::parked::Wait;
use crate::telemetry::Metric;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How a record was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settlement {
    Done,
    Duplicate,
    Ignored,
    Dead,
    /// An operator had it skipped.
    Skipped,
    /// It stands in the retry topic.
    Parked,
}

impl Settlement {
    const ALL: [Self; 6] = [
        Self::Done,
        Self::Duplicate,
        Self::Ignored,
        Self::Dead,
        Self::Skipped,
        Self::Parked,
    ];

    /// How an outcome settles its record, or the outcome itself where it has to be recovered from.
    pub(crate) fn of(outcome: Outcome) -> Result<Self, Outcome> {
        match outcome {
            Outcome::Done => Ok(Self::Done),
            Outcome::Duplicate => Ok(Self::Duplicate),
            Outcome::Ignored => Ok(Self::Ignored),
            outcome => Err(outcome),
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Duplicate => "duplicate",
            Self::Ignored => "ignored",
            Self::Dead => "dead",
            Self::Skipped => "skipped",
            Self::Parked => "parked",
        }
    }
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It counts as handled.
    Settled(Settlement),
    /// A parked record failed again, and waits again.
    PutBack(Wait),
    /// It was let go unsettled: its partition is another member's now, or the consumer stops.
    Abandoned,
}

/// One worker's counts.
pub(crate) struct Tally {
    group: String,
    topics: Vec<TopicTally>,
    /// Records that left intake, settled or not.
    left: usize,
    abandoned: u64,
    handler_seconds: metrics::Histogram,
}

struct TopicTally {
    topic: Arc<str>,
    settled: [u64; 6],
    counters: [metrics::Counter; 6],
}

impl Tally {
    pub(crate) fn new(group: &str) -> Self {
        let handler_seconds =
            metrics::histogram!(Metric::HandlerSeconds.name(), "group" => group.to_owned());
        Self {
            group: group.to_owned(),
            topics: Vec::new(),
            left: 0,
            abandoned: 0,
            handler_seconds,
        }
    }

    /// A record was settled.
    pub(crate) fn settled(&mut self, topic: &Arc<str>, settlement: Settlement) {
        self.left += 1;
        let known = self
            .topics
            .iter()
            .position(|tally| Arc::ptr_eq(&tally.topic, topic));
        let index = known.unwrap_or_else(|| self.add_topic(topic));
        self.topics[index].settled[settlement as usize] += 1;
    }

    /// A parked record left, and comes again in its turn.
    pub(crate) fn put_back(&mut self) {
        self.left += 1;
    }

    /// A record was let go unsettled.
    pub(crate) fn abandoned(&mut self) {
        self.left += 1;
        self.abandoned += 1;
    }

    /// A handler took that long. For handlers that are ready at once the mean of a burst is told, once per burst.
    pub(crate) fn handler_ran_for(&self, duration: Duration) {
        self.handler_seconds.record(duration.as_secs_f64());
    }

    /// Adds everything counted to the consumer's counters and metrics, and makes room for intake.
    pub(crate) fn report(&mut self, engine: &Engine) {
        if self.left == 0 {
            return;
        }
        let counters = &engine.counters;
        let (mut handled, mut answered) = (0, 0);
        for tally in &mut self.topics {
            for settlement in Settlement::ALL {
                let count = std::mem::take(&mut tally.settled[settlement as usize]);
                if count > 0 {
                    tally.counters[settlement as usize].increment(count);
                    counters.settled.fetch_add(count, Relaxed);
                    handled += count;
                    match settlement {
                        Settlement::Duplicate => counters.duplicates.fetch_add(count, Relaxed),
                        Settlement::Dead => counters.dead_letters.fetch_add(count, Relaxed),
                        Settlement::Parked => counters.parked.fetch_add(count, Relaxed),
                        Settlement::Ignored => counters.ignored.fetch_add(count, Relaxed),
                        Settlement::Done | Settlement::Skipped => 0,
                    };
                    answered += match settlement {
                        Settlement::Done | Settlement::Duplicate => count,
                        Settlement::Ignored
                        | Settlement::Dead
                        | Settlement::Parked
                        | Settlement::Skipped => 0,
                    };
                }
            }
        }
        engine.breakers.others(handled);
        engine.dead_letters.handled(answered);
        let abandoned = std::mem::take(&mut self.abandoned);
        counters.abandoned.fetch_add(abandoned, Relaxed);
        engine.left(std::mem::take(&mut self.left));
    }

    fn add_topic(&mut self, topic: &Arc<str>) -> usize {
        let counters = Settlement::ALL.map(|settlement| {
            let (group, topic) = (self.group.clone(), topic.to_string());
            metrics::counter!(Metric::Settled.name(), "group" => group, "topic" => topic, "outcome" => settlement.as_str())
        });
        self.topics.push(TopicTally {
            topic: Arc::clone(topic),
            settled: [0; 6],
            counters,
        });
        self.topics.len() - 1
    }
}
