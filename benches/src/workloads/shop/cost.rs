//! Processor time by process, and what an effect takes of it.

use crate::measure::usage::{Usage, UsageReading};
use anyhow::Context;
use std::collections::BTreeMap;
use std::time::Duration;

/// What every process has used so far, by its name.
pub(super) struct Readings(Vec<(String, UsageReading)>);

/// The time between two readings, and the processor time of each process.
#[derive(Debug)]
pub(super) struct Cost(Vec<(String, Usage)>);

impl Readings {
    /// The readings of these processes, and of this one, which places the orders.
    pub(super) fn of<'a>(processes: impl Iterator<Item = (&'a str, u32)>) -> Self {
        let reading = |(name, pid): (&str, u32)| (name.to_owned(), UsageReading::of_child(pid));
        let own = [("bench".to_owned(), UsageReading::now())];
        Self(own.into_iter().chain(processes.map(reading)).collect())
    }

    /// The difference to `earlier`, of the same processes.
    pub(super) fn since(&self, earlier: &Self) -> anyhow::Result<Cost> {
        let both = self.0.iter().zip(&earlier.0);
        let used = both.map(|((name, now), (_, then))| {
            let used = now.since(then).with_context(|| format!("of {name}"))?;
            Ok((name.clone(), used))
        });
        Ok(Cost(used.collect::<anyhow::Result<_>>()?))
    }
}

impl Cost {
    /// The time between the readings.
    pub(super) fn wall(&self) -> Duration {
        self.0.first().map_or(Duration::ZERO, |(_, used)| used.wall)
    }

    /// Processor time of all processes, by effect, in microseconds.
    pub(super) fn us_per_effect(&self, effects: u64) -> f64 {
        self.shares(effects).values().sum()
    }

    /// The share of each process in that, as details such as `payments-1_us`.
    pub(super) fn shares(&self, effects: u64) -> BTreeMap<String, f64> {
        let share = |(name, used): &(String, Usage)| {
            let us = used.processor.as_secs_f64() * 1e6 / effects as f64;
            (format!("{name}_us"), us)
        };
        self.0.iter().map(share).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_all_processes_add_up() {
        let used = |name: &str, ms| {
            let used = Usage {
                wall: Duration::from_secs(2),
                processor: Duration::from_millis(ms),
            };
            (name.to_owned(), used)
        };
        let cost = Cost(vec![used("bench", 10), used("a-1", 20), used("a-2", 90)]);
        assert_eq!(cost.wall(), Duration::from_secs(2));
        assert_eq!(cost.us_per_effect(1_000), 120.0);
        assert_eq!(cost.shares(1_000)["a-2_us"], 90.0);
    }

    #[test]
    fn this_process_is_among_the_readings() {
        let first = Readings::of(std::iter::empty());
        let cost = Readings::of(std::iter::empty()).since(&first);
        let cost = cost.expect("it runs on Linux");
        let names: Vec<String> = cost.shares(1).into_keys().collect();
        assert_eq!(names, ["bench_us"]);
    }
}
