//! Stops a gateway without losing a request that it has begun.
//!
//! Owns the order of a stop and its one deadline. The order:
//!
//! 1. The gateway is not ready; it serves for `pre_stop_delay`, until balancers have noticed.
//! 2. No new connections; open ones end after their request, streams are told to reconnect.
//! 3. Requests under way are awaited, then cut.
//! 4. The relay publishes the rest of the outbox. What remains is published by another gateway or
//!    after the next start.
//!
//! Steps 1 to 3 have the time up to the share of the relay, step 4 the rest.

use super::connections::Server;
use crate::stream::Streams;
use evenkeel::outbox::RelaySettings;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// The most time that is kept for the relay at the end of a stop.
const RELAY_TIME_MAX: Duration = Duration::from_secs(10);
/// How long cut connections may take to close.
const CUT_WITHIN: Duration = Duration::from_secs(2);

/// How long a stop takes. [`StopSettings::default`] has the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct StopSettings {
    /// Deadline of the whole stop. Default 25 s: Kubernetes kills after 30 s. Requests that are
    /// under way then are cut; their callers do not know what became of them.
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
    begun: OnceLock<Instant>,
}

impl StopDeadline {
    pub(super) fn within(within: Duration) -> Self {
        Self {
            within,
            begun: OnceLock::new(),
        }
    }

    /// Starts the deadline, unless it has started. Returns its time.
    pub(super) fn begin(&self) -> Instant {
        *self.begun.get_or_init(Instant::now) + self.within
    }

    /// The part of it that is kept for the relay.
    fn for_relay(&self) -> Duration {
        (self.within * 2 / 5).min(RELAY_TIME_MAX)
    }

    /// The settings of the relay: a quarter of its share is for acknowledgements.
    pub(super) fn relay_settings(&self) -> RelaySettings {
        RelaySettings::default().with_drain_timeout(self.for_relay() / 4)
    }

    /// When requests are cut.
    fn requests_end(&self) -> Instant {
        self.begin() - self.for_relay()
    }

    /// When the relay sends nothing more, so that it has ended at the deadline.
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
            let _ = timeout(CUT_WITHIN, server.all_closed()).await;
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
        let deadline = StopDeadline::within(Duration::from_secs(25));
        let began = Instant::now();
        assert_eq!(deadline.requests_end() - began, Duration::from_secs(15));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(deadline.relay_ends() - began, Duration::from_millis(18_750));
        assert_eq!(deadline.left(), Duration::from_secs(15));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(deadline.left(), Duration::ZERO);
    }
}
