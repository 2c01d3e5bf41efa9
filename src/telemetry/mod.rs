//! Observability: metric names, health, trace spans and the admin server.

#[cfg(test)]
pub(crate) mod captured;
#[cfg(feature = "daemon")]
pub mod daemon;
mod health;
mod instance;
mod log_limiter;
pub mod metric;
mod part;
mod span;
mod visible;

pub use health::Health;
pub(crate) use instance::{host, instance};
pub(crate) use log_limiter::LogLimiter;
pub use metric::{Metric, MetricKind};
pub(crate) use part::{Beating, Part};
pub use span::{PROCESS_TARGET, process_span};
pub use visible::{is_unsafe, say, visible, visible_json, visible_lines};
