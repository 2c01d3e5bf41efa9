//! The times of a gateway's answers, measured by the server: from the head of a request on, to the
//! head of its answer. Without the wait for a processor of clients and sockets.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The width of a class of durations, in microseconds.
const WIDTH_US: u64 = 20;
/// Longer durations, from a second on, are in the last class.
const CLASSES: usize = 50_000;

/// The times of accepted and of refused requests. Fixed memory: 800 KB. Clones share everything.
#[derive(Clone)]
pub(super) struct AnswerTimes {
    accepted: Arc<[AtomicU64]>,
    refused: Arc<[AtomicU64]>,
}

impl AnswerTimes {
    pub(super) fn new() -> Self {
        let classes = || (0..CLASSES).map(|_| AtomicU64::new(0)).collect();
        Self {
            accepted: classes(),
            refused: classes(),
        }
    }

    /// Forgets all times.
    pub(super) fn clear(&self) {
        for class in self.accepted.iter().chain(self.refused.iter()) {
            class.store(0, Ordering::Relaxed);
        }
    }

    /// The 99th percentile of accepted requests, and of refused ones, in milliseconds. None without
    /// such requests.
    pub(super) fn p99_ms(&self) -> (Option<f64>, Option<f64>) {
        (p99_ms(&self.accepted), p99_ms(&self.refused))
    }

    fn add(&self, status: StatusCode, took: Duration) {
        let classes = match status.is_success() {
            true => &self.accepted,
            false => &self.refused,
        };
        let class = took.as_micros() as u64 / WIDTH_US;
        let class = (class as usize).min(CLASSES - 1);
        classes[class].fetch_add(1, Ordering::Relaxed);
    }
}

/// The upper bound of the class that has the 99th percentile.
fn p99_ms(classes: &[AtomicU64]) -> Option<f64> {
    let counts = || classes.iter().map(|class| class.load(Ordering::Relaxed));
    let all: u64 = counts().sum();
    if all == 0 {
        return None;
    }
    let within = (all * 99).div_ceil(100);
    let mut sum = 0;
    let class = counts().position(|count| {
        sum += count;
        sum >= within
    });
    let class = class.unwrap_or(CLASSES - 1) as u64;
    Some(((class + 1) * WIDTH_US) as f64 / 1e3)
}

/// The middleware that measures.
pub(super) async fn time_answer(
    State(times): State<AnswerTimes>,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let response = next.run(request).await;
    times.add(response.status(), began.elapsed());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_each_kind_of_answer() {
        let times = AnswerTimes::new();
        assert_eq!(times.p99_ms(), (None, None));
        for ms in 1..=100 {
            times.add(StatusCode::ACCEPTED, Duration::from_millis(ms));
        }
        times.add(StatusCode::SERVICE_UNAVAILABLE, Duration::from_secs(9));
        let (accepted, refused) = times.p99_ms();
        assert_eq!((accepted, refused), (Some(99.02), Some(1_000.0)));
        times.clear();
        assert_eq!(times.p99_ms(), (None, None));
    }
}
