//! Recovery from failures: retries in place, parked records, dead letters and their replay; and the
//! breaker, which pauses all records while a dependency of their handlers is down.

mod breaker;
pub(crate) mod dead_letter;
mod error_fingerprint;
mod flood_guard;
pub(crate) mod parked;
pub(crate) mod parking;
mod policy;
mod replay;
mod replay_log;
mod sliding_count;

pub use crate::failure::Backoff;
pub use breaker::BreakerPolicy;
pub(crate) use breaker::{Breaker, Change, ProbeId};
pub use dead_letter::{
    DeadLetter, DeadLetterTopic, Family, NotTheOriginal, is_edited, is_empty_without_original,
    record_timestamp_ms, restored,
};
pub use error_fingerprint::error_fingerprint;
pub use flood_guard::FloodGuardPolicy;
pub(crate) use flood_guard::{Flood, FloodGuard};
pub use parked::repetition::{
    Drill, RepetitionOutcome, repetition, repetition_answer, repetition_of,
};
pub use parked::{Owner, ParkedReason, RetryState, RetryTopicEntry, retry_topic};
pub use policy::{RetryDecision, RetryPolicy};
pub use replay::{Destination, Provenance, replay_of, replayed};
pub use replay_log::{PartitionEnds, ReplayLog, ReplayLogEntry, ReplayRun, Replayed, replay_topic};
pub(crate) use sliding_count::SlidingCount;
