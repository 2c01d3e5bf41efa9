//! What operators see: metric names, health, trace spans and the admin server.

#[cfg(test)]
pub(crate) mod captured;
#[cfg(feature = "daemon")]
pub mod daemon;
mod health;
mod instance;
mod line;
pub mod metric;
mod part;
mod span;

pub use health::Health;
pub(crate) use instance::instance;
pub(crate) use line::Line;
pub use metric::{Metric, MetricKind};
pub(crate) use part::{Beating, Part};
pub use span::{PROCESS_TARGET, process_span};
