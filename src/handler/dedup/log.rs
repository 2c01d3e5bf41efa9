//! Rate limits of the deduplication warnings.

use crate::telemetry::LogLimiter;

/// Rate limits of the warnings, one for each kind. Clones of a router share them.
#[derive(Default)]
pub(in crate::handler) struct DedupLog {
    /// An event older than the inbox remembers was handled as new.
    pub(in crate::handler) late: LogLimiter,
    /// An id was completed before with other content.
    pub(in crate::handler) reused: LogLimiter,
}
