//! The adaptive limit of requests at a time.
//!
//! Owns the number of requests in flight and the limit. Knows neither requests nor answers.
//!
//! The limit follows the formula of `Gradient2Limit` in Netflix's library concurrency-limits
//! (<https://github.com/Netflix/concurrency-limits>), which `tower-acc` has in Rust. Once per
//! window of latencies:
//!
//! ```text
//! gradient = clamp(tolerance * baseline / latency, 0.5, 1)
//! limit    = limit + smoothing * (gradient * limit + sqrt(limit) - limit)
//! ```
//!
//! While the latency is normal, the limit grows by a share of its square root. When requests queue
//! behind the limit, their latency rises and the gradient shrinks it.
//!
//! Three things differ from there:
//! - The baseline does not rise while requests are refused: the latency is then due to the limit
//!   itself, and a baseline that follows it would let the limit grow without end. Instead, every
//!   10 s of refusals, the limit is halved for two windows; what is measured then is the baseline.
//! - A request that the store refused, or that timed out, shrinks the limit by a tenth, at most
//!   once per round trip.
//! - Requests that come back as they were told may double the limit: see
//!   [`ConcurrencyLimit::overdraft`].

mod latency;
#[cfg(test)]
mod tests;

use super::settings::AdmissionSettings;
use latency::{Baseline, Recent, SHORTEST_S, Window};
use std::time::Duration;
use tokio::time::Instant;

/// How far the limit moves towards its new value at once.
const SMOOTHING: f64 = 0.2;
/// The least gradient: an outlier cannot do more.
const GRADIENT_MIN: f64 = 0.5;
/// What is left of the limit after a request that was dropped.
const DROP_FACTOR: f64 = 0.9;
/// The time between two probes of the baseline while requests are refused.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// The least that [`ConcurrencyLimit::overdraft`] is.
const OVERDRAFT_MIN: u32 = 8;
/// A pause since the last finished request of this many usual gaps means that the store stalls.
const STALL_GAPS: f64 = 10.0;

/// A request that asks for a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It comes for the first time, or not at the time that it was told.
    New,
    /// It was refused before, and comes back as it was told.
    Returning,
}

/// How a request ended, as far as it says something about the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sample {
    /// It was served, in this time.
    Latency(Duration),
    /// The store refused it for lack of capacity.
    Dropped,
    /// It was not done within its deadline, which was this long.
    TimedOut(Duration),
    /// It was cancelled, or failed for a reason of its own.
    Ignored,
}

/// The adaptive limit.
#[derive(Debug)]
pub(super) struct ConcurrencyLimit {
    min: f64,
    max: f64,
    tolerance: f64,
    limit: f64,
    in_flight: u32,
    /// Since when there was at least one request in flight.
    busy_since: Instant,
    last_served: Instant,
    last_drop: Option<Instant>,
    baseline: Baseline,
    recent: Recent,
    window: Window,
    probe: Probe,
}

/// The probe of the baseline, window by window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    /// None before this time.
    Due(Instant),
    /// The limit is halved, and requests from before finish.
    Draining,
    /// The limit is halved, and the latency of this window is the baseline.
    Measuring,
}

impl ConcurrencyLimit {
    /// Without requests. `settings` are in their range.
    pub(super) fn new(settings: &AdmissionSettings, now: Instant) -> Self {
        Self {
            min: f64::from(settings.limit_min),
            max: f64::from(settings.limit_max),
            tolerance: settings.latency_tolerance,
            limit: f64::from(settings.limit_initial),
            in_flight: 0,
            busy_since: now,
            last_served: now,
            last_drop: None,
            baseline: Baseline::default(),
            recent: Recent::default(),
            window: Window::open(now, 0),
            probe: Probe::Due(now + PROBE_INTERVAL),
        }
    }

    /// Takes a place, if there is one. It must be released later.
    pub(super) fn try_acquire(&mut self, now: Instant, arrival: Arrival) -> bool {
        let places = match arrival {
            Arrival::New => self.places(),
            Arrival::Returning => self.places() + overdraft_of(self.places()),
        };
        if self.in_flight >= places {
            self.window.is_full = true;
            return false;
        }
        if self.in_flight == 0 {
            self.busy_since = now;
        }
        self.in_flight += 1;
        self.window.in_flight_max = self.window.in_flight_max.max(self.in_flight);
        true
    }

    /// Releases a place, and learns from how the request ended.
    pub(super) fn release(&mut self, now: Instant, sample: Sample) {
        self.in_flight = self.in_flight.saturating_sub(1);
        match sample {
            Sample::Latency(latency) => {
                let seconds = latency.as_secs_f64().max(SHORTEST_S);
                self.last_served = now;
                self.recent.learn(seconds, now);
                self.window.learn(seconds);
                if self.window.is_done(now) {
                    self.close_window(now);
                }
            }
            Sample::Dropped => self.shrink(now),
            Sample::TimedOut(after) if self.is_slow(after.as_secs_f64()) => self.shrink(now),
            // The deadline was shorter than a request normally takes: no sign of overload.
            Sample::TimedOut(_) | Sample::Ignored => {}
        }
    }

    /// The limit, without regard to a probe.
    pub(super) fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// Requests in flight.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// By how many requests those that return may exceed the limit. Under overload new requests
    /// fill the limit at once; without this, a request that comes back as told finds no place. Those
    /// of some 10 ms come at once when the processors were busy elsewhere.
    pub(super) fn overdraft(&self) -> u32 {
        overdraft_of(self.limit())
    }

    /// The time that a request takes at present; none if nothing was measured in the last second.
    pub(super) fn expected(&self, now: Instant) -> Option<Duration> {
        self.recent.seconds(now).map(Duration::from_secs_f64)
    }

    /// Whether requests take longer than normal at present.
    pub(super) fn is_congested(&self, now: Instant) -> bool {
        self.recent
            .seconds(now)
            .is_some_and(|seconds| self.is_slow(seconds))
    }

    /// Requests per second that the store can finish, as an estimate: by Little's law the limit
    /// over the latency, and less while nothing finishes. Before anything was measured, a request
    /// counts as taking a second.
    pub(super) fn requests_per_second(&self, now: Instant) -> f64 {
        let Some(latency) = self.recent.last_seconds() else {
            return self.limit;
        };
        let active = self.busy_since.max(self.last_served);
        let idle_s = now.saturating_duration_since(active).as_secs_f64();
        (self.limit / latency).min(STALL_GAPS / idle_s.max(SHORTEST_S))
    }

    /// Whether this is above the normal latency. False while that is unknown.
    fn is_slow(&self, seconds: f64) -> bool {
        let normal = self.baseline.seconds();
        normal.is_some_and(|normal| seconds > self.tolerance * normal)
    }

    /// The places that there are now.
    fn places(&self) -> u32 {
        match self.probe {
            Probe::Due(_) => self.limit(),
            Probe::Draining | Probe::Measuring => (self.limit / 2.0).max(self.min) as u32,
        }
    }

    fn close_window(&mut self, now: Instant) {
        let next = Window::open(now, self.in_flight);
        let window = std::mem::replace(&mut self.window, next);
        let latency = window.mean();
        match self.probe {
            Probe::Draining => self.probe = Probe::Measuring,
            Probe::Measuring => {
                self.baseline.correct(latency);
                self.probe = Probe::Due(now + PROBE_INTERVAL);
            }
            Probe::Due(at) => {
                self.adjust(&window, latency);
                if !window.is_full {
                    self.probe = Probe::Due(now + PROBE_INTERVAL);
                } else if now >= at {
                    self.probe = Probe::Draining;
                }
            }
        }
    }

    /// Moves the limit by the latency of a window.
    fn adjust(&mut self, window: &Window, latency: f64) {
        let normal = self.baseline.seconds();
        if !window.is_full || normal.is_none_or(|normal| latency < normal) {
            self.baseline.learn(latency);
        }
        let is_used = f64::from(window.in_flight_max) >= self.limit / 2.0;
        if !is_used || window.has_drop {
            return;
        }
        let normal = self.baseline.seconds().unwrap_or(latency);
        let gradient = (self.tolerance * normal / latency).clamp(GRADIENT_MIN, 1.0);
        let target = gradient * self.limit + self.limit.sqrt();
        let limit = self.limit + SMOOTHING * (target - self.limit);
        self.limit = limit.clamp(self.min, self.max);
    }

    fn shrink(&mut self, now: Instant) {
        self.window.has_drop = true;
        let round_trip = Duration::from_secs_f64(self.recent.last_seconds().unwrap_or(0.0));
        let pause = round_trip.max(latency::WINDOW);
        let is_due = |at: Instant| now.saturating_duration_since(at) >= pause;
        if self.last_drop.is_none_or(is_due) {
            self.last_drop = Some(now);
            self.limit = (self.limit * DROP_FACTOR).max(self.min);
        }
    }
}

/// By how many requests those that return may exceed this many places. A probe of the baseline has
/// fewer places than the limit, so it is exceeded by fewer, too.
fn overdraft_of(places: u32) -> u32 {
    places.max(OVERDRAFT_MIN)
}
