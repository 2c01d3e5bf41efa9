//! A Kafka for tests: found, started or mocked.

pub(super) mod broker;
pub(super) mod cluster;
pub(super) mod docker;
pub(super) mod environment;
pub(super) mod java;
pub(super) mod mock;
pub(super) mod secured;
pub(super) mod shared;
pub(super) mod start;
