//! A count over a sliding window. Pure: the clock is an argument.
//!
//! The window is a ring of ten steps. A slot is reused when its step number has passed, so memory
//! is fixed and no timer cleans up. The price is accuracy: a sum covers the last nine full steps
//! and the present one.

use std::time::Duration;

/// The number of steps in which a window moves.
const STEPS: u64 = 10;

/// Counts events within a window. `now` is the time since any fixed instant, and never decreases.
#[derive(Debug, Clone)]
pub(crate) struct SlidingCount {
    step: Duration,
    /// The number of the step and its events, at the index of the number modulo [`STEPS`].
    counts: [(u64, u64); STEPS as usize],
}

impl SlidingCount {
    /// Creates an empty count over `length`, at least 10 ms.
    pub(crate) fn new(length: Duration) -> Self {
        Self {
            step: (length / STEPS as u32).max(Duration::from_millis(1)),
            counts: [(0, 0); STEPS as usize],
        }
    }

    /// Adds this many events to the present step. A slot of an earlier turn of the ring starts at
    /// 0.
    pub(crate) fn add(&mut self, count: u64, now: Duration) {
        let step = self.number(now);
        let (of, counted) = &mut self.counts[(step % STEPS) as usize];
        if *of != step {
            (*of, *counted) = (step, 0);
        }
        *counted = counted.saturating_add(count);
    }

    /// The number of events in the present step and the nine before it: the last `length`, less up
    /// to a step.
    pub(crate) fn sum(&self, now: Duration) -> u64 {
        let oldest = self.number(now).saturating_sub(STEPS - 1);
        let counted = self.counts.iter().filter(|(of, _)| *of >= oldest);
        counted.fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// The number of events in the steps that began since then, and at least in the present step
    /// and the one before. At least these two, because what has just begun would otherwise have no
    /// events to compare with. Never more than [`SlidingCount::sum`].
    pub(crate) fn sum_since(&self, since: Duration, now: Duration) -> u64 {
        let step = u64::try_from(self.step.as_nanos()).unwrap_or(u64::MAX);
        let began = u64::try_from(since.as_nanos())
            .unwrap_or(u64::MAX)
            .div_ceil(step.max(1));
        let present = self.number(now);
        let oldest = began
            .min(present.saturating_sub(1))
            .max(present.saturating_sub(STEPS - 1));
        let counted = self.counts.iter().filter(|(of, _)| *of >= oldest);
        counted.fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// The number of the step that contains `now`.
    fn number(&self, now: Duration) -> u64 {
        u64::try_from(now.as_nanos() / self.step.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counts_older_than_its_length_are_forgotten() {
        let ms = Duration::from_millis;
        let mut window = SlidingCount::new(ms(100));
        window.add(1, ms(0));
        window.add(2, ms(55));
        let check = |now, expected| assert_eq!(window.sum(ms(now)), expected, "at {now} ms");
        check(55, 3);
        check(99, 3);
        check(100, 2);
        check(149, 2);
        check(150, 0);
        check(1_000_000, 0);
    }

    /// It covers at least two steps.
    #[test]
    fn a_sum_since_a_time_covers_whole_steps() {
        let ms = Duration::from_millis;
        let mut window = SlidingCount::new(ms(100));
        for (at, count) in [(5, 1), (15, 2), (35, 4), (55, 8)] {
            window.add(count, ms(at));
        }
        let check = |since, now, expected| {
            let sum = window.sum_since(ms(since), ms(now));
            assert_eq!(sum, expected, "since {since} at {now} ms");
        };
        check(0, 59, 15);
        check(10, 59, 14);
        check(11, 59, 12);
        check(31, 59, 8);
        check(58, 59, 8);
        check(58, 62, 8);
        check(58, 70, 0);
        check(0, 149, 8);
        check(0, 150, 0);
    }

    proptest! {
        #[test]
        fn it_counts_its_length_to_a_step(
            length_ms in 1..100_000_u64,
            steps in proptest::collection::vec((0..10_000_u64, 0..100_u64), 1..50),
        ) {
            let length = Duration::from_millis(length_ms);
            let mut window = SlidingCount::new(length);
            let (mut now, mut all) = (Duration::ZERO, Vec::new());
            for (pause_ms, count) in steps {
                now += Duration::from_millis(pause_ms);
                window.add(count, now);
                all.push((now, count));
            }
            let since = |age: Duration| -> u64 {
                all.iter().filter(|(at, _)| now - *at < age).map(|(_, count)| count).sum()
            };
            let length = length.max(Duration::from_millis(10));
            let sum = window.sum(now);
            prop_assert!(since(length - window.step) <= sum && sum <= since(length + window.step), "{sum}");
        }
    }
}
