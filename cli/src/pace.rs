//! When the next record may go, at a rate. Pure: the present time comes in.

use std::time::Duration;
use tokio::time::Instant;

/// How late a record may be that those after it make up for: as much as timers are.
const LATENESS_MAX: Duration = Duration::from_millis(100);

/// So many records a second at most. Time in which none could go is not made up for.
pub(crate) struct Pace {
    gap: Duration,
    due: Instant,
}

impl Pace {
    pub(crate) fn new(records_a_second: u32, now: Instant) -> Self {
        Self {
            gap: Duration::from_secs(1) / records_a_second.max(1),
            due: now,
        }
    }

    /// When the next record may go.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// One goes.
    pub(crate) fn goes(&mut self, now: Instant) {
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
        let mut pace = Pace::new(10, begin);
        let mut check = |now, expected| {
            pace.goes(at(now));
            assert_eq!(pace.due(), at(expected), "one went at {now} ms");
        };
        check(0, 100);
        check(100, 200);
        check(250, 300);
        check(5_000, 5_000);
        check(5_000, 5_100);
    }
}
