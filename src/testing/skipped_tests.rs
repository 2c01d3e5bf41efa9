//! Skips or fails a test whose server is not available.

use super::StartError;
use crate::telemetry::say;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Set to `1`, as on CI, a test without Apache Kafka or another server that it needs fails instead
/// of being skipped.
const REQUIRE: &str = "EVENKEEL_REQUIRE_KAFKA";

static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// Unwraps a server that a test needs. If it is not available, prints to standard error why the
/// test is skipped, and returns `None`.
///
/// The line is printed past the test harness, which captures the output of `eprintln!`, so a
/// skipped test is visible in a run that passes.
///
/// ```no_run
/// use evenkeel::testing::{KafkaKind, TestKafka, required};
///
/// # async fn a_test() {
/// let Some(kafka) = required(TestKafka::start(KafkaKind::Java).await) else {
///     return;
/// };
/// # let _ = kafka;
/// # }
/// ```
///
/// # Panics
/// If it is not available and `EVENKEEL_REQUIRE_KAFKA=1` is set: CI must not pass by skipping.
pub fn required<T>(needed: Result<T, StartError>) -> Option<T> {
    let reason = match needed {
        Ok(needed) => return Some(needed),
        Err(reason) => reason,
    };
    assert!(
        std::env::var(REQUIRE).as_deref() != Ok("1"),
        "{REQUIRE}=1 is set, so this test must not be skipped: {reason}"
    );
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    say(&format!("skipped {test} ({count} so far): {reason}"));
    None
}
