//! Metrics and warnings about deduplication.
//!
//! - `dedup_metrics`: what is counted and logged; `log`: how often; `reused_ids`: the setting for
//!   an id that two events carry

mod dedup_metrics;
mod log;
mod reused_ids;

pub(super) use dedup_metrics::{completed, reused, suppressed};
pub(super) use log::DedupLog;
pub use reused_ids::ReusedIds;
