//! Counts the records of a worker during a turn. They are added to the consumer's counters and
//! metrics once, at the end of the turn.
//!
//! A counter of a metric is an atomic that all threads write: one addition per record would cost as
//! much as a short handler. Until then the records count as in flight, which delays intake by at
//! most a turn.
//!
//! | settlement | run's counters | metrics |
//! |---|---|---|
//! | any | `settled` | `evenkeel_records_settled_total` by outcome |
//! | duplicate, ignored, dead, parked | one of its own as well | |
//! | abandoned | `abandoned` | |
//! | parked record that is put back | | |

use crate::consumer::shared::Shared;
use crate::consumer::state::settlement::Settlement;
use crate::telemetry::Metric;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// The counts of one worker.
pub(crate) struct Counts {
    group: String,
    topics: Vec<TopicCounts>,
    /// Records no longer in flight, settled or not.
    released: usize,
    abandoned: u64,
    handler_seconds: metrics::Histogram,
}

/// The counts of one topic, by the index of their [`Settlement`].
struct TopicCounts {
    topic: Arc<str>,
    settled: [u64; 6],
    counters: [metrics::Counter; 6],
}

impl Counts {
    /// Nothing is counted.
    pub(crate) fn new(group: &str) -> Self {
        let handler_seconds =
            metrics::histogram!(Metric::HandlerSeconds.name(), "group" => group.to_owned());
        Self {
            group: group.to_owned(),
            topics: Vec::new(),
            released: 0,
            abandoned: 0,
            handler_seconds,
        }
    }

    /// Counts a settled record.
    pub(crate) fn settled(&mut self, topic: &Arc<str>, settlement: Settlement) {
        self.released += 1;
        let known = self
            .topics
            .iter()
            .position(|counts| Arc::ptr_eq(&counts.topic, topic));
        let index = known.unwrap_or_else(|| self.add_topic(topic));
        self.topics[index].settled[settlement as usize] += 1;
    }

    /// Counts a parked record that was released and is handed out again later.
    pub(crate) fn put_back(&mut self) {
        self.released += 1;
    }

    /// Counts a record that was released unsettled.
    pub(crate) fn abandoned(&mut self) {
        self.released += 1;
        self.abandoned += 1;
    }

    /// Adds a handler's duration to the histogram. For handlers that are ready at their first poll,
    /// the mean of a burst is added once.
    pub(crate) fn record_duration(&self, duration: Duration) {
        self.handler_seconds.record(duration.as_secs_f64());
    }

    /// Adds the counts to the consumer's counters and metrics, and frees the in-flight limit.
    ///
    /// Called before each step of a turn, and before the worker sleeps: intake may wait for the
    /// room that it frees.
    pub(crate) fn report(&mut self, shared: &Shared) {
        if self.released == 0 {
            return;
        }
        let counters = &shared.counters;
        let (mut settled, mut handled) = (0, 0);
        for counts in &mut self.topics {
            for settlement in Settlement::ALL {
                let count = std::mem::take(&mut counts.settled[settlement as usize]);
                if count > 0 {
                    counts.counters[settlement as usize].increment(count);
                    counters.settled.fetch_add(count, Relaxed);
                    settled += count;
                    match settlement {
                        Settlement::Duplicate => counters.duplicates.fetch_add(count, Relaxed),
                        Settlement::Dead => counters.dead_letters.fetch_add(count, Relaxed),
                        Settlement::Parked => counters.parked.fetch_add(count, Relaxed),
                        Settlement::Ignored => counters.ignored.fetch_add(count, Relaxed),
                        Settlement::Done | Settlement::Skipped => 0,
                    };
                    handled += match settlement {
                        Settlement::Done | Settlement::Duplicate => count,
                        Settlement::Ignored
                        | Settlement::Dead
                        | Settlement::Parked
                        | Settlement::Skipped => 0,
                    };
                }
            }
        }
        shared.breakers.count_attempts(settled);
        shared.dead_letters.handled(handled);
        let abandoned = std::mem::take(&mut self.abandoned);
        counters.abandoned.fetch_add(abandoned, Relaxed);
        shared.release(std::mem::take(&mut self.released));
    }

    /// Adds a topic, with the counters of its outcomes. Returns its index.
    fn add_topic(&mut self, topic: &Arc<str>) -> usize {
        let counters = Settlement::ALL.map(|settlement| {
            let (group, topic) = (self.group.clone(), topic.to_string());
            metrics::counter!(
                Metric::Settled.name(),
                "group" => group,
                "topic" => topic,
                "outcome" => settlement.as_str()
            )
        });
        self.topics.push(TopicCounts {
            topic: Arc::clone(topic),
            settled: [0; 6],
            counters,
        });
        self.topics.len() - 1
    }
}
