//! Steps of the queue: claims arrive, transactions begin and end.

use super::*;
use crate::inbox::group_commit::tests::key;

const FAST: GroupEnd = GroupEnd::After(Duration::from_millis(1));

fn queue(open_max: u32, size: usize, ids: impl Iterator<Item = u32>) -> Queue<u32> {
    let mut queue = Queue::new(open_max, GROUP_MAX, Instant::now());
    queue.size = size;
    ids.for_each(|id| queue.push(key(id), id));
    queue
}

fn open(queue: &mut Queue<u32>) -> Vec<u32> {
    open_at(queue, Instant::now()).0
}

/// Opens a transaction that begins at once.
fn open_at(queue: &mut Queue<u32>, now: Instant) -> (Vec<u32>, Level) {
    match queue.may_open(now) {
        true => take_at(queue, now),
        false => (Vec::new(), queue.level(now)),
    }
}

fn take_at(queue: &mut Queue<u32>, now: Instant) -> (Vec<u32>, Level) {
    let (claims, level) = queue.take(now);
    (claims.into_iter().map(|(_, id)| id).collect(), level)
}

fn end(queue: &mut Queue<u32>, ids: &[u32], ended: GroupEnd) {
    let keys: Vec<InboxKey> = ids.iter().map(|id| key(*id)).collect();
    queue.ended(&keys, ended, Level::Parallel, Instant::now());
}

#[test]
fn one_alone_is_opened_at_once() {
    let mut queue = queue(1, 64, 0..1);
    assert_eq!(open(&mut queue), [0]);
    assert_eq!(open(&mut queue), [0; 0]);
}

#[test]
fn waiting_claims_share_the_next_transaction() {
    let mut queue = queue(1, 64, 0..1);
    open(&mut queue);
    (1..4).for_each(|id| queue.push(key(id), id));
    assert_eq!(open(&mut queue), [0; 0], "one is open");
    end(&mut queue, &[0], FAST);
    assert_eq!(open(&mut queue), [1, 2, 3]);
}

#[test]
fn claims_that_arrive_while_a_transaction_begins_share_it() {
    let mut queue = queue(1, 64, 0..1);
    let now = Instant::now();
    assert!(queue.may_open(now));
    (1..4).for_each(|id| queue.push(key(id), id));
    assert!(!queue.may_open(now), "one is open");
    assert_eq!(take_at(&mut queue, now).0, [0, 1, 2, 3]);
}

#[test]
fn transactions_that_begin_together_share_the_claims() {
    let mut queue = queue(4, 64, 0..1);
    let now = Instant::now();
    assert!(queue.may_open(now));
    (1..10).for_each(|id| queue.push(key(id), id));
    assert!(queue.may_open(now));
    let taken: Vec<usize> = (0..2).map(|_| take_at(&mut queue, now).0.len()).collect();
    assert_eq!(taken, [3, 3]);
    let opened: Vec<usize> = (0..3).map(|_| open(&mut queue).len()).collect();
    assert_eq!(opened, [2, 2, 0]);
}

#[test]
fn no_transaction_is_opened_for_claims_that_others_will_take() {
    let mut queue = queue(4, 64, [1, 1].into_iter());
    let now = Instant::now();
    assert!(queue.may_open(now));
    assert!(!queue.may_open(now), "one of a key to a transaction");
    queue.push(key(2), 2);
    assert!(queue.may_open(now));
    assert!(!queue.may_open(now), "each has a claim");
    assert_eq!(take_at(&mut queue, now).0, [1]);
    assert_eq!(take_at(&mut queue, now).0, [2]);
    end(&mut queue, &[2], FAST);
    assert!(!queue.may_open(now), "its key is claimed");
    end(&mut queue, &[1], FAST);
    assert_eq!(open(&mut queue), [1]);
}

#[test]
fn a_claim_does_not_wait_for_a_transaction_that_begins_slowly() {
    let mut queue = queue(4, 64, 1..3);
    let now = Instant::now();
    assert!(queue.may_open(now) && queue.may_open(now));
    assert_eq!(take_at(&mut queue, now).0, [1]);
    end(&mut queue, &[1], FAST);
    assert!(!queue.may_open(now), "the other one will take it");
    queue.begins_slowly();
    assert!(queue.may_open(now));
    assert!(!queue.may_open(now), "one is enough");
    assert_eq!(take_at(&mut queue, now).0, [2]);
    queue.push(key(3), 3);
    let late = queue.take_late(true, now).0;
    assert_eq!(late, [(key(3), 3)], "it has begun after all");
}

#[test]
fn a_failed_begin_takes_no_claim_that_another_transaction_serves() {
    /// What the other transaction does meanwhile.
    type Other = fn(&mut Queue<u32>, Instant);
    let serves: Other = |queue, now| assert_eq!(take_at(queue, now).0, [1]);
    let begins: Other = |_, _| {};
    let is_slow: Other = |queue, _| queue.begins_slowly();
    let ends: Other = |queue, now| {
        let (taken, _) = take_at(queue, now);
        end(queue, &taken, FAST);
        taken.into_iter().for_each(|id| queue.push(key(id), id));
    };
    let cases = [(serves, 0), (begins, 1), (is_slow, 2), (ends, 2)];
    for (at, (other, expected)) in cases.into_iter().enumerate() {
        let mut queue = queue(2, 64, 1..3);
        let now = Instant::now();
        assert!(queue.may_open(now) && queue.may_open(now));
        queue.begins_slowly();
        other(&mut queue, now);
        // No share is left for others.
        queue.open_max = 1;
        let taken = queue.take_late(false, now).0.len();
        assert_eq!(taken, expected, "case {at}");
    }
}

/// The level became stricter while they began, so the first takes all.
#[test]
fn a_transaction_may_find_that_others_took_all_claims() {
    let mut queue = queue(2, 64, 1..3);
    let now = Instant::now();
    assert!(queue.may_open(now) && queue.may_open(now));
    queue.collided(Level::Parallel, 1.0, now);
    queue.collided(Level::Parallel, 1.0, now);
    let all = take_at(&mut queue, now);
    assert_eq!(all, (vec![1, 2], Level::Exclusive));
    assert_eq!(take_at(&mut queue, now).0, [0; 0]);
    end(&mut queue, &[], FAST);
    end(&mut queue, &[1, 2], FAST);
    assert!(!queue.may_open(now), "nothing waits");
}

#[test]
fn claims_are_spread_over_the_transactions_that_may_be_open() {
    let mut queue = queue(4, 64, 0..10);
    let opened: Vec<usize> = (0..5).map(|_| open(&mut queue).len()).collect();
    assert_eq!(opened, [3, 3, 2, 2, 0]);
}

#[test]
fn a_key_is_in_one_transaction_and_blocks_no_other() {
    let mut queue = queue(2, 64, [1, 1, 1, 2, 3].into_iter());
    assert_eq!(open(&mut queue), [1, 2, 3]);
    assert_eq!(open(&mut queue), [0; 0], "all that wait are claimed");
    end(&mut queue, &[1, 2, 3], FAST);
    assert_eq!(open(&mut queue), [1], "and one of a key to a transaction");
}

#[test]
fn refused_claims_are_tried_alone_and_later_ones_together() {
    let mut queue = queue(1, 64, 0..3);
    let refused = open(&mut queue);
    end(&mut queue, &refused, GroupEnd::Refused);
    queue.size = 64;
    for id in [8, 0, 9, 2, 1] {
        queue.push(key(id), id);
    }
    for expected in [&[8, 9][..], &[0], &[2], &[1]] {
        assert_eq!(open(&mut queue), expected);
        end(&mut queue, expected, FAST);
    }
    for id in [0, 2] {
        queue.push(key(id), id);
    }
    assert_eq!(open(&mut queue), [0, 2], "each was alone once");
}

#[test]
fn groups_grow_while_fast_and_full_and_shrink_when_slow() {
    let mut queue = queue(1, 1, 0..1000);
    let group = |queue: &mut Queue<u32>, ended| {
        let ids = open(queue);
        end(queue, &ids, ended);
        ids.len()
    };
    let sizes: Vec<usize> = (0..10).map(|_| group(&mut queue, FAST)).collect();
    assert_eq!(sizes, [1, 2, 4, 8, 16, 32, 64, 128, 256, 256]);
    (0..200).for_each(|id| queue.push(key(1000 + id), id));
    let slow = GroupEnd::After(TARGET_DURATION * 2);
    assert_eq!(group(&mut queue, slow), 256);
    assert_eq!(group(&mut queue, GroupEnd::Lost), 128);
    assert_eq!(group(&mut queue, GroupEnd::After(TARGET_DURATION)), 1);
    assert_eq!(group(&mut queue, FAST), 1);
    assert_eq!(group(&mut queue, FAST), 2);
}

#[test]
fn all_waiting_claims_can_be_failed_at_once() {
    let mut queue = queue(1, 1, 0..3);
    let opened = open(&mut queue);
    assert_eq!(queue.take_waiting().collect::<Vec<_>>(), [1, 2]);
    end(&mut queue, &opened, GroupEnd::Lost);
    assert_eq!(open(&mut queue), [0; 0]);
}

#[test]
fn groups_below_the_limit_do_not_change_it() {
    let mut queue = queue(1, 8, 0..3);
    let ids = open(&mut queue);
    end(&mut queue, &ids, FAST);
    assert_eq!(queue.size, 8);
}

#[test]
fn after_collisions_one_group_has_all_waiting_claims() {
    let mut queue = queue(4, 64, 0..8);
    let now = Instant::now();
    let groups: Vec<_> = (0..4).map(|_| open_at(&mut queue, now)).collect();
    assert!(groups.iter().all(|(_, level)| *level == Level::Parallel));
    (8..20).for_each(|id| queue.push(key(id), id));
    queue.collided(Level::Parallel, 1.0, now);
    let hold = queue
        .collided(Level::Parallel, 1.0, now)
        .expect("it changes");
    for (ids, _) in &groups {
        assert_eq!(open_at(&mut queue, now).0, [0; 0], "others are open");
        end(&mut queue, ids, GroupEnd::Collided);
    }
    let all: Vec<u32> = (8..20).collect();
    assert_eq!(open_at(&mut queue, now), (all, Level::Exclusive));
    queue.push(key(20), 20);
    queue.push(key(21), 21);
    assert_eq!(open_at(&mut queue, now).0, [0; 0]);
    let later = open_at(&mut queue, now + hold);
    assert_eq!(later, (vec![20], Level::Parallel), "they are spread again");
}

#[test]
fn a_stricter_level_after_slow_groups_is_reported() {
    let mut queue = queue(2, 64, 0..2);
    let now = Instant::now();
    let ids = open(&mut queue);
    let keys: Vec<_> = ids.into_iter().map(key).collect();
    assert_eq!(queue.collided(Level::Parallel, 1.0, now), None);
    let slow = GroupEnd::After(TARGET_DURATION + Duration::from_millis(1));
    let hold = queue.ended(&keys, slow, Level::Parallel, now);
    assert!(hold.is_some());
    assert_eq!(queue.level(now), Level::Exclusive);
}

#[test]
fn returned_claims_come_first_and_collided_ones_run_alone() {
    let mut queue = queue(1, 64, 0..3);
    let opened = open(&mut queue);
    assert_eq!(opened, [0, 1, 2]);
    queue.push(key(3), 3);
    queue.push(key(0), 0);
    queue.mark_suspect(key(0));
    queue.push_back_to_front(vec![(key(1), 1), (key(2), 2)]);
    end(&mut queue, &opened, GroupEnd::Collided);
    for expected in [&[1, 2, 3][..], &[0]] {
        assert_eq!(open(&mut queue), expected);
        end(&mut queue, expected, FAST);
    }
}
