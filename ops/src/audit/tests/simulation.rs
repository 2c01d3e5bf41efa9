//! Random histories of a group, audited with very little memory and compared with a model that
//! keeps everything.

use super::model::{Found, OLD_NAME, RENAMED, model};
use super::world::{GROUP, Record, RecordKind, TOPIC, World};
use crate::audit::identity::Place;
use crate::audit::verify::{Limits, verify};
use crate::audit::{AuditError, AuditSettings, Findings, Handlers, PartitionRange};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// The fate of a record in a simulated history.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Effect,
    EffectOfBoth,
    Dead,
    DeadOfAnother,
    DeadByAnotherName,
    Replayed,
    Contradicted,
    Parked,
    Skipped,
    SkippedByRecord,
    Nothing,
}

#[derive(Debug, Clone)]
struct Step {
    partition: i32,
    key: Option<u8>,
    kind: u8,
    /// It has the id of the event this many steps earlier.
    copy_of: Option<usize>,
    fate: Fate,
    /// Shift of its completion time, in milliseconds. Negative: too early.
    shift_ms: i64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fate = prop_oneof![
        12 => Just(Fate::Effect),
        1 => Just(Fate::EffectOfBoth),
        1 => Just(Fate::Dead),
        1 => Just(Fate::DeadOfAnother),
        1 => Just(Fate::DeadByAnotherName),
        1 => Just(Fate::Replayed),
        1 => Just(Fate::Contradicted),
        1 => Just(Fate::Parked),
        1 => Just(Fate::Skipped),
        1 => Just(Fate::SkippedByRecord),
        1 => Just(Fate::Nothing),
    ];
    let step = (
        0..2_i32,
        proptest::option::weighted(0.9, 0..5_u8),
        0..7_u8,
        proptest::option::weighted(0.15, 1..10_usize),
        fate,
        prop_oneof![8 => Just(0_i64), 1 => -60..60_i64],
    );
    let step = step.prop_map(|(partition, key, kind, copy_of, fate, shift_ms)| Step {
        partition,
        key,
        kind,
        copy_of,
        fate,
        shift_ms,
    });
    proptest::collection::vec(step, 0..80)
}

fn world(steps: &[Step]) -> World {
    let mut world = World::default();
    let mut records: Vec<Record> = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let original = step.copy_of.and_then(|back| number.checked_sub(back));
        let record_kind = match original.map(|at| records[at].kind.clone()) {
            Some(kind) => kind,
            None => match step.kind {
                0 => RecordKind::Raw,
                1 => RecordKind::Unreadable,
                2 | 3 => RecordKind::Event {
                    ty: RENAMED.to_owned(),
                    id: number.to_string(),
                },
                kind => RecordKind::Event {
                    ty: format!("type.{kind}"),
                    id: number.to_string(),
                },
            },
        };
        let mut record = Record::new(record_kind).at(step.partition, number as i64);
        record.key = step.key.map(|key| key.to_string());
        apply(
            &mut world,
            &record,
            step,
            number as i64 * 10 + step.shift_ms,
        );
        world.add(record.clone());
        records.push(record);
    }
    world
}

fn apply(world: &mut World, record: &Record, step: &Step, at_ms: i64) {
    let handler = match &record.kind {
        // Of the type without a handler, unless its fate implies one.
        RecordKind::Event { ty, .. } if ty == "type.6" => None,
        RecordKind::Event { ty, .. } => Some(ty.clone()),
        RecordKind::Raw => Some("raw".to_owned()),
        RecordKind::Unreadable => None,
    };
    let complete = |world: &mut World, at_ms| {
        if let Some(handler) = &handler {
            world.complete(record, handler, at_ms);
        }
    };
    match step.fate {
        Fate::Effect => complete(world, at_ms),
        Fate::EffectOfBoth => {
            complete(world, at_ms);
            world.complete(record, OLD_NAME, at_ms + 1);
        }
        Fate::Dead => world.dead_letter(record, "handler"),
        Fate::DeadOfAnother => world.foreign_dead_letter(record, "another", TOPIC),
        Fate::DeadByAnotherName => {
            let Place { partition, offset } = record.place;
            world.dead_letter(
                &Record::event("type.4", "x").at(partition, offset),
                "schema",
            );
        }
        Fate::Replayed => {
            let dead_letter = Place {
                partition: 0,
                offset: world.dead_letters.len() as i64,
            };
            world.dead_letter(record, "handler");
            world.replay_marks.push((dead_letter, true));
            complete(world, at_ms + 300);
        }
        Fate::Contradicted => {
            world.dead_letter(record, "handler");
            complete(world, at_ms + 300);
        }
        Fate::Parked => world.park(record, u32::from(at_ms % 20 == 0)),
        Fate::Skipped => world.dead_letter(record, "skipped"),
        Fate::SkippedByRecord => world.skip(record),
        Fate::Nothing => {}
    }
}

fn places(findings: &Findings) -> BTreeMap<Place, u64> {
    assert_eq!(findings.count, findings.listed.len() as u64);
    let mut places = BTreeMap::new();
    for found in &findings.listed {
        let place = Place {
            partition: found.partition,
            offset: found.offset,
        };
        *places.entry(place).or_default() += 1;
    }
    places
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn an_audit_with_little_memory_agrees_with_a_full_model(
        steps in steps(),
        from in 0..20_i64,
        lag in 0..20_i64,
        order_entries in 1..12_usize,
        pending_bytes in prop_oneof![Just(1_usize), Just(2_000)],
        candidates_bytes in prop_oneof![Just(1_usize), Just(1_000), Just(100_000)],
        batch_records in 1..10_usize,
    ) {
        let world = world(&steps);
        let ranges: Vec<PartitionRange> = (0..2)
            .map(|partition| {
                let to = world.end(partition);
                PartitionRange {
                    partition,
                    low: 0,
                    from: from.min(to),
                    to,
                    committed: Some(to - lag),
                }
            })
            .collect();
        let mut settings = AuditSettings::new(GROUP, TOPIC);
        settings.handlers = Handlers::default().with(RENAMED, RENAMED).with(RENAMED, OLD_NAME);
        let limits = Limits {
            order_entries,
            pending_bytes,
            candidates_bytes,
            contradictions_bytes: pending_bytes,
            batch_bytes: usize::MAX,
            batch_records,
        };
        let expected = model(&world, &ranges);
        // Far above the number of keys: passes without progress would never end.
        let mut watch = |progress: crate::audit::Progress| assert!(progress.pass < 100, "no end of passes");
        let report = match verify(&world, &settings, limits, ranges, &mut watch) {
            Ok(report) => report,
            Err(AuditError::UnknownToStore { .. }) => {
                prop_assert!(world.store.borrow().is_empty());
                return Ok(());
            }
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        let once = |findings| places(findings).into_iter().map(|(place, count)| {
            assert_eq!(count, 1, "{place:?} is found once");
            place
        }).collect::<BTreeSet<_>>();
        let found = Found {
            missing: once(&report.missing),
            doubled: places(&report.doubled),
            out_of_order: once(&report.out_of_order),
            ignored: report.total.ignored,
            effects: report.total.effects,
        };
        prop_assert_eq!(found, expected);
        let ends = report.total;
        let all = ends.effects + ends.dead_letters + ends.parked + ends.skipped + ends.ignored;
        prop_assert_eq!(all + report.missing.count, ends.records);
    }
}
