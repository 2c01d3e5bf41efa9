//! How many events per second the brokers take from the store's backlog.
//!
//! Owns the average. Knows neither the store nor the use of the number.

use crate::store::Backlog;
use std::time::Duration;
use tokio::time::Instant;

/// The time between two measurements. Shorter ones would count the steps of the backlog's refresh.
const INTERVAL: Duration = Duration::from_secs(1);
/// The time constant of the average: after this time an old rate weighs about a third.
const TIME_CONSTANT_S: f64 = 5.0;

/// The moving average of the differences of [`Backlog::drained`]. Measures only while events wait:
/// an empty backlog drains as fast as events come, which says nothing about the brokers.
#[derive(Debug, Default)]
pub(super) struct DrainRate {
    last: Option<(u64, Instant)>,
    per_second: Option<f64>,
}

impl DrainRate {
    /// Takes the backlog as of now into account.
    pub(super) fn observe(&mut self, backlog: &Backlog, now: Instant) {
        let here = Some((backlog.drained, now));
        let Some((drained, at)) = self.last else {
            self.last = here;
            return;
        };
        let elapsed = now.saturating_duration_since(at);
        if backlog.events == 0 || backlog.drained < drained {
            // Nothing waits, or the store was opened again.
            self.last = here;
            return;
        }
        if elapsed < INTERVAL {
            return;
        }
        let seconds = elapsed.as_secs_f64();
        let measured = (backlog.drained - drained) as f64 / seconds;
        self.per_second = Some(match self.per_second {
            None => measured,
            Some(average) => {
                let weight = 1.0 - (-seconds / TIME_CONSTANT_S).exp();
                average + weight * (measured - average)
            }
        });
        self.last = here;
    }

    /// Events per second, or none until it was measured.
    pub(super) fn per_second(&self) -> Option<f64> {
        self.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backlog(events: u64, drained: u64) -> Backlog {
        Backlog {
            events,
            drained,
            oldest_age: None,
        }
    }

    /// The rate after backlogs of `(second, events, drained)`.
    fn measured(observations: &[(u64, u64, u64)]) -> Option<f64> {
        let start = Instant::now();
        let mut rate = DrainRate::default();
        for (second, events, drained) in observations {
            let now = start + Duration::from_secs(*second);
            rate.observe(&backlog(*events, *drained), now);
        }
        rate.per_second()
    }

    #[test]
    fn the_rate_is_unknown_until_measured() {
        assert_eq!(measured(&[]), None);
        assert_eq!(measured(&[(0, 10, 0)]), None);
        assert_eq!(measured(&[(0, 10, 0), (0, 10, 5)]), None);
    }

    #[test]
    fn a_steady_drain_is_measured_exactly() {
        let steady: Vec<_> = (0..10)
            .map(|second| (second, 1_000, second * 200))
            .collect();
        let rate = measured(&steady).expect("a rate");
        assert!((rate - 200.0).abs() < 1e-6, "{rate}");
    }

    #[test]
    fn a_stop_of_the_brokers_brings_the_rate_to_zero() {
        let mut observations = vec![(0, 1_000, 0), (1, 1_000, 200)];
        observations.extend((2..60).map(|second| (second, 1_000, 200)));
        let rate = measured(&observations).expect("a rate");
        assert!(rate < 1.0, "{rate}");
    }

    #[test]
    fn an_empty_backlog_and_a_reopened_store_measure_nothing() {
        assert_eq!(measured(&[(0, 0, 0), (1, 0, 10), (2, 0, 20)]), None);
        assert_eq!(measured(&[(0, 10, 500), (1, 10, 0)]), None);
    }
}
