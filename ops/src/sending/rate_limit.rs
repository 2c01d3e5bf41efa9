//! A rate limit: the time of the next record. Pure: the caller passes the current time.
//!
//! Records have equal gaps instead of bursts: a replay or drill must not look like a flood to the
//! members that handle it.

use std::time::Duration;
use tokio::time::Instant;

/// The maximum lateness that later records compensate for: the accuracy of timers.
const LATENESS_MAX: Duration = Duration::from_millis(100);

/// Limits the records per second. Idle time is not compensated for.
pub(crate) struct RateLimit {
    gap: Duration,
    due: Instant,
}

impl RateLimit {
    pub(crate) fn new(records_a_second: u32, now: Instant) -> Self {
        Self {
            gap: Duration::from_secs(1) / records_a_second.max(1),
            due: now,
        }
    }

    /// The time at which the next record may be sent.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// Notes that a record is sent: the next one is due a gap after the time when this one was due,
    /// or, if this one was late, after `now` less [`LATENESS_MAX`].
    pub(crate) fn record_sent(&mut self, now: Instant) {
        let earliest = now.checked_sub(LATENESS_MAX).unwrap_or(now);
        self.due = self.due.max(earliest) + self.gap;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_go_at_their_rate_and_lost_time_is_lost() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut limit = RateLimit::new(10, begin);
        let mut check = |now, expected| {
            limit.record_sent(at(now));
            assert_eq!(limit.due(), at(expected), "one went at {now} ms");
        };
        check(0, 100);
        check(100, 200);
        check(250, 300);
        check(5_000, 5_000);
        check(5_000, 5_100);
    }
}
