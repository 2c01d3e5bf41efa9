//! A Kafka for tests: found, started or mocked.
//!
//! `start.rs` chooses the kind. `environment.rs` finds a running Kafka; `container/`, `java.rs` and
//! `mock.rs` start one each, with the settings of `broker.rs`. All of them return a `TestKafka`
//! (`cluster.rs`), whose `ClusterOwner` ends a started server. `shared.rs` keeps one for the
//! process, and `secured/` starts one with authentication. `records.rs` reads a topic.

pub(super) mod broker;
pub(super) mod cluster;
pub(super) mod container;
pub(super) mod environment;
pub(super) mod java;
pub(super) mod mock;
#[cfg(feature = "testing")]
pub(super) mod records;
#[cfg(feature = "testing")]
pub(super) mod secured;
#[cfg(feature = "testing")]
pub(super) mod shared;
pub(super) mod start;
