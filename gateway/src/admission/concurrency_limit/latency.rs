//! The three measures of latency: of a window, of the last requests, and the normal one.
//!
//! All in seconds. Knows no limit.

use std::time::Duration;
use tokio::time::Instant;

/// The shortest latency that is told apart from none.
pub(super) const SHORTEST_S: f64 = 1e-6;
/// The least duration of a window.
pub(super) const WINDOW: Duration = Duration::from_millis(100);
/// The least number of latencies in a window: fewer are noise.
const WINDOW_SAMPLES: u32 = 10;
/// The windows after which an old latency has little weight in the baseline: a minute of load.
const BASELINE_WINDOWS: f64 = 600.0;
/// The first windows, of which the baseline is the plain mean.
const BASELINE_WARM_UP: u32 = 10;
/// A baseline that is this many times too high is lowered faster than by the average alone.
const BASELINE_TOO_HIGH: f64 = 2.0;
/// By how much.
const BASELINE_DECAY: f64 = 0.95;
/// The weight of a higher latency that a probe measured.
const PROBE_WEIGHT: f64 = 0.5;
/// The weight of a request in the recent latency.
const RECENT_WEIGHT: f64 = 0.1;
/// The time for which the recent latency is valid. After it requests are let through to measure.
const RECENT_VALID: Duration = Duration::from_secs(1);

/// The requests that ended since the window was opened.
#[derive(Debug)]
pub(super) struct Window {
    opened: Instant,
    samples: u32,
    seconds: f64,
    /// The most requests in flight at a time.
    pub(super) in_flight_max: u32,
    /// Whether a request was refused for lack of a place.
    pub(super) is_full: bool,
    /// Whether a request was dropped.
    pub(super) has_drop: bool,
}

impl Window {
    /// An empty window.
    pub(super) fn open(now: Instant, in_flight: u32) -> Self {
        Self {
            opened: now,
            samples: 0,
            seconds: 0.0,
            in_flight_max: in_flight,
            is_full: false,
            has_drop: false,
        }
    }

    /// Adds a latency.
    pub(super) fn learn(&mut self, seconds: f64) {
        self.samples = self.samples.saturating_add(1);
        self.seconds += seconds;
    }

    /// Whether it is long enough.
    pub(super) fn is_done(&self, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.opened);
        self.samples >= WINDOW_SAMPLES && age >= WINDOW
    }

    /// The mean latency. At least one was added.
    pub(super) fn mean(&self) -> f64 {
        self.seconds / f64::from(self.samples.max(1))
    }
}

/// The normal latency: a slow average over windows.
#[derive(Debug, Default)]
pub(super) struct Baseline {
    seconds: Option<f64>,
    windows: u32,
}

impl Baseline {
    /// The normal latency, if any was measured.
    pub(super) fn seconds(&self) -> Option<f64> {
        self.seconds
    }

    /// Adds the latency of a window.
    pub(super) fn learn(&mut self, latency: f64) {
        self.windows = self.windows.saturating_add(1);
        let weight = if self.windows <= BASELINE_WARM_UP {
            1.0 / f64::from(self.windows)
        } else {
            2.0 / (BASELINE_WINDOWS + 1.0)
        };
        let before = self.seconds.unwrap_or(latency);
        let mut seconds = before + weight * (latency - before);
        if seconds > BASELINE_TOO_HIGH * latency {
            seconds *= BASELINE_DECAY;
        }
        self.seconds = Some(seconds);
    }

    /// Adds the latency that a probe measured: a lower one is the truth, a higher one is believed
    /// by half, because the requests before the probe may have raised it.
    pub(super) fn correct(&mut self, latency: f64) {
        let before = self.seconds.unwrap_or(latency);
        self.seconds = Some(if latency < before {
            latency
        } else {
            before + PROBE_WEIGHT * (latency - before)
        });
    }
}

/// The latency of the last requests.
#[derive(Debug, Default)]
pub(super) struct Recent {
    last: Option<(f64, Instant)>,
}

impl Recent {
    /// Adds the latency of a request that ended now.
    pub(super) fn learn(&mut self, latency: f64, now: Instant) {
        let seconds = match self.seconds(now) {
            Some(average) => average + RECENT_WEIGHT * (latency - average),
            None => latency,
        };
        self.last = Some((seconds, now));
    }

    /// The latency, if it was measured a short time ago.
    pub(super) fn seconds(&self, now: Instant) -> Option<f64> {
        let (seconds, at) = self.last?;
        let is_valid = now.saturating_duration_since(at) <= RECENT_VALID;
        is_valid.then_some(seconds)
    }

    /// The latency as it was last measured.
    pub(super) fn last_seconds(&self) -> Option<f64> {
        self.last.map(|(seconds, _)| seconds)
    }
}
