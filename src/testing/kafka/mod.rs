//! A Kafka for tests: found, started or mocked.

pub(super) mod broker;
pub(super) mod cluster;
pub(super) mod docker;
pub(super) mod environment;
pub(super) mod java;
pub(super) mod mock;
#[cfg(feature = "testing")]
pub(super) mod secured;
#[cfg(feature = "testing")]
pub(super) mod shared;
pub(super) mod start;
