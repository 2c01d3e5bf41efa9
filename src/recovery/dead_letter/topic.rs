//! The topics of dead letters.

use crate::event::Record;

/// The topic to which a group's dead letters are written. Set by
/// [`ConsumerSettings::dead_letter_topic`](crate::consumer::ConsumerSettings::dead_letter_topic).
///
/// While it cannot be written, failed records stay unsettled, and the write is retried for ever. A
/// change of the setting moves nothing: earlier dead letters stay where they are.
///
/// ```
/// use evenkeel::recovery::DeadLetterTopic;
///
/// let topic = DeadLetterTopic::PerTopic.of("payments", "shop.orders");
/// assert_eq!(topic, "dlq.payments.shop.orders");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DeadLetterTopic {
    /// A topic for each source topic, `dlq.<group>.<topic>`. The dead letter keeps the number of
    /// its partition, so that dead letters of one key stay in their order. The consumer creates the
    /// topic with as many partitions as its source. The default.
    #[default]
    PerTopic,
    /// This topic for all topics of the group. The key selects the partition. Several groups may
    /// share it: each dead letter names its group. Pass its name to `evenkeel dlq` unless it begins
    /// with `dlq.`.
    One(String),
}

impl DeadLetterTopic {
    /// The topic for the dead letters of `group` from `topic`.
    ///
    /// A topic per source topic needs as many partitions as its source. A group whose name has
    /// characters that a topic name cannot have needs [`DeadLetterTopic::One`]: the consumer checks
    /// this before it starts.
    ///
    /// ```
    /// use evenkeel::recovery::DeadLetterTopic;
    ///
    /// let one = DeadLetterTopic::One("dlq.payments".to_owned());
    /// assert_eq!(one.of("payments", "shop.orders"), "dlq.payments");
    /// ```
    pub fn of(&self, group: &str, topic: &str) -> String {
        match self {
            Self::PerTopic => format!("dlq.{group}.{topic}"),
            Self::One(name) => name.clone(),
        }
    }

    /// The partition of the record's dead letter. None lets the key decide.
    pub(super) fn partition(&self, record: &Record) -> Option<i32> {
        match self {
            Self::PerTopic => Some(record.partition()),
            Self::One(_) => None,
        }
    }
}
