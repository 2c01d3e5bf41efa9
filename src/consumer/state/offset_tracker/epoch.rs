//! The identity of one assignment of one partition.

/// Identifies one assignment of one partition. A partition that is assigned again has another
/// epoch, so that late results of the earlier assignment never count for the later one. A retry
/// partition has an epoch of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Epoch(pub(crate) u64);
