//! What keeps retry partitions from being read, and how the health says so.
//!
//! Pure. A partition is in trouble until it is read, or goes.

use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why it is not known what waits in a retry partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// This member may not see the topic, or may not read it.
    Forbidden,
    /// The topic has fewer partitions than its source.
    Lacking {
        /// How many it has.
        partitions: usize,
    },
    /// The brokers do not agree yet whether the topic exists.
    InDoubt,
    /// Anything else, in words.
    Other(String),
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        match error.rdkafka_error_code() {
            Some(Code::TopicAuthorizationFailed) => Self::Forbidden,
            _ => Self::Other(error.to_string()),
        }
    }
}

impl Trouble {
    fn told(&self, topic: &str, partition: i32) -> String {
        match self {
            Self::Forbidden => format!(
                "this member may not see or may not read {topic}; allow it DESCRIBE, READ and WRITE on that topic"
            ),
            Self::Lacking { partitions } => format!(
                "{topic} has {partitions} partitions, which are fewer than its source has; add partitions to it"
            ),
            Self::InDoubt => format!("the brokers do not tell yet whether {topic} exists"),
            Self::Other(cause) => format!("{topic}/{partition}: {cause}"),
        }
    }
}

/// Retry partitions that are in trouble.
#[derive(Default)]
pub(super) struct Troubles {
    partitions: BTreeMap<(Arc<str>, i32), Trouble>,
    is_changed: bool,
}

impl Troubles {
    pub(super) fn add(&mut self, topic: &Arc<str>, partition: i32, trouble: Trouble) {
        let place = (Arc::clone(topic), partition);
        if self.partitions.get(&place) != Some(&trouble) {
            self.partitions.insert(place, trouble);
            self.is_changed = true;
        }
    }

    pub(super) fn remove(&mut self, topic: &Arc<str>, partition: i32) {
        if !self.partitions.is_empty() {
            let place = (Arc::clone(topic), partition);
            self.is_changed |= self.partitions.remove(&place).is_some();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// Whether this partition is in trouble.
    pub(super) fn has(&self, topic: &Arc<str>, partition: i32) -> bool {
        let place = (Arc::clone(topic), partition);
        self.partitions.contains_key(&place)
    }

    /// What the health has to show now; none where it shows that already.
    pub(super) fn news(&mut self) -> Option<Result<(), String>> {
        std::mem::take(&mut self.is_changed).then(|| self.shown())
    }

    fn shown(&self) -> Result<(), String> {
        let Some(((topic, partition), trouble)) = self.partitions.first_key_value() else {
            return Ok(());
        };
        let told = trouble.told(topic, *partition);
        Err(match self.partitions.len() {
            1 => format!("1 retry partition cannot be read, and its partition waits: {told}"),
            count => {
                format!(
                    "{count} retry partitions cannot be read, and their partitions wait: {told}"
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
        let mut troubles = Troubles::default();
        assert_eq!(troubles.news(), None);
        troubles.add(&topic, 3, Trouble::Forbidden);
        let shown = troubles.news().expect("news").expect_err("trouble");
        assert!(
            shown.starts_with("1 retry partition cannot be read"),
            "{shown}"
        );
        assert!(
            shown.ends_with("allow it DESCRIBE, READ and WRITE on that topic"),
            "{shown}"
        );
        troubles.add(&topic, 3, Trouble::Forbidden);
        assert_eq!(troubles.news(), None, "it is shown already");
        troubles.add(&topic, 4, Trouble::InDoubt);
        let shown = troubles.news().expect("news").expect_err("trouble");
        assert!(shown.starts_with("2 retry partitions cannot"), "{shown}");
        troubles.remove(&topic, 3);
        troubles.remove(&topic, 4);
        assert_eq!(troubles.news(), Some(Ok(())));
    }
}
