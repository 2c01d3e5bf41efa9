//! The position of a record as text: `topic/partition@offset`.
//!
//! Total: the text may come from headers that anyone has written.

use super::is_topic_name;
use std::fmt;
use std::str::FromStr;

/// The position of a record on the log. Its text form is `topic/partition@offset`.
///
/// Parsing accepts the output of `Display` only: a valid topic name, and numbers from 0.
/// The error is a sentence that states the expected form, fit for the user of a flag.
///
/// A position identifies a record in one cluster only, and only until its topic is deleted and
/// created again.
///
/// ```
/// use evenkeel::kafka::RecordPosition;
///
/// let position: RecordPosition = "dlq.payments.shop.orders/0@17".parse()?;
/// assert_eq!((position.topic.as_str(), position.offset), ("dlq.payments.shop.orders", 17));
/// assert_eq!(position.to_string(), "dlq.payments.shop.orders/0@17");
/// assert!("shop.orders/0".parse::<RecordPosition>().is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordPosition {
    /// The topic of the record.
    pub topic: String,
    /// The partition of the record.
    pub partition: i32,
    /// The offset of the record.
    pub offset: i64,
}

impl fmt::Display for RecordPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.topic, self.partition, self.offset)
    }
}

impl FromStr for RecordPosition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text
            .rsplit_once('@')
            .and_then(|(place, offset)| Some((place.rsplit_once('/')?, offset)));
        let ((topic, partition), offset) =
            parts.ok_or("write TOPIC/PARTITION@OFFSET, for example dlq.payments.orders/0@17")?;
        if !is_topic_name(topic) {
            return Err(format!("{topic:?} is not a topic name"));
        }
        let partition = partition.parse().ok().filter(|number: &i32| *number >= 0);
        let offset = offset.parse().ok().filter(|number: &i64| *number >= 0);
        Ok(Self {
            topic: topic.to_owned(),
            partition: partition.ok_or("the partition is a number from 0")?,
            offset: offset.ok_or("the offset is a number from 0")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::RecordPosition;
    use proptest::prelude::*;

    #[test]
    fn a_position_round_trips_and_other_text_is_refused() {
        let check = |text: &str, valid: bool| {
            let read: Result<RecordPosition, String> = text.parse();
            let written = read.as_ref().map(RecordPosition::to_string).ok();
            assert_eq!(
                written.as_deref(),
                valid.then_some(text),
                "{text}: {read:?}"
            );
        };
        check("dlq.payments.shop.orders/3@42", true);
        check("t/0@9223372036854775807", true);
        for bad in [
            "",
            "t",
            "t/0",
            "t@1",
            "/0@1",
            "a b/0@1",
            "t/-1@1",
            "t/0@-1",
            "t/x@1",
            "t/0@x",
            "t/0@9223372036854775808",
        ] {
            check(bad, false);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            let _ = text.parse::<RecordPosition>();
        }
    }
}
