//! The texts of acknowledgements. They are for people and may change; the outcome is what tools
//! read.

use crate::consumer::commit::TopicPartition;
use crate::consumer::state::assignments::PauseState;
use crate::control::Action;

/// The acknowledgement of a lasting command for a partition. None until it is in force there.
pub(super) fn lasting_detail(
    action: &Action,
    is_paused: bool,
    held: Option<&PauseState>,
) -> Option<&'static str> {
    match (action, held) {
        (Action::Pause { .. }, Some(PauseState::Drained { in_time: true })) => {
            Some("paused: no record of it is handled")
        }
        (Action::Pause { .. }, Some(PauseState::Drained { in_time: false })) => Some(
            "paused: no further record of it starts, but a handler that had started still runs",
        ),
        (Action::Pause { .. }, _) => None,
        (Action::Resume { .. }, _) if is_paused => Some("still paused by another command"),
        (Action::Resume { .. }, Some(_)) => None,
        (Action::Resume { .. }, None) => Some("resumed"),
        (Action::Rate { records_per_second }, _) => Some(match records_per_second {
            Some(_) => "the rate limit applies",
            None => "the rate limit is removed",
        }),
        (
            Action::Skip { .. }
            | Action::RetryNow { .. }
            | Action::Drop { .. }
            | Action::AcceptLoss { .. },
            _,
        ) => None,
    }
}

/// The acknowledgement of a command to retry: how many records and keys it reached, and which
/// partitions it did not.
///
/// Partitions that were not reached are named: the operator repeats the command for them.
pub(super) fn retry_detail(
    records: usize,
    keys: usize,
    unread: &[TopicPartition],
    paused: &[TopicPartition],
) -> String {
    let count = |count: usize, one: &str, more: &str| match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        more_than_one => Some(format!("{more_than_one} {more}")),
    };
    let records = count(records, "record is retried", "records are retried");
    let keys = count(keys, "parked key is released", "parked keys are released");
    let mut parts: Vec<String> = records.into_iter().chain(keys).collect();
    if parts.is_empty() {
        parts.push("no record was waiting".to_owned());
    }
    if !unread.is_empty() {
        parts.push(format!(
            "not reached: the parked records of {}, whose retry topic is still being read; repeat the command",
            partition_names(unread)
        ));
    }
    if !paused.is_empty() {
        parts.push(format!(
            "paused, no record is retried: {}",
            partition_names(paused)
        ));
    }
    parts.join(", ")
}

/// The names of the partitions, for texts.
pub(super) fn partition_names(places: &[TopicPartition]) -> String {
    let names: Vec<String> = places
        .iter()
        .map(|(topic, partition)| format!("{topic}/{partition}"))
        .collect();
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn the_acknowledgement_of_a_retry_names_partitions_not_reached() {
        let places = |partitions: &[i32]| -> Vec<TopicPartition> {
            let place = |partition: &i32| (Arc::from("orders"), *partition);
            partitions.iter().map(place).collect()
        };
        let check = |records, keys, unread: &[i32], paused: &[i32], expected: &[&str]| {
            let parts = retry_detail(records, keys, &places(unread), &places(paused));
            for text in expected {
                assert!(parts.contains(text), "{parts}");
            }
        };
        check(0, 0, &[], &[], &["no record was waiting"]);
        check(
            1,
            4,
            &[],
            &[],
            &["1 record is retried, 4 parked keys are released"],
        );
        let unread = [
            "4 parked keys are released",
            "orders/0 orders/2",
            "repeat the command",
        ];
        check(0, 4, &[0, 2], &[], &unread);
        check(
            0,
            0,
            &[],
            &[1],
            &[
                "no record was waiting",
                "paused, no record is retried: orders/1",
            ],
        );
    }
}
