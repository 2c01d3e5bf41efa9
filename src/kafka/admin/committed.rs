//! Committed offsets of a group, with their metadata.
//!
//! Owns the decision what follows an answer ([`Requests`], pure). Joins no group.

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

/// A coordinator that works answers within this time. With less, a request is not repeated, and a
/// missing answer is no sign of a fault.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// The answer to a request.
type Answer = Result<Vec<Committed>, Code>;

/// The committed offsets of these partitions of a topic. Repeats the request while the coordinator
/// moves, and while a transaction has pending offsets, as long as there is time for an answer.
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
    let mut limit = connection.remaining(WHAT)?;
    let mut requests = Requests::default();
    loop {
        let client = connection.offset_client(group)?;
        let answer = client.committed(group, &list, limit);
        if needs_new_client(&answer, limit, connection.timeout()) {
            connection.discard_offset_client(&client);
        }
        let left = connection.remaining(WHAT).unwrap_or_default();
        if let Some(answer) = requests.last(answer, left) {
            return answer.map_err(|code| {
                let error = ClientError::OffsetFetch(code);
                let error = connection.unanswered_by(client.client(), WHAT, error);
                error.requires_permission(&format!("DESCRIBE on the group {group}"))
            });
        }
        std::thread::sleep(RETRY_AFTER);
        limit = connection.remaining(WHAT).unwrap_or_default();
    }
}

/// The requests of one call so far. Pure.
#[derive(Debug, Default)]
struct Requests {
    /// The answer that the present request is to replace.
    passing: Option<Answer>,
}

impl Requests {
    /// Takes an answer and the time that is left after it. Returns the answer to report. None: the
    /// request is to be repeated.
    fn last(&mut self, answer: Answer, left: Duration) -> Option<Answer> {
        let answer = match (self.passing.take(), answer) {
            // The answer before it has the cause.
            (Some(passing), Err(Code::OperationTimedOut)) => passing,
            (_, answer) => answer,
        };
        if is_passing(&answer) && left > RETRY_AFTER + ANSWER_WITHIN {
            self.passing = Some(answer);
            return None;
        }
        Some(answer)
    }
}

/// Whether the answer may be another one soon.
fn is_passing(answer: &Answer) -> bool {
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
                | Code::BrokerTransportFailure
        ),
    }
}

/// Whether the client asks a broker that may not be the group's coordinator any more. It would ask
/// that one again.
///
/// A timeout is such a sign only if the request had time enough: `limit`, of the `timeout` of all
/// requests of a call. Other groups may be answered by the same client.
fn needs_new_client(answer: &Answer, limit: Duration, timeout: Duration) -> bool {
    match answer {
        Err(Code::OperationTimedOut) => limit >= ANSWER_WITHIN.min(timeout / 2),
        Err(code) => matches!(
            code,
            Code::NotCoordinator | Code::CoordinatorNotAvailable | Code::BrokerTransportFailure
        ),
        Ok(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More time than any request needs.
    const LONG: Duration = Duration::from_secs(30);

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
            (Code::BrokerTransportFailure, true, true),
            (Code::CoordinatorLoadInProgress, true, false),
            (Code::OperationTimedOut, false, true),
            (Code::GroupAuthorizationFailed, false, false),
        ] {
            let answer = Err(code);
            assert_eq!(is_passing(&answer), is_repeated, "{code:?}");
            let is_new = needs_new_client(&answer, ANSWER_WITHIN, LONG);
            assert_eq!(is_new, is_replaced, "{code:?}");
        }
    }

    #[test]
    fn a_timeout_after_a_short_wait_replaces_no_client() {
        let is_new = |limit, timeout| {
            let answer = Err(Code::OperationTimedOut);
            needs_new_client(&answer, Duration::from_millis(limit), timeout)
        };
        assert!(!is_new(1, LONG) && !is_new(499, LONG) && is_new(500, LONG));
        let short = Duration::from_millis(200);
        assert!(!is_new(99, short) && is_new(100, short));
    }

    #[test]
    fn a_request_is_repeated_while_there_is_time_for_an_answer() {
        let mut requests = Requests::default();
        let loading = || Err(Code::CoordinatorLoadInProgress);
        assert_eq!(requests.last(loading(), LONG), None);
        let enough = RETRY_AFTER + ANSWER_WITHIN + Duration::from_millis(1);
        assert_eq!(requests.last(loading(), enough), None);
        let little = RETRY_AFTER + ANSWER_WITHIN;
        assert_eq!(requests.last(loading(), little), Some(loading()));
    }

    #[test]
    fn a_repeat_without_an_answer_does_not_hide_the_one_before() {
        let mut requests = Requests::default();
        let moved: Answer = Err(Code::NotCoordinator);
        let timeout: Answer = Err(Code::OperationTimedOut);
        assert_eq!(requests.last(moved.clone(), LONG), None);
        assert_eq!(
            requests.last(timeout.clone(), Duration::ZERO),
            Some(moved.clone())
        );

        let mut requests = Requests::default();
        assert_eq!(
            requests.last(timeout.clone(), Duration::ZERO),
            Some(timeout)
        );

        let mut requests = Requests::default();
        assert_eq!(requests.last(moved, LONG), None);
        let found = Ok(vec![Committed::default()]);
        assert_eq!(requests.last(found.clone(), LONG), Some(found));
    }
}
