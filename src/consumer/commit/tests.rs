//! Which commits are due: without a client, by the function that decides it.

use super::*;
use crate::consumer::state::commit_metadata::Log;
use crate::consumer::state::partition::Partition;

fn track(committed: Option<i64>) -> Track {
    let owned = OwnedPartition {
        epoch: Epoch(1),
        topic: "t".into(),
        partition: 0,
        committed,
        parked_of: None,
    };
    Track {
        owned,
        committed_at: Instant::now(),
        metadata: None,
        is_whole: true,
        refused: None,
        topic_id: None,
        lag: metrics::Gauge::noop(),
        oldest_seconds: metrics::Gauge::noop(),
        parked: [metrics::Gauge::noop(), metrics::Gauge::noop()],
    }
}

fn position(watermark: Option<i64>, next: Option<i64>) -> PartitionProgress {
    PartitionProgress {
        epoch: Epoch(1),
        watermark,
        next,
        unsettled: Vec::new(),
        log: Log::default(),
        is_whole: true,
        may_step_back: false,
        oldest_received_at: None,
    }
}

fn due_now(track: &Track, position: &PartitionProgress) -> Option<DueCommit> {
    due(
        track,
        position,
        "g",
        Instant::now(),
        commit_metadata::BYTES_MAX,
        false,
    )
}

#[test]
fn only_progress_is_committed_and_never_a_step_back() {
    let offset = |committed, watermark| {
        due_now(&track(committed), &position(watermark, watermark)).map(|due| due.offset)
    };
    assert_eq!(offset(None, None), None);
    assert_eq!(offset(None, Some(5)), Some(5));
    assert_eq!(offset(Some(5), Some(5)), None);
    assert_eq!(offset(Some(5), Some(6)), Some(6));
    assert_eq!(offset(Some(5), Some(4)), None);
}

#[test]
fn a_partition_that_fell_back_is_committed_lower() {
    let fallen = PartitionProgress {
        may_step_back: true,
        ..position(Some(4), Some(4))
    };
    let due = due_now(&track(Some(900)), &fallen).map(|due| due.offset);
    assert_eq!(due, Some(4));
}

#[test]
fn records_settled_above_a_slow_one_are_committed_as_metadata() {
    let position = PartitionProgress {
        unsettled: vec![5..6],
        ..position(Some(5), Some(9))
    };
    let due = due_now(&track(Some(5)), &position).expect("three offsets are settled above");
    assert_eq!(due.offset, 5);
    let again = Track {
        metadata: due.metadata.text.clone(),
        ..track(Some(5))
    };
    assert!(due.metadata.text.is_some() && due_now(&again, &position).is_none());
}

#[test]
fn only_retry_partitions_repeat_an_old_commit() {
    let retry_of = |parked_of| {
        let mut track = track(Some(5));
        track.owned.parked_of = parked_of;
        track
    };
    let source = Partition::new("s".into(), 0, Epoch(2), None);
    let (retry, own) = (retry_of(Some(Arc::new(source))), retry_of(None));
    let is_due = |track: &Track, age: Duration| {
        let now = track.committed_at + age;
        let position = position(Some(5), Some(5));
        due(
            track,
            &position,
            "g",
            now,
            commit_metadata::BYTES_MAX,
            false,
        )
        .is_some()
    };
    assert!(!is_due(&retry, AGAIN_AFTER));
    assert!(is_due(&retry, AGAIN_AFTER * 2));
    assert!(!is_due(&own, AGAIN_AFTER * 2));
}
