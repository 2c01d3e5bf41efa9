//! evenkeel: event-driven services on Apache Kafka that stay on an even keel.

pub mod consumer;
pub mod event;
pub mod handler;
pub mod inbox;
pub mod kafka;
pub mod publisher;
pub mod recovery;
pub mod schema;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
