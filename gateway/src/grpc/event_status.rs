//! The status of an event as a message. Pure.

use super::proto::gateway as proto;
use crate::status::{EventState, EventStatus, GroupState, GroupStatus, LogPlace};
use evenkeel::kafka::RecordPosition;

impl From<EventStatus> for proto::EventStatus {
    fn from(status: EventStatus) -> Self {
        let state = match status.state {
            EventState::Accepted => proto::EventState::Accepted,
            EventState::Published => proto::EventState::Published,
            EventState::UnknownPosition => proto::EventState::UnknownPosition,
        };
        let waits = status.outbox.filter(|outbox| outbox.waiting);
        Self {
            id: status.id,
            source: status.source,
            r#type: status.ty,
            state: state.into(),
            in_outbox_since: waits.map(|outbox| outbox.since.to_string()),
            log: status.log.map(log_place),
            groups: status.groups.into_iter().map(group).collect(),
            note: status.note,
        }
    }
}

fn log_place(place: LogPlace) -> proto::LogPlace {
    let found = proto::Position {
        topic: place.topic,
        partition: place.partition,
        offset: Some(place.offset),
    };
    proto::LogPlace {
        position: Some(found),
        timestamp: place.timestamp.map(|time| time.to_string()),
        duplicates: place.duplicates.into_iter().map(position).collect(),
    }
}

fn position(position: RecordPosition) -> proto::Position {
    proto::Position {
        topic: position.topic,
        partition: position.partition,
        offset: Some(position.offset),
    }
}

fn group(status: GroupStatus) -> proto::GroupStatus {
    let state = match status.state {
        GroupState::Settled => proto::GroupState::Settled,
        GroupState::Pending => proto::GroupState::Pending,
        GroupState::Waiting => proto::GroupState::Waiting,
        GroupState::Retrying => proto::GroupState::Retrying,
        GroupState::Dead => proto::GroupState::Dead,
        GroupState::Skipped => proto::GroupState::Skipped,
        GroupState::Unassigned => proto::GroupState::Unassigned,
        GroupState::Unknown => proto::GroupState::Unknown,
    };
    let (behind, behind_reason) = match status.behind {
        None => (None, None),
        Some(behind) => {
            let position = proto::Position {
                topic: behind.topic,
                partition: behind.partition,
                offset: behind.offset,
            };
            (Some(position), behind.reason)
        }
    };
    proto::GroupStatus {
        group: status.group,
        state: state.into(),
        records_before: status.records_before,
        behind,
        behind_reason,
        until: status.until.map(|time| time.to_string()),
        attempt: status.attempt,
        class: status.class,
        reason: status.reason,
        skipped_by: status.skipped_by,
        completed_at: status.completed_at.map(|time| time.to_string()),
        dead_letter: status.dead_letter.map(position),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Behind, OutboxPlace};
    use jiff::Timestamp;

    fn epoch() -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    #[test]
    fn a_waiting_group_names_the_record_before() {
        let mut waiting = GroupStatus::new("stock", GroupState::Waiting);
        let mut behind = Behind::new("shop.orders", 1, None);
        behind.reason = Some("its attempt failed".to_owned());
        waiting.behind = Some(behind);
        waiting.until = Some(epoch());
        let message = group(waiting);
        assert_eq!(message.state(), proto::GroupState::Waiting);
        let position = message.behind.expect("a position");
        assert_eq!((position.partition, position.offset), (1, None));
        assert_eq!(message.behind_reason.as_deref(), Some("its attempt failed"));
        assert_eq!(message.until.as_deref(), Some("1970-01-01T00:00:00Z"));
    }

    #[test]
    fn only_an_event_that_waits_is_in_the_outbox() {
        for (waiting, expected) in [(true, Some("1970-01-01T00:00:00Z")), (false, None)] {
            let mut status = EventStatus::new("o-1", "/web", "shop.order-placed.v1");
            let mut outbox = OutboxPlace::waiting_since(epoch());
            outbox.waiting = waiting;
            status.outbox = Some(outbox);
            let message = proto::EventStatus::from(status);
            assert_eq!(message.in_outbox_since.as_deref(), expected);
        }
    }

    #[test]
    fn every_position_of_the_event_is_named() {
        let mut status = EventStatus::new("o-1", "/web", "shop.order-placed.v1");
        status.state = EventState::Published;
        let mut log = LogPlace::new("shop.orders", 3, 4_711);
        log.duplicates.push(RecordPosition {
            topic: "shop.orders".to_owned(),
            partition: 3,
            offset: 4_712,
        });
        status.log = Some(log);
        let message = proto::EventStatus::from(status);
        assert_eq!(message.state(), proto::EventState::Published);
        let log = message.log.expect("a place");
        let offsets = log
            .position
            .iter()
            .chain(&log.duplicates)
            .map(|at| at.offset);
        assert_eq!(offsets.collect::<Vec<_>>(), [Some(4_711), Some(4_712)]);
    }
}
