//! Rate limits of the deduplication warnings.

use crate::telemetry::LogLimiter;

/// Rate limits of the warnings, one for each kind.
#[derive(Default)]
pub(in crate::handler) struct DedupLog {
    pub(in crate::handler) late: LogLimiter,
    pub(in crate::handler) reused: LogLimiter,
}
