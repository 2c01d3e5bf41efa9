//! The test kit and `evenkeel dev`.

/// A Kafka for development runs until it is taken down.
mod dev;
/// A Kafka of every kind is found or started, serves, and ends.
mod kafka;
