//! Committed offsets of a group, with their metadata.
//!
//! Owns the decision what follows an answer. Joins no group.

use super::connection::Connection;
use crate::kafka::KafkaError;
use crate::kafka::native::Committed;
use rdkafka::TopicPartitionList;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};
use std::time::Duration;

/// The request, in errors.
const WHAT: &str = "reading the group's offsets";

/// The wait before a request is repeated.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// The committed offsets of these partitions of a topic. Repeats the request while the coordinator
/// moves, and while a transaction has pending offsets, as long as there is time.
pub(super) fn of_group(
    connection: &Connection,
    group: &str,
    topic: &str,
    partitions: &[i32],
) -> Result<Vec<Committed>, KafkaError> {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(topic, *partition);
    }
    loop {
        let client = connection.offset_client(group)?;
        let answer = client.committed(group, &list, connection.remaining(WHAT)?);
        if needs_new_client(&answer) {
            connection.discard_offset_client(&client);
        }
        let has_time = connection
            .remaining(WHAT)
            .is_ok_and(|left| left > RETRY_AFTER);
        if !has_time || !is_passing(&answer) {
            return answer.map_err(|code| {
                let error = connection.unanswered(WHAT, ClientError::OffsetFetch(code));
                error.requires_permission(&format!("DESCRIBE on the group {group}"))
            });
        }
        std::thread::sleep(RETRY_AFTER);
    }
}

/// Whether the answer may be another one soon.
fn is_passing(answer: &Result<Vec<Committed>, Code>) -> bool {
    match answer {
        Ok(found) => found
            .iter()
            .any(|part| part.error == Some(Code::UnstableOffsetCommit)),
        Err(code) => matches!(
            code,
            Code::NotCoordinator
                | Code::CoordinatorNotAvailable
                | Code::CoordinatorLoadInProgress
                | Code::UnstableOffsetCommit
        ),
    }
}

/// Whether the client asks a broker that may not be the group's coordinator any more. It would ask
/// that one again.
fn needs_new_client(answer: &Result<Vec<Committed>, Code>) -> bool {
    matches!(
        answer,
        Err(Code::NotCoordinator
            | Code::CoordinatorNotAvailable
            | Code::OperationTimedOut
            | Code::BrokerTransportFailure)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_offsets_are_asked_for_again() {
        let found = |error| {
            Ok(vec![
                Committed::default(),
                Committed {
                    error,
                    ..Committed::default()
                },
            ])
        };
        assert!(is_passing(&found(Some(Code::UnstableOffsetCommit))));
        assert!(!is_passing(&found(Some(Code::TopicAuthorizationFailed))));
        assert!(!is_passing(&found(None)));
    }

    #[test]
    fn a_client_is_replaced_when_the_coordinator_may_have_moved() {
        for (code, is_repeated, is_replaced) in [
            (Code::NotCoordinator, true, true),
            (Code::CoordinatorNotAvailable, true, true),
            (Code::CoordinatorLoadInProgress, true, false),
            (Code::OperationTimedOut, false, true),
            (Code::GroupAuthorizationFailed, false, false),
        ] {
            let answer = Err(code);
            assert_eq!(is_passing(&answer), is_repeated, "{code:?}");
            assert_eq!(needs_new_client(&answer), is_replaced, "{code:?}");
        }
    }
}
