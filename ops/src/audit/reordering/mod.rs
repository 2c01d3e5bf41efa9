//! Checks that events of one key took effect in the order of the log.

mod candidates;
mod check;
mod order_table;

pub(super) use candidates::ReorderCandidates;
pub(super) use order_table::OrderTable;
