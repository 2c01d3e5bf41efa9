//! The comparison of a ring with its topic.

use super::*;
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
        assert_eq!(log.reconcile(&facts), expected, "{facts:?}");
    }
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
