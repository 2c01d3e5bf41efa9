//! Metrics and warnings about deduplication.

mod dedup_metrics;
mod log;
mod reused_ids;

pub(super) use dedup_metrics::{completed, reused, suppressed};
pub(super) use log::DedupLog;
pub use reused_ids::ReusedIds;
