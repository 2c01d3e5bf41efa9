//! Stops a gateway without losing a request that it has begun.
//!
//! Owns the order of a stop and its one deadline. The order:
//!
//! 1. The gateway is not ready; it serves for `pre_stop_delay`, until balancers have noticed.
//! 2. No new connections; open ones end after their request, streams are told to reconnect.
//! 3. Requests under way are awaited, then cut.
//! 4. The relay publishes the rest of the outbox. What remains is published by another gateway or
//!    after the next start. Without an outbox, records in the publisher's buffer are awaited.
//!
//! Requests have the time up to the share of step 4. Cut connections close within that share: by
//! default the relay gets 10 s of 25 s, of which cut connections take 2 s at most, acknowledgements
//! 2.5 s, and the last results in the store 3.75 s.

use super::connections::Server;
use crate::stream::Streams;
use evenkeel::outbox::RelaySettings;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// The most time that is kept for the relay at the end of a stop.
const RELAY_TIME_MAX: Duration = Duration::from_secs(10);
/// The most time that is kept for the publisher's buffer at the end of a stop without a relay.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(5);
/// The longest time in which cut connections close.
const CUT_WITHIN_MAX: Duration = Duration::from_secs(2);
/// The shortest time for the relay's last results.
const LAST_RESULTS_MIN: Duration = Duration::from_millis(75);

/// How long a stop takes. [`StopSettings::default`] has the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct StopSettings {
    /// Deadline of the whole stop. Default 25 s: Kubernetes kills after 30 s. Requests that are
    /// still under way when the time kept for publishing begins (the last 10 s, or 5 s without an
    /// outbox) are cut; their callers do not know what became of them.
    pub within: Duration,
    /// How long the gateway serves after it reported that it is not ready. Default 0; behind a
    /// balancer that polls readiness, longer than its interval, such as 5 s. Part of
    /// [`within`](Self::within).
    pub pre_stop_delay: Duration,
}

impl Default for StopSettings {
    fn default() -> Self {
        Self {
            within: Duration::from_secs(25),
            pre_stop_delay: Duration::ZERO,
        }
    }
}

impl StopSettings {
    /// Sets the deadline of the whole stop.
    pub fn with_within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// Sets how long the gateway serves although it is not ready.
    pub fn with_pre_stop_delay(mut self, pre_stop_delay: Duration) -> Self {
        self.pre_stop_delay = pre_stop_delay;
        self
    }
}

/// How a gateway stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StopReport {
    /// Requests that were cut at the deadline, with WebSockets and streams that did not end.
    pub requests_cut: usize,
}

impl StopReport {
    /// Whether every request was answered.
    pub fn is_clean(&self) -> bool {
        self.requests_cut == 0
    }
}

/// The deadline that all parts of a stop share.
#[derive(Debug)]
pub(super) struct StopDeadline {
    within: Duration,
    has_outbox: bool,
    begun: OnceLock<Instant>,
}

impl StopDeadline {
    /// The deadline of a gateway with an outbox, or without one.
    pub(super) fn within(within: Duration, has_outbox: bool) -> Self {
        Self {
            within,
            has_outbox,
            begun: OnceLock::new(),
        }
    }

    /// Starts the deadline, unless it has started. Returns its time.
    pub(super) fn begin(&self) -> Instant {
        *self.begun.get_or_init(Instant::now) + self.within
    }

    /// The part of it that is kept for publishing, after the requests.
    fn for_publishing(&self) -> Duration {
        match self.has_outbox {
            true => (self.within / 5 * 2).min(RELAY_TIME_MAX),
            false => (self.within / 5).min(FLUSH_TIME_MAX),
        }
    }

    /// How long cut connections may take to close, within the share of publishing.
    fn for_cutting(&self) -> Duration {
        (self.within / 10).min(CUT_WITHIN_MAX)
    }

    /// The settings of the relay. A quarter of its share is for acknowledgements, and at most half
    /// of it for the last results.
    pub(super) fn relay_settings(&self) -> RelaySettings {
        let share = self.for_publishing();
        RelaySettings::default()
            .with_drain_timeout(share / 4)
            .with_last_results_within((share / 2).max(LAST_RESULTS_MIN))
    }

    /// When requests are cut.
    fn requests_end(&self) -> Instant {
        self.begin() - self.for_publishing()
    }

    /// When the relay takes no more rows, so that it has ended at the deadline.
    pub(super) fn relay_ends(&self) -> Instant {
        let ends = self.begin() - self.relay_settings().stop_within();
        ends.max(self.requests_end())
    }

    /// The remaining time.
    pub(super) fn left(&self) -> Duration {
        self.begin().saturating_duration_since(Instant::now())
    }
}

/// Steps 1 to 3 of a stop. Returns when no connection is open any more.
pub(super) async fn stop_serving(
    server: &Server,
    streams: &Streams,
    settings: &StopSettings,
    deadline: &StopDeadline,
) -> StopReport {
    let end = deadline.requests_end();
    let serve_until = Instant::now() + settings.pre_stop_delay;
    tokio::time::sleep_until(serve_until.min(end)).await;
    server.stop_accepting();
    streams.drain();
    let requests_cut = match timeout_at(end, server.all_closed()).await {
        Ok(()) => 0,
        Err(_) => {
            let requests = server.close_all();
            // Closed connections may be waiting for a client that does not read.
            let _ = timeout(deadline.for_cutting(), server.all_closed()).await;
            requests
        }
    };
    if requests_cut > 0 {
        tracing::warn!(
            requests = requests_cut,
            "requests were cut at the deadline of the stop; their callers may repeat them"
        );
    }
    StopReport { requests_cut }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_parts_of_a_stop_share_one_deadline() {
        let deadline = StopDeadline::within(Duration::from_secs(25), true);
        let began = Instant::now();
        assert_eq!(deadline.requests_end() - began, Duration::from_secs(15));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(deadline.relay_ends() - began, Duration::from_millis(18_750));
        assert_eq!(deadline.left(), Duration::from_secs(15));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(deadline.left(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_relay_has_ended_at_the_deadline_of_any_stop() {
        for within in [1, 2, 10, 15, 25, 120].map(Duration::from_secs) {
            let deadline = StopDeadline::within(within, true);
            let end = deadline.begin();
            let ended = deadline.relay_ends() + deadline.relay_settings().stop_within();
            assert!(ended <= end, "{within:?}: {:?} too late", ended - end);
            let closed = deadline.requests_end() + deadline.for_cutting();
            assert!(closed <= deadline.relay_ends(), "{within:?}: cut too late");
        }
    }

    #[test]
    fn a_short_stop_does_not_shorten_the_leases_of_the_relay() {
        let settings = StopDeadline::within(Duration::from_secs(2), true).relay_settings();
        assert_eq!(settings.lease, RelaySettings::default().lease);
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_outbox_requests_have_the_time_of_the_relay() {
        for (within, requests) in [(25_000, 20_000), (10_000, 8_000), (2_000, 1_600)] {
            let [within, requests] = [within, requests].map(Duration::from_millis);
            let deadline = StopDeadline::within(within, false);
            let began = deadline.begin() - within;
            assert_eq!(deadline.requests_end() - began, requests, "{within:?}");
            let closed = deadline.requests_end() + deadline.for_cutting();
            assert!(closed < deadline.begin(), "{within:?}: no time to publish");
        }
    }
}
