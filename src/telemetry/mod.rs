//! What operators see: metric names, health, trace spans and the admin server.

#[cfg(feature = "daemon")]
pub mod daemon;
mod health;
pub mod metric;

pub use health::Health;
pub use metric::{Metric, MetricKind};
