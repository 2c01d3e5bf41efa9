//! The entries of a retry topic: parked records, and notes about them.
//!
//! Pure. Owns the names and forms of their headers. A parked record has the key, value and headers
//! of the record that failed, or that waits behind one. The retry state is in headers of our own,
//! which are removed when the record is handled. Total: headers are untrusted bytes. An invalid
//! number never makes a record wait for ever, retry for ever, or be lost: an unreadable count
//! counts as the largest, and a time only up to the policy's longest wait.
//!
//! Notes refer to records by offset and are never changed: the log is append-only, and the parked
//! set of a partition is what results from reading it in order.
//!
//! - `entry_headers`: names; `entry`: reads an entry; `write`: creates one; `restore`: the record
//!   as it was
//! - `repetition`: the entries of a drill and their answers

mod entry;
mod entry_headers;
pub(crate) mod repetition;
mod restore;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use entry::Reason;
pub use entry::{Owner, ParkedReason, RetryState, RetryTopicEntry};
pub(crate) use entry_headers::is_parking_header;
pub use entry_headers::retry_topic;
pub(crate) use restore::{Stored, restored};
pub(super) use write::push_replay_origin;
pub(crate) use write::{failed_again, held, parked};
