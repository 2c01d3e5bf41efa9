//! Rates over the last seconds, and lag in seconds of work. Pure.
//!
//! The groups commit once per second, and a sample is taken once per second. The difference of two
//! samples may therefore hold two commits or none, so the rates are those of a longer window.

use super::sample::Sample;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// The aim of a load: a lag of at most this many seconds of work. Up to one second of it is the
/// interval between commits.
pub(crate) const LAG_MAX_S: f64 = 2.0;

/// The period over which records per second are counted.
const WINDOW: Duration = Duration::from_secs(5);

/// The seconds that a lag takes at this number of settled records per second. A group that settles
/// nothing counts as if it settled one record per second.
pub(crate) fn seconds_of_work(lag: i64, settled_per_s: f64) -> f64 {
    lag as f64 / settled_per_s.max(1.0)
}

/// Rates at the time of the last sample.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Rates {
    /// Records published per second.
    pub(crate) published: f64,
    /// `None` until samples span the whole window: the groups' first assignments do not measure
    /// the machine.
    pub(crate) lag: Option<LagSeconds>,
}

/// Lag in seconds of work.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct LagSeconds {
    pub(crate) services: BTreeMap<&'static str, f64>,
    /// The lag of all services, at the rate of all.
    pub(crate) all: f64,
}

/// The samples of the last seconds.
#[derive(Debug, Default)]
pub(crate) struct History(VecDeque<(Instant, Sample)>);

impl History {
    /// Adds a sample whose positions were read at this time. Ignores one that is not newer. Starts
    /// again if it is of other partitions: their records would count as published and settled now.
    pub(crate) fn add(&mut self, at: Instant, sample: &Sample) {
        if let Some((last, before)) = self.0.back() {
            if *last >= at {
                return;
            }
            if before.known() != sample.known() {
                self.0.clear();
            }
        }
        self.0.push_back((at, sample.clone()));
        let is_old = |(then, _): &(Instant, Sample)| at.duration_since(*then) >= WINDOW;
        // The oldest one that is left is the last of those before the window.
        while self.0.get(1).is_some_and(is_old) {
            self.0.pop_front();
        }
    }

    /// The rates between the oldest sample and the newest.
    pub(crate) fn rates(&self) -> Rates {
        let (Some((then, before)), Some((now, sample))) = (self.0.front(), self.0.back()) else {
            return Rates::default();
        };
        let span = now.duration_since(*then);
        if span.is_zero() {
            return Rates::default();
        }
        let per_s = |before: i64, after: i64| (after - before).max(0) as f64 / span.as_secs_f64();
        let lag = (span >= WINDOW).then(|| LagSeconds {
            services: sample
                .services
                .iter()
                .map(|(service, progress)| {
                    let before = before.services.get(service).copied().unwrap_or_default();
                    let settled = per_s(before.settled, progress.settled);
                    (*service, seconds_of_work(progress.lag, settled))
                })
                .collect(),
            all: seconds_of_work(sample.lag(), per_s(before.settled(), sample.settled())),
        });
        Rates {
            published: per_s(before.published, sample.published),
            lag,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitoring::sample::Progress;

    fn progress(lag: i64, settled: i64) -> Progress {
        Progress {
            lag,
            settled,
            ..Progress::default()
        }
    }

    /// A sample of two services, which have settled these numbers of records.
    fn sample(lags: [i64; 2], settled: [i64; 2], published: i64) -> Sample {
        Sample {
            services: [
                ("payments", progress(lags[0], settled[0])),
                ("shipping", progress(lags[1], settled[1])),
            ]
            .into(),
            published,
            ..Sample::default()
        }
    }

    #[test]
    fn lag_seconds_are_by_service_and_in_all() {
        let start = Instant::now();
        let mut history = History::default();
        assert_eq!(history.rates(), Rates::default());
        for second in 0..=8_i64 {
            let settled = [100, 20].map(|rate| rate * second);
            let sample = sample([50, 60], settled, 7_000 + second * 30);
            let at = start + Duration::from_secs(second.unsigned_abs());
            history.add(at, &sample);
            // A sample without new positions has no part in the rates.
            history.add(at, &sample);
            let rates = history.rates();
            let published = if second == 0 { 0.0 } else { 30.0 };
            assert_eq!(rates.published, published, "after {second} s");
            let Some(lag) = rates.lag else {
                assert!(second < 5, "after {second} s");
                continue;
            };
            assert!(second >= 5, "after {second} s");
            assert_eq!(lag.services, [("payments", 0.5), ("shipping", 3.0)].into());
            assert!((lag.all - 110.0 / 120.0).abs() < 1e-9, "{lag:?}");
        }
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let start = Instant::now();
        let mut history = History::default();
        // One record per second for ten seconds, then 100.
        for second in 0..=16_i64 {
            let settled = second.min(10) + (second - 10).max(0) * 100;
            let at = start + Duration::from_secs(second.unsigned_abs());
            history.add(at, &sample([200, 0], [settled, 0], 0));
        }
        let lag = history.rates().lag.expect("the window is full");
        assert_eq!(lag.services["payments"], 2.0);
    }

    #[test]
    fn records_of_a_partition_that_answers_late_are_not_counted_as_new() {
        let start = Instant::now();
        let mut history = History::default();
        let mut add = |second: u64, known: usize, published| {
            let mut sample = sample([5, 5], [0, 0], published);
            sample.logs = known;
            history.add(start + Duration::from_secs(second), &sample);
            history.rates().published
        };
        assert_eq!(add(0, 1, 100), 0.0);
        assert_eq!(add(1, 1, 110), 10.0);
        assert_eq!(add(2, 2, 9_000), 0.0);
        assert_eq!(add(3, 2, 9_020), 20.0);
    }

    #[test]
    fn a_stalled_group_has_a_second_of_work_per_record() {
        assert_eq!(seconds_of_work(12, 0.0), 12.0);
        assert_eq!(seconds_of_work(12, 48.0), 0.25);
    }
}
