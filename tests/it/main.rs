//! Integration tests of the library, in one binary: a module per promise.
//!
//! Tests that need Apache Kafka share one broker (`evenkeel::testing::real_kafka`) and skip, saying why, where there is none.

/// A Kafka for development that stays until it is taken down.
mod dev;
/// The test kit itself: a Kafka of every kind is found or started, serves, and ends.
mod kafka;
/// Helper: a test of this binary as a process of its own.
mod rerun;
