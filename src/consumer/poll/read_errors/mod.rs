//! Partitions that cannot be read: detection, reports, and retries.
//!
//! - `seek_retries`: an error in place of a record; the client is sought back, since it may have
//!   moved on
//! - `unreadable_batch`: a batch that is damaged, or compressed in a way that the client does not
//!   know; its partition is blocked until it can be read or an operator skips it
//! - `silent_partitions`: a damaged batch that the client does not even report
//! - `telemetry`: what unreadable batches log
//!
//! In all of them no record is skipped without an operator, and other partitions continue.

pub(crate) mod seek_retries;
mod silent_partitions;
mod telemetry;
pub(crate) mod unreadable_batch;
