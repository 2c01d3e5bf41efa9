//! The report for each end that a record can have.

mod model;
mod simulation;
mod world;

use super::identity::Place;
use super::verify::{Limits, verify};
use super::{AuditError, AuditReport, AuditSettings, Handlers, PartitionRange};
use world::{GROUP, Record, TOPIC, World};

const TYPE: &str = "test.happened.v1";

fn settings() -> AuditSettings {
    AuditSettings::new(GROUP, TOPIC)
}

/// An audit whose tables have room for almost nothing.
fn cramped(world: &World) -> AuditReport {
    let limits = Limits {
        order_entries: 1,
        pending_bytes: 1,
        candidates_bytes: 1,
        contradictions_bytes: 1,
        batch_bytes: 1,
        batch_records: 1,
    };
    let range = PartitionRange {
        partition: 0,
        low: 0,
        from: 0,
        to: world.end(0),
        committed: Some(world.end(0)),
    };
    verify(world, &settings(), limits, vec![range], &mut |_| {}).expect("an audit")
}

/// The audit of partition 0 up to `committed`. All of its records exist.
fn audited(
    world: &World,
    settings: &AuditSettings,
    committed: i64,
) -> Result<AuditReport, AuditError> {
    let range = PartitionRange {
        partition: 0,
        low: 0,
        from: 0,
        to: world.end(0),
        committed: Some(committed),
    };
    let limits = Limits::of(settings.memory_bytes);
    verify(world, settings, limits, vec![range], &mut |_| {})
}

fn whole(world: &World) -> AuditReport {
    audited(world, &settings(), world.end(0)).expect("an audit")
}

/// An event with the key `key` at the offset that its id names.
fn event(key: &str, offset: i64) -> Record {
    Record::event(TYPE, &offset.to_string())
        .at(0, offset)
        .with_key(key)
}

/// Offsets of findings.
fn offsets(findings: &super::Findings) -> Vec<i64> {
    assert_eq!(findings.count, findings.listed.len() as u64);
    findings.listed.iter().map(|found| found.offset).collect()
}

#[test]
fn each_end_proves_a_record_and_no_end_means_missing() {
    let mut world = World::default();
    for offset in 0..7 {
        world.add(event("a", offset));
    }
    world.complete(&event("a", 0), TYPE, 1);
    world.dead_letter(&event("a", 1), "handler");
    world.park(&event("a", 2), 1);
    world.dead_letter(&event("a", 3), "skipped");
    world.skip(&event("a", 4));
    world.add(Record::event("test.ignored.v1", "7").at(0, 7));
    let report = whole(&world);
    let total = report.total;
    assert_eq!(total.records, 8);
    assert_eq!((total.effects, total.dead_letters, total.parked), (1, 1, 1));
    assert_eq!((total.skipped, total.ignored), (2, 1));
    assert_eq!(report.types["test.ignored.v1"].ignored, 1);
    assert_eq!(offsets(&report.missing), [5, 6]);
    assert_eq!((report.doubled.count, report.out_of_order.count), (0, 0));
    assert!(!report.proven);
}

#[test]
fn records_above_the_committed_offset_are_lag() {
    let mut world = World::default();
    for offset in 0..5 {
        world.add(event("a", offset));
    }
    world.complete(&event("a", 0), TYPE, 1);
    world.complete(&event("a", 3), TYPE, 2);
    let report = audited(&world, &settings(), 1).expect("an audit");
    assert_eq!((report.lag, report.total.records), (4, 1));
    assert!(report.proven);
}

#[test]
fn a_non_event_is_identified_by_position_and_never_ignored() {
    let mut world = World::default();
    for offset in 0..2 {
        world.add(Record::raw().at(0, offset));
    }
    for offset in 2..4 {
        world.add(Record::unreadable().at(0, offset));
    }
    world.complete(&Record::raw().at(0, 0), "raw", 1);
    world.dead_letter(&Record::unreadable().at(0, 2), "decode");
    let report = whole(&world);
    assert_eq!(offsets(&report.missing), [1, 3]);
    assert_eq!(report.types["(raw)"].effects, 1);
    assert_eq!(report.types["(unreadable)"].dead_letters, 1);
}

#[test]
fn an_event_of_a_fallback_handler_is_identified_by_position() {
    let mut world = World::default();
    for offset in 0..2 {
        world.add(event("a", offset));
    }
    world.complete(&Record::raw().at(0, 0).with_key("a"), "fallback", 1);
    let mut named = settings();
    named.handlers = Handlers::default().with(TYPE, "fallback");
    let report = audited(&world, &named, 2).expect("an audit");
    assert_eq!(
        (report.total.effects, offsets(&report.missing)),
        (1, vec![1])
    );
}

#[test]
fn a_type_is_handled_if_declared_or_if_one_failed() {
    let with = |change: &dyn Fn(&mut World), settings: AuditSettings| {
        let mut world = World::default();
        for offset in 0..3 {
            world.add(event("a", offset));
        }
        world.add(Record::event("test.known.v1", "known").at(0, 3));
        let known = Record::event("test.known.v1", "known").at(0, 3);
        world.complete(&known, "test.known.v1", 1);
        change(&mut world);
        let report = audited(&world, &settings, world.end(0)).expect("an audit");
        offsets(&report.missing)
    };
    assert_eq!(with(&|_| {}, settings()), [0; 0]);
    let failed =
        |stage: &'static str| move |world: &mut World| world.dead_letter(&event("a", 0), stage);
    assert_eq!(with(&failed("handler"), settings()), [1, 2]);
    assert_eq!(with(&failed("skipped"), settings()), [0; 0]);
    let parked = |rounds| move |world: &mut World| world.park(&event("a", 0), rounds);
    assert_eq!(with(&parked(1), settings()), [1, 2]);
    assert_eq!(with(&parked(0), settings()), [0; 0], "it only waits behind");
    let mut named = settings();
    named.handlers = Handlers::default().with(TYPE, "mailer");
    assert_eq!(with(&|_| {}, named.clone()), [0, 1, 2]);
    let by_name = |world: &mut World| world.complete(&event("a", 1), "mailer", 1);
    assert_eq!(with(&by_name, named), [0, 2]);
    assert_eq!(with(&by_name, settings()), [0; 0], "nobody said its name");
}

#[test]
fn an_effect_and_an_unreplayed_dead_letter_contradict_each_other() {
    let mut world = World::default();
    for offset in 0..4 {
        world.add(event("a", offset));
        world.complete(&event("a", offset), TYPE, offset);
    }
    world.dead_letter(&event("a", 0), "handler");
    world.dead_letter(&event("a", 1), "handler");
    world.dead_letter(&event("a", 2), "handler");
    world.dead_letter(&event("a", 3), "skipped");
    let dead_letter = |offset| Place {
        partition: 0,
        offset,
    };
    world.replay_marks.push((dead_letter(1), true));
    world.replay_marks.push((dead_letter(2), true));
    world.replay_marks.push((dead_letter(2), false));
    let report = whole(&world);
    assert_eq!(offsets(&report.doubled), [0, 2]);
    assert_eq!((report.missing.count, report.out_of_order.count), (0, 0));
}

#[test]
fn a_reused_id_is_found_unless_it_was_dead_lettered() {
    let mut world = World::default();
    let again = |offset| event("a", 0).at(0, offset);
    let others = [again(1).with_value("1"), again(2).with_value("2"), again(3)];
    world.add(event("a", 0));
    for other in &others {
        world.add(other.clone());
    }
    world.complete(&event("a", 0), TYPE, 1);
    world.dead_letter(&others[1], "inbox");
    for report in [whole(&world), cramped(&world)] {
        assert_eq!(offsets(&report.reused), [1]);
        assert_eq!(report.missing.count + report.doubled.count, 0);
        let total = report.total;
        assert_eq!((total.effects, total.dead_letters), (2, 1));
        assert!(!report.proven);
    }
}

#[test]
fn an_event_that_two_handlers_completed_is_doubled() {
    let mut world = World::default();
    for offset in 0..3 {
        world.add(event("a", offset));
    }
    world.complete(&event("a", 0), "old", 1);
    world.complete(&event("a", 1), "old", 2);
    world.complete(&event("a", 1), "new", 9);
    world.complete(&event("a", 2), "new", 3);
    let mut settings = settings();
    settings.handlers = Handlers::default().with(TYPE, "old").with(TYPE, "new");
    let report = audited(&world, &settings, 3).expect("an audit");
    assert_eq!(offsets(&report.doubled), [1]);
    assert_eq!(
        report.out_of_order.count, 0,
        "its first effect was in order"
    );
    assert_eq!(report.total.effects, 3);
}

#[test]
fn effects_follow_log_order_per_key_except_replays_and_copies() {
    let at = |times: &[(&str, i64)]| {
        let mut world = World::default();
        for (offset, (key, at_ms)) in (0..).zip(times) {
            world.add(event(key, offset));
            world.complete(&event(key, offset), TYPE, *at_ms);
        }
        world
    };
    let found = |world: &World| offsets(&whole(world).out_of_order);
    assert_eq!(
        found(&at(&[("a", 5), ("a", 5), ("b", 1), ("a", 6)])),
        [0; 0]
    );
    assert_eq!(found(&at(&[("a", 6), ("a", 5), ("b", 1), ("a", 7)])), [1]);
    let mut unordered = settings();
    unordered.is_ordered = false;
    let world = at(&[("a", 6), ("a", 5)]);
    assert!(audited(&world, &unordered, 2).expect("an audit").proven);

    let mut replayed = at(&[("a", 500), ("a", 6), ("a", 7)]);
    assert_eq!(found(&replayed), [1, 2]);
    replayed.dead_letter(&event("a", 0), "handler");
    assert_eq!(found(&replayed), [0; 0]);

    let mut copied = at(&[("a", 1), ("a", 2)]);
    let copy = event("a", 0).at(0, 2);
    copied.add(copy);
    assert_eq!(found(&copied), [0; 0]);
    assert_eq!(whole(&copied).total.effects, 3);
}

#[test]
fn ends_count_for_their_own_group_topic_and_event_only() {
    let check = |change: &dyn Fn(&mut World), missing: &[i64]| {
        let mut world = World::default();
        world.add(event("a", 0));
        world.add(event("a", 1));
        world.complete(&event("a", 1), TYPE, 1);
        change(&mut world);
        assert_eq!(offsets(&whole(&world).missing), missing);
    };
    check(&|_| {}, &[0]);
    check(&|world| world.dead_letter(&event("a", 0), "handler"), &[]);
    check(
        &|world| world.foreign_dead_letter(&event("a", 0), "another", TOPIC),
        &[0],
    );
    check(
        &|world| world.foreign_dead_letter(&event("a", 0), GROUP, "another"),
        &[0],
    );
    // Its topic was recreated: offsets began again.
    check(
        &|world| world.dead_letter(&event("a", 99).at(0, 0), "handler"),
        &[0],
    );
    check(&|world| world.park(&event("a", 99).at(0, 0), 1), &[0]);
    check(
        &|world| world.dead_letter(&Record::raw().at(0, 0), "handler"),
        &[],
    );
}

#[test]
fn records_handled_during_the_audit_are_not_missing() {
    let mut world = World::default();
    world.add(event("a", 0));
    world.add(event("a", 1));
    world.complete(&event("a", 0), TYPE, 1);
    world.complete_later(&event("a", 1), TYPE, 2);
    let report = whole(&world);
    assert!(report.proven, "{report:?}");
    assert_eq!(report.total.effects, 2);
}

#[test]
fn a_store_that_does_not_know_the_group_proves_nothing() {
    let mut world = World::default();
    world.add(event("a", 0));
    let audit = audited(&world, &settings(), 1);
    assert!(matches!(audit, Err(AuditError::UnknownToStore { .. })));
    let other = Record::event("test.other.v1", "7").at(0, 7);
    world.complete(&other, "test.other.v1", 1);
    assert_eq!(whole(&world).total.ignored, 1);
}

#[test]
fn only_the_first_findings_are_listed_and_all_are_counted() {
    let mut world = World::default();
    for offset in 0..10 {
        world.add(event("a", offset));
    }
    world.complete(&event("a", 9), TYPE, 1);
    let mut settings = settings();
    settings.listed_max = 3;
    let report = audited(&world, &settings, 10).expect("an audit");
    assert_eq!(report.missing.count, 9);
    let listed = report.missing.listed.iter().map(|found| found.offset);
    assert_eq!(listed.collect::<Vec<_>>(), [0, 1, 2]);
}

/// The fingerprints decide which key the first pass covers. In one of the two orders it is the
/// second key.
#[test]
fn findings_of_one_pass_are_not_repeated_in_the_next() {
    for keys in [["a", "b"], ["b", "a"]] {
        let mut world = World::default();
        for (offset, at_ms) in [(0, 9), (1, 8), (2, 9), (3, 7)] {
            let record = event(keys[(offset / 2) as usize], offset);
            world.complete(&record, TYPE, at_ms);
            world.add(record);
        }
        let report = cramped(&world);
        assert_eq!(offsets(&report.out_of_order).len(), 2, "{report:?}");
        assert_eq!(report.passes, 2);
    }
}
