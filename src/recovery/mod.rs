//! Recovery from failures: retries in place, parked records, dead letters and their replay; and the
//! breaker, which pauses all records while a dependency of their handlers is down.
//!
//! The policies are fields of [`ConsumerSettings`](crate::consumer::ConsumerSettings):
//!
//! | policy | decides |
//! |---|---|
//! | [`RetryPolicy`] | after a failed attempt: try again in place, park, or dead-letter |
//! | [`BreakerPolicy`] | when outages of one dependency pause all records, and how it is probed |
//! | [`FloodGuardPolicy`] | how many dead letters stop the member |
//! | [`DeadLetterTopic`] | where dead letters are written |
//!
//! ```
//! use evenkeel::consumer::ConsumerSettings;
//! use evenkeel::recovery::{BreakerPolicy, FloodGuardPolicy, RetryPolicy};
//! use std::time::Duration;
//!
//! let mut settings = ConsumerSettings::new("payments", ["shop.orders"]);
//! settings.retry = RetryPolicy::default()
//!     .with_attempts_max(3)
//!     .with_park_delays([Duration::from_secs(30), Duration::from_secs(600)]);
//! settings.breaker = BreakerPolicy::default().with_failures_min(20);
//! settings.flood_guard = FloodGuardPolicy::default().with_run_max(500);
//! settings.validate()?;
//! # Ok::<(), evenkeel::kafka::ConfigError>(())
//! ```
//!
//! The other items serve programs that read or write the topics of a group, such as the operators'
//! tool:
//! - [`DeadLetter`]: the failure of a record on a dead-letter topic
//! - [`replayed`]: the record that a replay publishes; [`ReplayLog`]: what was replayed
//! - [`RetryTopicEntry`]: the meaning of a record on a retry topic
//! - [`repetition`]: the record that delivers a settled event once more
//!
//! Inside, everything is pure: no client, no task, no clock. The consumer passes times and random
//! numbers in, so that each decision can be tested by itself and in simulations. `parking` is the
//! state of a retry partition, `parked` the form of its entries, `dead_letter` the form of dead
//! letters, and `sliding_count` the window of breaker and flood guard.

mod breaker;
pub(crate) mod dead_letter;
mod error_fingerprint;
mod flood_guard;
pub(crate) mod parked;
pub(crate) mod parking;
mod replay;
mod replay_log;
mod retry_policy;
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
pub use replay::{Destination, Provenance, replay_of, replayed};
pub use replay_log::{PartitionEnds, ReplayLog, ReplayLogEntry, ReplayRun, Replayed, replay_topic};
pub use retry_policy::{RetryDecision, RetryPolicy};
pub(crate) use sliding_count::SlidingCount;
