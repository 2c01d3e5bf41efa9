//! Logging to standard error.
//!
//! Standard output is for results, so that `evenkeel … | jq` never sees a log line.

use evenkeel::telemetry::daemon::TextFields;
use tracing_subscriber::EnvFilter;

/// Logs the library and its client to standard error, with the filter in `RUST_LOG`, or else
/// `default`, such as `info` or `off`.
///
/// A line is dropped if its reader has closed standard error.
///
/// # Panics
/// If the process already has a subscriber.
pub fn to_stderr(default: &str) {
    let filter = std::env::var(EnvFilter::DEFAULT_ENV);
    tracing_subscriber::fmt()
        .fmt_fields(TextFields)
        .with_writer(std::io::stderr)
        .log_internal_errors(false)
        .with_env_filter(
            EnvFilter::builder().parse_lossy(filter.unwrap_or_else(|_| default.to_owned())),
        )
        .init();
}
