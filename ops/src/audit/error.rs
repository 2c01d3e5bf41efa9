//! Errors of an audit.

use crate::cluster::into_kafka;
use evenkeel::inbox::InboxError;
use evenkeel::kafka::KafkaError;

/// The error of an audit that returned no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// A request to the cluster failed.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// A query of the store failed.
    #[error(transparent)]
    Store(#[from] InboxError),
    /// The group has never committed an offset of the topic, so there is nothing to audit.
    #[error(
        "the group {group} has committed nothing of {topic}; see: evenkeel groups describe {group}"
    )]
    NeverCommitted {
        /// Name of the group.
        group: String,
        /// Name of the topic.
        topic: String,
    },
    /// No record has an effect, and the store has no row of the group. Usually the store is the
    /// wrong one.
    #[error("the store has no delivery of the group {group}: is it the group's store?")]
    UnknownToStore {
        /// Name of the group.
        group: String,
    },
    /// The caller dropped the future.
    #[error("the audit was stopped")]
    Stopped,
}

into_kafka!(AuditError);
