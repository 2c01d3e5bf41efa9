//! The answer: where an event is. Its JSON is a contract: members may be added, and none is renamed
//! or changes its meaning. Absent members are unknown or do not apply.

use evenkeel::kafka::RecordPosition;
use jiff::Timestamp;
use serde::{Serialize, Serializer};

/// Where an event is. Times are RFC 3339 in UTC.
///
/// ```
/// use evenkeel_gateway::status::{EventState, EventStatus};
///
/// let status = EventStatus::new("o-1", "/callers/web", "shop.order-placed.v1");
/// let json = serde_json::to_value(&status).expect("JSON");
/// assert_eq!(json["state"], "unknown-position");
/// assert_eq!(json["type"], "shop.order-placed.v1");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct EventStatus {
    /// The event's `id`.
    pub id: String,
    /// Its `source`.
    pub source: String,
    /// Its `type`.
    #[serde(rename = "type")]
    pub ty: String,
    /// How far it has come.
    pub state: EventState,
    /// Its place in the outbox, while it waits there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outbox: Option<OutboxPlace>,
    /// Its position on the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<LogPlace>,
    /// The groups that read its topic, sorted by name. Empty while the position is unknown, and
    /// until the gateway has found the groups: the member `note` says so.
    pub groups: Vec<GroupStatus>,
    /// What the answer does not cover, and why. For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl EventStatus {
    /// An event of which only the identity is known.
    pub fn new(id: impl Into<String>, source: impl Into<String>, ty: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            source: source.into(),
            ty: ty.into(),
            state: EventState::UnknownPosition,
            outbox: None,
            log: None,
            groups: Vec::new(),
            note: None,
        }
    }
}

/// How far an event has come on its way to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EventState {
    /// It is durable in the outbox, and is not published yet.
    Accepted,
    /// It is on the log, at the position of the member `log`.
    Published,
    /// It was accepted, and its position is unknown: the member `note` has the reason.
    UnknownPosition,
}

/// The place of an event in the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OutboxPlace {
    /// Whether it waits to be published.
    pub waiting: bool,
    /// When it was accepted.
    pub since: Timestamp,
}

impl OutboxPlace {
    /// An event that waits since this time.
    pub fn waiting_since(since: Timestamp) -> Self {
        Self {
            waiting: true,
            since,
        }
    }
}

/// The position of an event on the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LogPlace {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's timestamp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
    /// Further records of the same event, as far as they were found: a repetition that its
    /// publisher sent again. Consumers with an inbox handle only one of them.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        serialize_with = "serialize_positions"
    )]
    pub duplicates: Vec<RecordPosition>,
}

impl LogPlace {
    /// A position without a time.
    pub fn new(topic: impl Into<String>, partition: i32, offset: i64) -> Self {
        Self {
            topic: topic.into(),
            partition,
            offset,
            timestamp: None,
            duplicates: Vec::new(),
        }
    }
}

/// The state of an event in a consumer group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct GroupStatus {
    /// The name of the group.
    pub group: String,
    /// The state.
    pub state: GroupState,
    /// For `pending`: the number of unsettled offsets before it in its partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records_before: Option<u64>,
    /// For `waiting`: the record for which it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind: Option<Behind>,
    /// For `retrying` and `waiting`: the time of the next attempt, its own or that of the record
    /// before it. In the past if the attempt is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// For `retrying` and `dead`: the number of attempts so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The class of the last failure, such as `transient` or `permanent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The message of the last failure, or why the state is unknown. For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For `skipped`: the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped_by: Option<String>,
    /// For `settled`: when its effect was committed, by the group's inbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
    /// For `dead` and `skipped`, and for `unknown` if a later state was not ruled out: the position
    /// of the dead letter.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "serialize_position"
    )]
    pub dead_letter: Option<RecordPosition>,
}

impl GroupStatus {
    /// A group in this state, without details.
    pub fn new(group: impl Into<String>, state: GroupState) -> Self {
        Self {
            group: group.into(),
            state,
            records_before: None,
            behind: None,
            until: None,
            attempt: None,
            class: None,
            reason: None,
            skipped_by: None,
            completed_at: None,
            dead_letter: None,
        }
    }
}

/// The state of an event in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum GroupState {
    /// The group is done with it: handled, a known duplicate, or of a type that it ignores.
    Settled,
    /// The group has not settled it. It may run at this moment, or be retried in place.
    Pending,
    /// It is in the retry topic, behind another record of its key.
    Waiting,
    /// It failed, and is in the retry topic until its next attempt.
    Retrying,
    /// It failed for good, and is in the dead-letter topic.
    Dead,
    /// An operator skipped it.
    Skipped,
    /// The group has not settled it, and has no member that could.
    Unassigned,
    /// The group does not exist, or its state could not be read: the member `reason` has more.
    Unknown,
}

/// The record for which an event waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Behind {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// Why that record waits. For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Behind {
    /// A record at a position that may be unknown.
    pub fn new(topic: impl Into<String>, partition: i32, offset: Option<i64>) -> Self {
        Self {
            topic: topic.into(),
            partition,
            offset,
            reason: None,
        }
    }
}

/// A position as an object: the type itself has no serialised form.
#[derive(Serialize)]
struct PositionJson<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
}

impl<'a> From<&'a RecordPosition> for PositionJson<'a> {
    fn from(position: &'a RecordPosition) -> Self {
        Self {
            topic: &position.topic,
            partition: position.partition,
            offset: position.offset,
        }
    }
}

fn serialize_position<S: Serializer>(
    position: &Option<RecordPosition>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    position
        .as_ref()
        .map(PositionJson::from)
        .serialize(serializer)
}

fn serialize_positions<S: Serializer>(
    positions: &[RecordPosition],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(positions.iter().map(PositionJson::from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn the_json_has_the_members_of_the_contract() {
        let mut status = EventStatus::new("o-1", "/web", "shop.order-placed.v1");
        status.state = EventState::Published;
        status.outbox = Some(OutboxPlace::waiting_since(time(0)));
        let mut log = LogPlace::new("shop.orders", 3, 4_711);
        log.timestamp = Some(time(1));
        log.duplicates.push(RecordPosition {
            topic: "shop.orders".to_owned(),
            partition: 3,
            offset: 4_712,
        });
        status.log = Some(log);
        let mut group = GroupStatus::new("payments", GroupState::Dead);
        group.attempt = Some(3);
        group.dead_letter = Some(RecordPosition {
            topic: "dlq.payments.shop.orders".to_owned(),
            partition: 3,
            offset: 1,
        });
        status.groups = vec![group];
        let expected = json!({
            "id": "o-1", "source": "/web", "type": "shop.order-placed.v1", "state": "published",
            "outbox": {"waiting": true, "since": "1970-01-01T00:00:00Z"},
            "log": {
                "topic": "shop.orders", "partition": 3, "offset": 4711,
                "timestamp": "1970-01-01T00:00:01Z",
                "duplicates": [{"topic": "shop.orders", "partition": 3, "offset": 4712}],
            },
            "groups": [{
                "group": "payments", "state": "dead", "attempt": 3,
                "deadLetter": {"topic": "dlq.payments.shop.orders", "partition": 3, "offset": 1},
            }],
        });
        assert_eq!(serde_json::to_value(&status).expect("JSON"), expected);
    }

    #[test]
    fn absent_facts_are_absent_members() {
        let mut waiting = GroupStatus::new("stock", GroupState::Waiting);
        waiting.behind = Some(Behind::new("shop.orders", 1, None));
        waiting.skipped_by = None;
        let expected = json!({
            "group": "stock", "state": "waiting",
            "behind": {"topic": "shop.orders", "partition": 1},
        });
        assert_eq!(serde_json::to_value(&waiting).expect("JSON"), expected);
        let state = serde_json::to_value(EventState::UnknownPosition).expect("JSON");
        assert_eq!(state, "unknown-position");
    }
}
