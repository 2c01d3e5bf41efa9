//! Requests to the dispatcher, the thread that hands out parked records.
//!
//! Requests about an epoch may arrive after its revoke. The dispatcher ignores epochs that it does
//! not know.

use crate::consumer::state::offset_tracker::Epoch;
use crate::consumer::state::partition::Partition;
use std::sync::Arc;

/// A request to the dispatcher.
pub(crate) enum DispatchRequest {
    /// A record may be due.
    CheckDue,
    /// The retry partition of this partition is being read.
    Begun(Arc<Partition>),
    /// These epochs were revoked.
    Gone(Vec<Epoch>),
    /// The first and the end offset of a partition whose records did not arrive. None if the
    /// brokers did not answer.
    Bounds(Epoch, Option<(i64, i64)>),
    /// The last request.
    Close,
}
