//! How far a load met its aims: little lag, and numbers that are fresh each second. Pure.

use super::latest::Round;
use super::rates::LAG_MAX_S;
use std::time::{Duration, Instant};

/// A lag above its maximum is reported after this time. A rebalance is shorter.
const BEHIND_MAX: Duration = Duration::from_secs(3);

/// The maxima of a load.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Measured {
    /// Maximum lag of all services, in seconds of work. `None` if the load was too short.
    pub(crate) lag_max_s: Option<f64>,
    /// Maximum age of the oldest number on display: a lag, or a count of effects. A partition that
    /// has never answered has no number, and thus no age.
    pub(crate) sample_age_max: Duration,
    /// Maximum number of partitions that had never answered, counted in every group that reads
    /// them.
    pub(crate) unknown_max: usize,
}

/// Measures a load.
pub(crate) struct LoadMeter {
    pub(crate) measured: Measured,
    /// The advice of the warning, until it was given.
    advice: Option<&'static str>,
    behind_since: Option<Instant>,
}

impl LoadMeter {
    /// `is_optimized` is whether the programs are a release build. Under chaos there is no warning:
    /// faults delay work too, so the lag does not measure the machine.
    pub(crate) fn new(is_chaos: bool, is_optimized: bool) -> Self {
        let advice = match is_optimized {
            true => "choose a lower --rate",
            false => "choose a lower --rate, or a release build: cargo demo --release",
        };
        Self {
            measured: Measured::default(),
            advice: (!is_chaos).then_some(advice),
            behind_since: None,
        }
    }

    /// Processes the latest round, new or not. Returns a warning, once, if the lag stays above its
    /// maximum.
    pub(crate) fn observe(&mut self, now: Instant, round: &Round) -> Option<String> {
        let age = now.saturating_duration_since(round.oldest());
        let Measured {
            lag_max_s,
            sample_age_max,
            unknown_max,
        } = &mut self.measured;
        *sample_age_max = age.max(*sample_age_max);
        *unknown_max = round.sample.unknown().max(*unknown_max);
        let (at, lag) = (round.positions_at?, round.rates.lag.as_ref()?.all);
        *lag_max_s = Some(lag_max_s.map_or(lag, |max| max.max(lag)));
        if lag <= LAG_MAX_S {
            self.behind_since = None;
            return None;
        }
        let since = *self.behind_since.get_or_insert(at);
        let behind = at.saturating_duration_since(since);
        if behind < BEHIND_MAX {
            return None;
        }
        let advice = self.advice.take()?;
        Some(format!(
            "warning: the lag has been above {LAG_MAX_S} s of work for {} s (now {lag:.1} s); \
             {advice}",
            behind.as_secs()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitoring::rates::{LagSeconds, Rates};
    use crate::monitoring::sample::{Progress, Sample};

    fn round(at: Instant, lag: Option<f64>) -> Round {
        let lag = lag.map(|all| LagSeconds {
            all,
            ..LagSeconds::default()
        });
        Round {
            ended: at,
            sample: Sample::default(),
            rates: Rates {
                published: 0.0,
                lag,
            },
            read_at: [("payments", at)].into(),
            gateway_read_at: at,
            listed_at: at,
            positions_at: Some(at),
            faults: Vec::new(),
        }
    }

    /// The warnings, by second, if the lag has these values.
    fn warnings(meter: &mut LoadMeter, lags: &[f64]) -> Vec<(u64, String)> {
        let (start, mut warnings) = (Instant::now(), Vec::new());
        for (second, lag) in (0..).zip(lags) {
            let at = start + Duration::from_secs(second);
            // Rounds are observed more often than they end.
            for _ in 0..3 {
                let warning = meter.observe(at, &round(at, Some(*lag)));
                warnings.extend(warning.map(|line| (second, line)));
            }
        }
        warnings
    }

    #[test]
    fn a_lag_that_stays_is_warned_of_once() {
        let mut meter = LoadMeter::new(false, false);
        let lags = [
            1.0, 2.1, 2.2, 1.9, 2.5, 3.0, 3.0, 4.0, 5.0, 1.0, 9.0, 9.0, 9.0, 9.0, 9.0,
        ];
        let found = warnings(&mut meter, &lags);
        let line = "warning: the lag has been above 2 s of work for 3 s (now 4.0 s); choose a \
                    lower --rate, or a release build: cargo demo --release";
        assert_eq!(found, [(7, line.to_owned())]);
        assert_eq!(meter.measured.lag_max_s, Some(9.0));
    }

    #[test]
    fn a_release_build_is_not_advised_to_use_one() {
        let found = warnings(&mut LoadMeter::new(false, true), &[3.0; 5]);
        assert!(found[0].1.ends_with("; choose a lower --rate"), "{found:?}");
    }

    #[test]
    fn chaos_is_measured_without_a_warning() {
        let mut meter = LoadMeter::new(true, false);
        assert!(warnings(&mut meter, &[8.0; 9]).is_empty());
        assert_eq!(meter.measured.lag_max_s, Some(8.0));
    }

    #[test]
    fn age_and_unknown_partitions_are_measured_also_while_the_lag_is_unknown() {
        let mut meter = LoadMeter::new(false, false);
        let at = Instant::now();
        for (age_ms, unknown) in [(200, 3), (1_400, 12), (300, 0)] {
            let now = at + Duration::from_millis(age_ms);
            let mut round = round(at, None);
            let progress = Progress {
                unknown,
                ..Progress::default()
            };
            round.sample.services.insert("payments", progress);
            assert_eq!(meter.observe(now, &round), None);
        }
        let expected = Measured {
            lag_max_s: None,
            sample_age_max: Duration::from_millis(1_400),
            unknown_max: 12,
        };
        assert_eq!(meter.measured, expected);
    }
}
