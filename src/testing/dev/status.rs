//! The status of the development broker.

use crate::testing::KafkaKind;

/// The running development Kafka, from [`up`](super::up) or [`status`](fn@super::status).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DevStatus {
    /// [`KafkaKind::Docker`] or [`KafkaKind::Java`].
    pub kind: KafkaKind,
    /// Bootstrap servers, comma separated.
    pub brokers: String,
    /// The process or container and the path of its log, in one line.
    pub description: String,
}
