//! The bounds of the store's backlog, by number and by age.
//!
//! Knows neither how the backlog is measured nor what a caller is told.

use super::settings::AdmissionSettings;
use crate::store::Backlog;
use std::time::Duration;

/// The wait while the drain rate is unknown or next to nothing.
const UNKNOWN_WAIT: Duration = Duration::from_secs(5);
/// Below this many events per second the brokers count as stopped.
const STOPPED_PER_SECOND: f64 = 0.1;
/// The longest wait that is computed: a day. The ledger bounds it further.
const WAIT_MAX_S: f64 = 86_400.0;

/// Refuses new events while too many wait, or one waits too long. Each bound is optional.
#[derive(Debug)]
pub(super) struct QueueLimit {
    events_max: Option<u64>,
    age_max: Option<Duration>,
}

/// A bound that the backlog exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExceededBound {
    /// The number of events.
    Events,
    /// The age of the oldest.
    Age,
}

/// A backlog that exceeds a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueueExcess {
    /// The bound.
    pub(super) bound: ExceededBound,
    /// Events that the brokers must take until the backlog is within the bound again.
    pub(super) events: u64,
}

impl QueueLimit {
    pub(super) fn new(settings: &AdmissionSettings) -> Self {
        Self {
            events_max: settings.backlog_events_max,
            age_max: settings.queue_age_max,
        }
    }

    /// By how much the backlog exceeds a bound, if it does.
    pub(super) fn excess(&self, backlog: &Backlog) -> Option<QueueExcess> {
        if let Some(max) = self.events_max
            && backlog.events >= max
        {
            let events = (backlog.events - max).saturating_add(1);
            return Some(QueueExcess {
                bound: ExceededBound::Events,
                events,
            });
        }
        let (max, age) = (self.age_max?, backlog.oldest_age?);
        if age <= max {
            return None;
        }
        // Events arrived evenly, as far as is known: the share of those older than the bound is
        // that of their time.
        let too_old = 1.0 - max.as_secs_f64() / age.as_secs_f64();
        let events = (backlog.events as f64 * too_old).ceil() as u64;
        Some(QueueExcess {
            bound: ExceededBound::Age,
            events: events.max(1),
        })
    }
}

impl QueueExcess {
    /// The time until the backlog is within its bound again, at this many events per second.
    pub(super) fn wait(&self, drained_per_second: Option<f64>) -> Duration {
        match drained_per_second {
            Some(rate) if rate >= STOPPED_PER_SECOND => {
                Duration::from_secs_f64((self.events as f64 / rate).min(WAIT_MAX_S))
            }
            _ => UNKNOWN_WAIT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excess(limit: &QueueLimit, events: u64, age_ms: Option<u64>) -> Option<QueueExcess> {
        let oldest_age = age_ms.map(Duration::from_millis);
        limit.excess(&Backlog {
            events,
            oldest_age,
            drained: 0,
        })
    }

    fn over(bound: ExceededBound, events: u64) -> Option<QueueExcess> {
        Some(QueueExcess { bound, events })
    }

    #[test]
    fn an_outage_fills_an_outbox_up_to_its_bound() {
        let limit = QueueLimit::new(&AdmissionSettings::outbox());
        for (events, age_ms, expected) in [
            (0, None, None),
            (6_000, Some(30_000), None),
            (999_999, Some(3_600_000), None),
            (1_000_000, Some(1), over(ExceededBound::Events, 1)),
            (1_000_100, None, over(ExceededBound::Events, 101)),
        ] {
            assert_eq!(
                excess(&limit, events, age_ms),
                expected,
                "{events} {age_ms:?}"
            );
        }
    }

    #[test]
    fn a_broker_store_is_bounded_by_age() {
        let limit = QueueLimit::new(&AdmissionSettings::brokers());
        for (events, age_ms, expected) in [
            (5_000_000, Some(1_000), None),
            (100, Some(2_000), over(ExceededBound::Age, 50)),
            (0, Some(1_001), over(ExceededBound::Age, 1)),
            (100, None, None),
        ] {
            assert_eq!(
                excess(&limit, events, age_ms),
                expected,
                "{events} {age_ms:?}"
            );
        }
    }

    #[test]
    fn the_wait_follows_from_the_drain_rate() {
        let excess = QueueExcess {
            bound: ExceededBound::Events,
            events: 1_000,
        };
        for (rate, seconds) in [
            (Some(100.0), 10),
            (None, 5),
            (Some(0.0), 5),
            (Some(f64::NAN), 5),
        ] {
            assert_eq!(excess.wait(rate), Duration::from_secs(seconds), "{rate:?}");
        }
    }
}
