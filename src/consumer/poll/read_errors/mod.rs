//! Partitions that cannot be read: detection, reports, and retries.

pub(crate) mod reread;
mod silent_partitions;
pub(crate) mod unreadable_batch;
