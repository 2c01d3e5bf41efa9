//! Time: of an event on its way, of a rebalance, of start and stop.

pub(super) mod hot_key;
pub(super) mod latency;
pub(super) mod lifecycle;
pub(super) mod rebalance;
