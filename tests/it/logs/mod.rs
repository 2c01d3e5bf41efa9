//! What a log may contain or lose: batch limits, transaction markers, lost and unreadable parts.

/// Topics that accept smaller batches than clients make.
mod batch_limits;
/// Entries at the end of a partition that are no records are no lag.
mod end_of_log;
/// G1 where a log is truncated, or its topic recreated: the new records are handled, and the loss
/// is reported.
mod lost_logs;
/// A reading to the end ends before an open transaction.
mod open_transactions;
/// A batch that no client can read stops only its own partition, is named, and is skipped on
/// command.
mod unreadable;
