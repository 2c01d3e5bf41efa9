//! Adjusts the rate to the number of orders per second that this machine can process.
//!
//! Pure. Checks samples and lowers the rate if lag grows: the demo shows services at work, not a
//! queue.

use crate::monitoring::rates::{LAG_MAX_S, seconds_of_work};
use crate::monitoring::sample::Sample;
use std::time::{Duration, Instant};

/// Number of consecutive samples above the maximum before the rate is lowered. A rebalance at the
/// start is shorter.
const SAMPLES: u32 = 3;
/// How long a lower rate has to reduce the lag before it is lowered again.
const PATIENCE: Duration = Duration::from_secs(5);
/// The next rate as a share of the handled rate. Below 1, so that the lag is reduced too.
const SHARE: f64 = 0.7;
/// Minimum of the next rate as a share of the current one, because a single sample may be an
/// outlier.
const SHARE_MIN: f64 = 0.5;
/// The minimum rate.
const RATE_MIN: u32 = 5;

/// The last samples, and the current rate.
pub(super) struct RateControl {
    rate: u32,
    before: Option<(Instant, Sample)>,
    behind: u32,
    quiet_until: Option<Instant>,
}

impl RateControl {
    /// Starts now: the groups' first assignments do not measure the machine.
    pub(super) fn new(now: Instant, rate: u32) -> Self {
        Self {
            rate,
            before: None,
            behind: 0,
            quiet_until: Some(now + PATIENCE),
        }
    }

    /// Processes a sample whose positions, read at `now`, are new. Returns the new rate and a
    /// message if the rate must be lowered.
    pub(super) fn observe(&mut self, now: Instant, sample: &Sample) -> Option<(u32, String)> {
        let (then, before) = self.before.replace((now, sample.clone()))?;
        if before.known() != sample.known() {
            // The records of a partition that had not answered are not the work of this second.
            return None;
        }
        let seconds = now.duration_since(then).as_secs_f64().max(0.001);
        let handled = (sample.settled() - before.settled()).max(0) as f64 / seconds;
        let come = handled + (sample.lag() - before.lag()) as f64 / seconds;
        let waits = seconds_of_work(sample.lag(), handled);
        let is_behind = waits > LAG_MAX_S;
        self.behind = if is_behind { self.behind + 1 } else { 0 };
        if self.quiet_until.is_some_and(|until| now < until) || self.behind < SAMPLES {
            return None;
        }
        // The handled share of orders and their follow-up events.
        let share = ((handled / come.max(1.0)).min(1.0) * SHARE).max(SHARE_MIN);
        let rate = (f64::from(self.rate) * share).round() as u32;
        let rate = (rate / 5 * 5).max(RATE_MIN);
        if rate >= self.rate {
            return None;
        }
        let line = format!(
            "{} orders/s are more than this machine handles now (lag {waits:.1} s); continuing \
             with {rate}/s",
            self.rate
        );
        self.rate = rate;
        (self.behind, self.quiet_until) = (0, Some(now + PATIENCE));
        Some((rate, line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitoring::sample::Progress;

    fn sample(lag: i64, settled: i64) -> Sample {
        let progress = Progress {
            lag,
            settled,
            effects: 5,
            known: 1,
            unknown: 0,
        };
        Sample {
            services: [("payments", progress)].into(),
            ..Sample::default()
        }
    }

    /// The messages on a machine that settles `capacity` records per second, at 5 records per
    /// order.
    fn carried(capacity: i64, seconds: u64) -> (u32, Vec<String>, f64) {
        let (start, mut rate) = (Instant::now(), 200);
        let mut pace = RateControl::new(start, rate);
        let (mut lag, mut settled, mut lines) = (0, 0, Vec::new());
        for second in 0..seconds {
            lag += i64::from(rate) * 5;
            let handled = lag.min(capacity);
            (lag, settled) = (lag - handled, settled + handled);
            let now = start + Duration::from_secs(second);
            if let Some((lower, line)) = pace.observe(now, &sample(lag, settled)) {
                rate = lower;
                lines.push(line);
            }
        }
        (rate, lines, lag as f64 / capacity as f64)
    }

    #[test]
    fn a_machine_that_keeps_up_is_left_alone() {
        let (rate, lines, _) = carried(1_100, 60);
        assert_eq!((rate, lines.len()), (200, 0), "{lines:?}");
    }

    #[test]
    fn a_slower_machine_is_asked_for_less_until_little_waits() {
        for capacity in [700, 400, 200] {
            let (rate, lines, waits) = carried(capacity, 120);
            assert!(i64::from(rate) * 5 <= capacity, "{capacity}: {rate}");
            assert!(waits < LAG_MAX_S, "{capacity}: {waits} s wait");
            assert!(lines[0].starts_with("200 orders/s are more"), "{lines:?}");
        }
    }
}
