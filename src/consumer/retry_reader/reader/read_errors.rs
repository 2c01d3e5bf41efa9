//! Why retry partitions cannot be read, and the reason in the health.
//!
//! A partition whose parked records are unknown waits: none of its records may be handled, as it
//! could overtake a parked one. The first error is described in the health, with the number of all.

use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why the parked records of a retry partition are unknown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ReadError {
    /// This member lacks a permission on the topic.
    Forbidden,
    /// The topic has fewer partitions than its source.
    Lacking {
        /// The number of its partitions.
        partitions: usize,
    },
    /// The brokers do not agree yet whether the topic exists.
    InDoubt,
    /// Any other error.
    Other(String),
}

impl From<ClientError> for ReadError {
    fn from(error: ClientError) -> Self {
        match error.rdkafka_error_code() {
            Some(Code::TopicAuthorizationFailed) => Self::Forbidden,
            _ => Self::Other(error.to_string()),
        }
    }
}

impl ReadError {
    /// The error, and what to do about it.
    fn describe(&self, topic: &str, partition: i32) -> String {
        match self {
            Self::Forbidden => format!(
                "this member lacks a permission on {topic}; allow it DESCRIBE, READ and WRITE on that topic"
            ),
            Self::Lacking { partitions } => format!(
                "{topic} has {partitions} partitions, which are fewer than its source has; add partitions to it"
            ),
            Self::InDoubt => format!("the brokers do not agree yet whether {topic} exists"),
            Self::Other(cause) => format!("{topic}/{partition}: {cause}"),
        }
    }
}

/// Retry partitions with read errors.
#[derive(Default)]
pub(crate) struct ReadErrors {
    /// The errors, by retry topic and partition.
    partitions: BTreeMap<(Arc<str>, i32), ReadError>,
    is_changed: bool,
}

impl ReadErrors {
    /// Registers an error, in place of an earlier one of the partition.
    pub(crate) fn add(&mut self, topic: &Arc<str>, partition: i32, error: ReadError) {
        let place = (Arc::clone(topic), partition);
        if self.partitions.get(&place) != Some(&error) {
            self.partitions.insert(place, error);
            self.is_changed = true;
        }
    }

    /// The partition can be read, or was revoked.
    pub(crate) fn remove(&mut self, topic: &Arc<str>, partition: i32) {
        if !self.partitions.is_empty() {
            let place = (Arc::clone(topic), partition);
            self.is_changed |= self.partitions.remove(&place).is_some();
        }
    }

    /// Whether all retry partitions can be read.
    pub(crate) fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// Whether this partition has a read error.
    pub(crate) fn has(&self, topic: &Arc<str>, partition: i32) -> bool {
        let place = (Arc::clone(topic), partition);
        self.partitions.contains_key(&place)
    }

    /// The state for the health, if it changed since the last call.
    pub(crate) fn take_change(&mut self) -> Option<Result<(), String>> {
        std::mem::take(&mut self.is_changed).then(|| self.status())
    }

    /// The state for the health.
    fn status(&self) -> Result<(), String> {
        let Some(((topic, partition), error)) = self.partitions.first_key_value() else {
            return Ok(());
        };
        let description = error.describe(topic, *partition);
        Err(match self.partitions.len() {
            1 => {
                format!("1 retry partition cannot be read, and its partition waits: {description}")
            }
            count => {
                format!(
                    "{count} retry partitions cannot be read, and their partitions wait: {description}"
                )
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_shown_until_it_is_read() {
        let topic: Arc<str> = "retry.g.t".into();
        let mut read_errors = ReadErrors::default();
        assert_eq!(read_errors.take_change(), None);
        read_errors.add(&topic, 3, ReadError::Forbidden);
        let status = read_errors
            .take_change()
            .expect("news")
            .expect_err("trouble");
        assert!(
            status.starts_with("1 retry partition cannot be read"),
            "{status}"
        );
        assert!(
            status.ends_with("allow it DESCRIBE, READ and WRITE on that topic"),
            "{status}"
        );
        read_errors.add(&topic, 3, ReadError::Forbidden);
        assert_eq!(read_errors.take_change(), None, "it is shown already");
        read_errors.add(&topic, 4, ReadError::InDoubt);
        let status = read_errors
            .take_change()
            .expect("news")
            .expect_err("trouble");
        assert!(status.starts_with("2 retry partitions cannot"), "{status}");
        read_errors.remove(&topic, 3);
        read_errors.remove(&topic, 4);
        assert_eq!(read_errors.take_change(), Some(Ok(())));
    }
}
