//! The state and the decisions of a consumer, without a client, a task or a thread.
//!
//! The decisions ([`lanes`], [`offset_tracker`], [`admission`], [`commit_metadata`]) map inputs to
//! results. `simulation` drives them through seeded schedules of revokes, late results and crashes.
//!
//! There are two kinds of modules. Decisions take their inputs as arguments and can be tested
//! without Kafka. State that several threads share ([`partition`], [`retry_partition`], the bits of
//! [`offset_tracker`]) holds its locks only for its own methods, so that no lock order has to be
//! kept.

pub(crate) mod admission;
pub(crate) mod assignments;
pub(crate) mod commit_metadata;
pub(crate) mod lanes;
pub(crate) mod offset_tracker;
pub(crate) mod ordering_key;
pub(crate) mod partition;
pub(crate) mod retry_partition;
pub(crate) mod settlement;
#[cfg(test)]
mod simulation;
pub(crate) mod worker_partitioner;
