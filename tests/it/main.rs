//! Integration tests of the library, in one binary: a module per promise.
//!
//! Tests that need Apache Kafka share one broker (`evenkeel::testing::real_kafka`) and skip, saying why, where there is none.

/// The test kit itself: a Kafka of every kind is found or started, serves, and ends.
mod kafka;
