//! Observability: metric names, health, trace spans and the admin server.
//!
//! Everything is reported through facades: metrics through the crate `metrics`, logs and spans
//! through `tracing`, readiness and liveness through [`Health`]. A program that installs no
//! recorder and no subscriber pays a check for each of them.
//!
//! - [`metric`]: the names, kinds and labels of all metrics
//! - [`Health`]: readiness and liveness, as reported by consumers, relays and the service itself
//! - [`process_span`]: the span of one attempt at a record
//! - [`trace_of`], [`continue_trace`]: the trace context of spans, with the feature `otel`
//! - `daemon` (feature `daemon`): a subscriber, a recorder, signals, and the server of probes and
//!   metrics; with the feature `otel` also the exporter of spans
//! - [`visible`](visible()) and its siblings: text from records and errors, made safe for terminals
//!   and logs
//!
//! # Examples
//! A service that reports its own store beside its consumers:
//!
//! ```
//! use evenkeel::telemetry::{Health, Metric};
//!
//! let health = Health::default();
//! // Pass `health.clone()` to `Consumer::with_health`.
//! health.set_ready("orders database", Ok(()));
//! assert!(health.not_ready().is_empty());
//!
//! // Names for dashboards and alerts, without a typing error.
//! assert_eq!(Metric::DeadLetters.name(), "evenkeel_dead_letters_total");
//! assert_eq!(Metric::DeadLetters.labels(), ["group", "topic", "stage"]);
//! ```

#[cfg(test)]
pub(crate) mod captured_log;
#[cfg(feature = "daemon")]
pub mod daemon;
mod escape;
mod health;
mod instance;
mod log_limiter;
pub mod metric;
mod propagation;
mod reporter;
mod span;

pub use escape::{is_unsafe, say, visible, visible_json, visible_lines};
pub use health::Health;
pub(crate) use instance::{host, instance};
pub(crate) use log_limiter::LogLimiter;
pub use metric::{Metric, MetricKind};
pub(crate) use propagation::{continue_carried, is_exporting};
pub use propagation::{continue_trace, current_trace, trace_of};
pub(crate) use reporter::{Beating, Reporter};
pub use span::{PROCESS_TARGET, process_span};
pub(crate) use span::{SEND_TARGET, batch_span, commit_span, mark_failed, poll_span};
