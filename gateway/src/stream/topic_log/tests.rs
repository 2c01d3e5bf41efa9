//! The comparison of a ring with its topic.

use super::*;
use crate::stream::cursor::TopicIdentity;
use crate::stream::ring::{Joined, Place};
use crate::stream::source::LogBounds;

fn log(identity: Option<TopicIdentity>, next: Vec<i64>) -> TopicLog {
    let log = TopicLog::new("topic");
    log.set_state(LogState::Running(identity, Ring::new(next, 1 << 20, 100)));
    log
}

fn facts(identity: Option<TopicIdentity>, bounds: &[(i64, i64)]) -> TopicFacts {
    let bounds = bounds.iter().map(|(low, high)| LogBounds {
        low: Some(*low),
        high: Some(*high),
    });
    TopicFacts {
        identity,
        partitions: bounds.collect(),
    }
}

#[test]
fn the_reader_is_replaced_only_if_the_log_changed() {
    let (one, other) = (Some([1; 16]), Some([2; 16]));
    let bounds = [(0, 10), (0, 10)];
    for (known, facts, expected) in [
        (one, facts(one, &bounds), None),
        (one, facts(None, &bounds), None),
        (None, facts(one, &bounds), None),
        // Recreated.
        (one, facts(other, &[(1, 20), (0, 20)]), Some(vec![1, 0])),
        (None, facts(None, &[(0, 3)]), Some(vec![0])),
        // Cut.
        (one, facts(one, &[(0, 10), (0, 3)]), Some(vec![5, 3])),
        // Grown.
        (
            one,
            facts(one, &[(0, 10), (0, 10), (0, 2)]),
            Some(vec![5, 7, 0]),
        ),
    ] {
        let log = log(known, vec![5, 7]);
        assert_eq!(log.reconcile(&[5, 7], None, &facts), expected, "{facts:?}");
    }
}

#[test]
fn records_read_during_a_request_are_no_cut() {
    let log = log(None, vec![5, 7]);
    // The request was made at 3 and 7, and the ring has moved on.
    let of_then = facts(None, &[(0, 4), (0, 7)]);
    assert_eq!(log.reconcile(&[3, 7], None, &of_then), None);
    // The second partition was cut meanwhile; the first one has all that was read.
    let cut = facts(None, &[(0, 4), (0, 6)]);
    assert_eq!(log.reconcile(&[3, 7], None, &cut), Some(vec![5, 6]));
}

#[test]
fn a_log_that_grew_again_is_cut_where_it_diverged() {
    let log = log(None, vec![5, 7]);
    let grown = facts(None, &[(0, 20), (0, 20)]);
    let found = log.reconcile(&[5, 7], Some((1, 4)), &grown);
    assert_eq!(found, Some(vec![5, 4]));
    let mut place = Place::of_generation(vec![5, 7], 0);
    let gap = LogGap {
        partition: 1,
        from: 7,
        to: 4,
    };
    let (_, joined) = log.join(&mut place).expect("it runs");
    assert_eq!(joined, Joined::Ring(vec![gap]));
}

#[test]
fn an_ended_log_tells_its_reason() {
    let log = log(None, vec![0]);
    let mut place = Place::new(vec![0]);
    assert!(log.join(&mut place).is_ok());
    let problem = Problem::new(ProblemKind::NotFound, "deleted");
    log.set_state(LogState::Ended(problem.clone()));
    assert_eq!(log.join(&mut place), Err(problem));
}
