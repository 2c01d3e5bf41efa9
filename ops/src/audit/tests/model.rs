//! A naive model of the audit that keeps everything in memory.

use super::world::{GROUP, Record, RecordKind, World};
use crate::audit::PartitionRange;
use crate::audit::identity::Place;
use evenkeel::kafka::reader::LogRecord;
use std::collections::{BTreeMap, BTreeSet};

pub(super) const RENAMED: &str = "renamed.v2";
pub(super) const OLD_NAME: &str = "renamed.v1";

/// Findings, and the number of records by end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) missing: BTreeSet<Place>,
    pub(super) doubled: BTreeMap<Place, u64>,
    pub(super) out_of_order: BTreeSet<Place>,
    pub(super) ignored: u64,
    pub(super) effects: u64,
}

/// The model: computes the expected findings for the records in `ranges`, with all data in memory.
pub(super) fn model(world: &World, ranges: &[PartitionRange]) -> Found {
    let is_audited = |place: Place| {
        ranges.iter().any(|part| {
            part.partition == place.partition && (part.from..part.settled()).contains(&place.offset)
        })
    };
    let store = world.store.borrow();
    let names = |record: &Record| -> Vec<String> {
        match &record.kind {
            RecordKind::Event { ty, .. } if ty == RENAMED => vec![RENAMED.into(), OLD_NAME.into()],
            RecordKind::Event { ty, .. } => vec![ty.clone()],
            RecordKind::Raw => vec!["raw".into()],
            RecordKind::Unreadable => Vec::new(),
        }
    };
    let completions = |record: &Record| -> Vec<i64> {
        let names = names(record).into_iter();
        let completions = names.filter_map(|name| store.get(&record.delivery(&name)).copied());
        completions.collect()
    };
    let header = |record: &LogRecord, name: &str| {
        let value = record.headers.last(name);
        value.map(|value| String::from_utf8_lossy(value).into_owned())
    };
    // Dead letters of the group by origin: whether it is a skip, the id it carries, and whether it
    // is marked.
    let mut dead_letters: Vec<(Place, bool, Option<String>, bool)> = Vec::new();
    let mut handled: BTreeSet<String> = store.keys().map(|key| key.handler.clone()).collect();
    for dead_letter in &world.dead_letters {
        if header(dead_letter, "__dlq.errors.group").as_deref() != Some(GROUP) {
            continue;
        }
        let number = |name| header(dead_letter, name).and_then(|text| text.parse::<i64>().ok());
        let place = Place {
            partition: number("__dlq.errors.partition").expect("the header is there") as i32,
            offset: number("__dlq.errors.offset").expect("the header is there"),
        };
        let is_skip = header(dead_letter, "evenkeel.dlq.error.stage").as_deref() == Some("skipped");
        let is_event = header(dead_letter, "ce_specversion").as_deref() == Some("1.0");
        let ty = header(dead_letter, "ce_type").filter(|_| is_event);
        let id = header(dead_letter, "ce_id").filter(|_| is_event);
        if is_audited(place) && !is_skip {
            handled.extend(ty);
        }
        let at = Place {
            partition: dead_letter.partition,
            offset: dead_letter.offset,
        };
        let is_marked = world.replay_marks.contains(&(at, true));
        dead_letters.push((place, is_skip, id, is_marked));
    }
    let mut parked: Vec<(Place, Option<String>)> = Vec::new();
    for record in &world.parked {
        let is_event = header(record, "ce_specversion").as_deref() == Some("1.0");
        let offset = header(record, "evenkeel.parked.offset").expect("the header is there");
        let place = Place {
            partition: record.partition,
            offset: offset.parse().expect("a number"),
        };
        if header(record, "evenkeel.parked.rounds").as_deref() != Some("0") {
            handled.extend(header(record, "ce_type").filter(|_| is_event));
        }
        parked.push((place, header(record, "ce_id").filter(|_| is_event)));
    }
    let fits = |record: &Record, id: &Option<String>| match (&record.kind, id) {
        (RecordKind::Event { id: own, .. }, Some(id)) => own == id,
        _ => true,
    };
    let mut found = Found::default();
    let mut lanes: BTreeMap<(i32, String), (i64, Place)> = BTreeMap::new();
    let has_earlier_copy = |place: Place| {
        let own = world.records.iter().find(|record| record.place == place);
        let own = own.expect("the record exists").identity();
        let mut others = world.records.iter().filter(|other| {
            let part = ranges.iter();
            let mut part = part.filter(|part| part.partition == other.place.partition);
            let settled = part.next().map_or(0, PartitionRange::settled);
            other.identity() == own && other.place.offset < settled
        });
        others.any(|other| {
            other.place.partition != place.partition || other.place.offset < place.offset
        })
    };
    for record in world
        .records
        .iter()
        .filter(|record| is_audited(record.place))
    {
        let place = record.place;
        let is_handled = match &record.kind {
            RecordKind::Event { ty, .. } => ty == RENAMED || handled.contains(ty),
            _ => true,
        };
        if !is_handled {
            found.ignored += 1;
            continue;
        }
        let completed = completions(record);
        let own = dead_letters
            .iter()
            .filter(|dead_letter| dead_letter.0 == place);
        let own: Vec<_> = own.collect();
        let Some(first) = completed.iter().min() else {
            let is_dead_letter = own.iter().any(|dead_letter| fits(record, &dead_letter.2));
            let is_parked = parked
                .iter()
                .any(|(origin, id)| *origin == place && fits(record, id));
            if !is_dead_letter && !is_parked && !world.skipped.contains(&place) {
                found.missing.insert(place);
            }
            continue;
        };
        found.effects += 1;
        if completed.len() > 1 {
            *found.doubled.entry(place).or_default() += 1;
        }
        let of_it = own.iter().filter(|dead_letter| match &record.kind {
            RecordKind::Event { id, .. } => dead_letter.2.as_ref() == Some(id),
            _ => dead_letter.2.is_none(),
        });
        let of_it: Vec<_> = of_it.collect();
        let unreplayed = of_it
            .iter()
            .filter(|dead_letter| !dead_letter.1 && !dead_letter.3)
            .count();
        if unreplayed > 0 {
            *found.doubled.entry(place).or_default() += unreplayed as u64;
        }
        let Some(key) = &record.key else { continue };
        if !of_it.is_empty() {
            continue;
        }
        let lane = (place.partition, key.clone());
        let last = lanes.entry(lane).or_insert((*first, place));
        if *first >= last.0 {
            *last = (*first, place);
        } else if !has_earlier_copy(place) && !has_earlier_copy(last.1) {
            found.out_of_order.insert(place);
        }
    }
    found
}
