//! Selects dead letters by topic and by filters.

use super::{DeadLetterError, DeadLetterRecord};
use crate::names::wildcard::matches;
use crate::{Observer, UnknownGroup, visibility};
use evenkeel::event::decode;
use evenkeel::kafka::admin::Admin;
use jiff::Timestamp;

/// Prefix of the names of dead-letter topics.
const PREFIX: &str = "dlq.";

/// The dead-letter topics of an operation. Default: all topics whose name begins with `dlq.`.
///
/// ```
/// use evenkeel_ops::dead_letters::select::Topics;
///
/// let topics = Topics::default().with_named(["orders-dlt".to_owned()]);
/// assert!(!topics.is_empty());
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
#[must_use = "resolve it to topics"]
pub struct Topics {
    /// Names of topics. Whether they exist is not checked. Empty: all that exist.
    pub named: Vec<String>,
    /// If no topic is named, selects the topics of this group, `dlq.<group>.*`. The operation
    /// itself has a filter for the dead letters of the group: [`Filter::group`].
    pub group: Option<String>,
}

impl Topics {
    /// Sets [`named`](Self::named).
    pub fn with_named(mut self, named: impl IntoIterator<Item = String>) -> Self {
        self.named = named.into_iter().collect();
        self
    }

    /// Sets [`group`](Self::group).
    pub fn with_group(mut self, group: impl Into<Option<String>>) -> Self {
        self.group = group.into();
        self
    }

    /// Whether neither topics nor a group are named.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.group.is_none()
    }

    /// The sorted topics: the named ones, or those that exist. Empty only if no group is named and
    /// no dead-letter topic exists.
    ///
    /// # Errors
    /// [`DeadLetterError::UnknownGroup`] or [`DeadLetterError::NoTopics`] if the group has none.
    /// Also if a request to the cluster fails, or if topics may be hidden from this client.
    pub async fn resolve(
        &self,
        admin: &Admin,
        observer: &dyn Observer,
    ) -> Result<Vec<String>, DeadLetterError> {
        let mut topics = self.named.clone();
        if topics.is_empty() {
            topics = self.among(admin.topics().await?);
            visibility::check_topics(admin, &self.prefix(), topics.len(), observer).await?;
            if let (true, Some(group)) = (topics.is_empty(), &self.group) {
                if admin.describe_group(group).await?.is_none() {
                    return Err(UnknownGroup::new(admin, group).await.into());
                }
                let prefix = self.prefix();
                return Err(DeadLetterError::NoTopics { prefix });
            }
        }
        topics.sort_unstable();
        topics.dedup();
        Ok(topics)
    }

    fn among(&self, mut existing: Vec<String>) -> Vec<String> {
        let prefix = self.prefix();
        existing.retain(|topic| topic.starts_with(&prefix));
        existing
    }

    /// The prefix of the topics' names.
    fn prefix(&self) -> String {
        match &self.group {
            Some(group) => format!("{PREFIX}{group}."),
            None => PREFIX.to_owned(),
        }
    }
}

/// Filters dead letters. Every field that is set must match. In a pattern, `*` matches any number
/// of bytes and `?` exactly one. The default admits all.
///
/// ```
/// use evenkeel_ops::dead_letters::select::Filter;
///
/// let filter = Filter::default()
///     .with_class("*TimeoutException".to_owned())
///     .with_partitions([0, 1]);
/// assert_eq!(filter.partitions, [0, 1]);
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
#[must_use]
pub struct Filter {
    /// The group that wrote them. Dead letters that name no group match too.
    pub group: Option<String>,
    /// Partitions of the dead-letter topics. Empty: all.
    pub partitions: Vec<i32>,
    /// Pattern for the key. A record without a key matches no pattern.
    pub key: Option<String>,
    /// Pattern for the class of the failure.
    pub class: Option<String>,
    /// Pattern for the stage of the failure.
    pub stage: Option<String>,
    /// Pattern for the type of the event. Decodes the record, which takes longer than the others.
    pub event_type: Option<String>,
    /// Text that the failure's message contains. Not a pattern.
    pub message_contains: Option<String>,
    /// Time of the earliest failure, inclusive.
    pub since: Option<Timestamp>,
    /// Time after the latest failure, exclusive.
    pub until: Option<Timestamp>,
}

impl Filter {
    /// Sets [`group`](Self::group).
    pub fn with_group(mut self, group: impl Into<Option<String>>) -> Self {
        self.group = group.into();
        self
    }

    /// Sets [`partitions`](Self::partitions).
    pub fn with_partitions(mut self, partitions: impl IntoIterator<Item = i32>) -> Self {
        self.partitions = partitions.into_iter().collect();
        self
    }

    /// Sets [`key`](Self::key).
    pub fn with_key(mut self, pattern: impl Into<Option<String>>) -> Self {
        self.key = pattern.into();
        self
    }

    /// Sets [`class`](Self::class).
    pub fn with_class(mut self, pattern: impl Into<Option<String>>) -> Self {
        self.class = pattern.into();
        self
    }

    /// Sets [`stage`](Self::stage).
    pub fn with_stage(mut self, pattern: impl Into<Option<String>>) -> Self {
        self.stage = pattern.into();
        self
    }

    /// Sets [`event_type`](Self::event_type).
    pub fn with_event_type(mut self, pattern: impl Into<Option<String>>) -> Self {
        self.event_type = pattern.into();
        self
    }

    /// Sets [`message_contains`](Self::message_contains).
    pub fn with_message_contains(mut self, text: impl Into<Option<String>>) -> Self {
        self.message_contains = text.into();
        self
    }

    /// Sets [`since`](Self::since).
    pub fn with_since(mut self, since: impl Into<Option<Timestamp>>) -> Self {
        self.since = since.into();
        self
    }

    /// Sets [`until`](Self::until).
    pub fn with_until(mut self, until: impl Into<Option<Timestamp>>) -> Self {
        self.until = until.into();
        self
    }

    /// Whether the filter admits a dead letter.
    ///
    /// A missing attribute matches no filter. The group is an exception: `dlq.a.b.c` may be a topic
    /// of group `a` or of group `a.b`, and only dead letters that name their group can be told
    /// apart.
    pub fn admits(&self, dead_letter: &DeadLetterRecord) -> bool {
        let failure = &dead_letter.failure;
        let fits = |pattern: &Option<String>, text: Option<&[u8]>| {
            let matches =
                |pattern: &String| text.is_some_and(|text| matches(pattern.as_bytes(), text));
            pattern.as_ref().is_none_or(matches)
        };
        let bytes = |text: &Option<String>| text.clone().map(String::into_bytes);
        let group_fits = match (&self.group, &failure.group) {
            (Some(wanted), Some(group)) => wanted == group,
            _ => true,
        };
        let contains = |text: &String| {
            let message = failure.message.as_deref();
            message.is_some_and(|message| message.contains(text.as_str()))
        };
        let partition = &dead_letter.record.partition;
        let time = dead_letter.time();
        let is_since = |since| time.is_some_and(|time| time >= since);
        let is_before = |until| time.is_some_and(|time| time < until);
        group_fits
            && (self.partitions.is_empty() || self.partitions.contains(partition))
            && fits(&self.key, dead_letter.record.key.as_deref())
            && fits(&self.class, bytes(&failure.class).as_deref())
            && fits(&self.stage, bytes(&failure.stage).as_deref())
            && self.message_contains.as_ref().is_none_or(contains)
            && self.since.is_none_or(is_since)
            && self.until.is_none_or(is_before)
            && (self.event_type.is_none()
                || fits(&self.event_type, event_type(dead_letter).as_deref()))
    }
}

/// The type of the event. Also read from an invalid event, if it has one.
fn event_type(dead_letter: &DeadLetterRecord) -> Option<Vec<u8>> {
    let record = &dead_letter.record;
    match record.headers.last("ce_type") {
        Some(ty) => Some(ty.to_vec()),
        None => {
            let event = decode(record.headers.iter(), record.value.as_deref()).ok()?;
            Some(event.attributes.ty.into_bytes())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel::event::Headers;
    use evenkeel::kafka::reader::{LogRecord, TimestampKind};

    fn dead_letter() -> DeadLetterRecord {
        let mut headers = Headers::new();
        for (name, value) in [
            ("ce_type", "shop.order-placed.v1"),
            ("__dlq.errors.group", "payments"),
            ("__dlq.errors.message", "card 17 refused"),
            ("evenkeel.dlq.error.class", "permanent"),
            ("evenkeel.dlq.error.stage", "handler"),
            ("evenkeel.dlq.error.timestamp", "2026-11-21T10:00:00Z"),
        ] {
            headers.push(name, Some(value.as_bytes()));
        }
        DeadLetterRecord::new(LogRecord {
            topic: "dlq.payments.orders".into(),
            partition: 2,
            offset: 7,
            timestamp_kind: TimestampKind::Create,
            timestamp_ms: Some(0),
            key: Some(b"o-1".to_vec()),
            value: Some(b"{}".to_vec()),
            headers,
        })
    }

    /// A filter in which one field is set.
    fn filter(name: &str, value: &str) -> Filter {
        let mut filter = Filter::default();
        let value = value.to_owned();
        match name {
            "key" => filter.key = Some(value),
            "class" => filter.class = Some(value),
            "stage" => filter.stage = Some(value),
            "type" => filter.event_type = Some(value),
            "grep" => filter.message_contains = Some(value),
            "since" => filter.since = Some(value.parse().unwrap()),
            "until" => filter.until = Some(value.parse().unwrap()),
            "group" => filter.group = Some(value),
            "partition" => filter.partitions = vec![value.parse().unwrap()],
            other => panic!("{other}"),
        }
        filter
    }

    #[test]
    fn every_filter_that_is_set_has_to_match() {
        assert!(Filter::default().admits(&dead_letter()));
        let check = |name: &str, value: &str, expected| {
            let filter = filter(name, value);
            assert_eq!(filter.admits(&dead_letter()), expected, "{filter:?}");
        };
        check("key", "o-?", true);
        check("key", "o", false);
        check("type", "shop.order-*", true);
        check("type", "shop.stock-*", false);
        check("grep", "17 ref", true);
        check("grep", "18", false);
        check("partition", "2", true);
        check("partition", "1", false);
        check("since", "2026-11-21T10:00:00Z", true);
        check("since", "2026-11-21T10:00:01Z", false);
        check("until", "2026-11-21T10:00:01Z", true);
        check("until", "2026-11-21T10:00:00Z", false);
        check("group", "payments", true);
        check("group", "pay", false);
        let mut both = filter("class", "perm*");
        both.stage = Some("handler".to_owned());
        assert!(both.admits(&dead_letter()));
        both.stage = Some("decode".to_owned());
        assert!(!both.admits(&dead_letter()));
    }

    #[test]
    fn a_missing_field_of_a_dead_letter_matches_nothing() {
        let mut silent = dead_letter();
        silent.record.headers = Headers::new();
        silent.record.timestamp_ms = None;
        let silent = DeadLetterRecord::new(silent.record);
        for name in ["class", "stage", "type"] {
            assert!(!filter(name, "*").admits(&silent), "{name}");
        }
        assert!(!filter("grep", "").admits(&silent));
        assert!(!filter("since", "1970-01-01T00:00:00Z").admits(&silent));
        assert!(filter("group", "payments").admits(&silent));
    }

    #[test]
    fn a_group_has_the_topics_that_are_named_after_it() {
        let existing = ["dlq.a.t", "dlq.ab.t", "a.t", "replays.dlq.a.t"].map(str::to_owned);
        let check = |group: Option<&str>, expected: &[&str]| {
            let topics = Topics {
                named: Vec::new(),
                group: group.map(str::to_owned),
            };
            assert_eq!(topics.among(existing.to_vec()), expected);
        };
        check(None, &["dlq.a.t", "dlq.ab.t"]);
        check(Some("a"), &["dlq.a.t"]);
        check(Some("b"), &[]);
    }
}
