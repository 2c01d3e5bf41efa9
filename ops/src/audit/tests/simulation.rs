//! Random histories of a group, audited with very little memory and compared with a model that
//! keeps everything.

use crate::audit::identity::Place;
use crate::audit::sources::{Each, Offsets, Sources};
use crate::audit::verify::{Limits, verify};
use crate::audit::{AuditError, AuditSettings, Findings, Handlers, Stretch};
use evenkeel::event::{ContentDigest, Headers};
use evenkeel::inbox::{Completion, InboxKey};
use evenkeel::kafka::reader::{LogRecord, TimestampKind};
use evenkeel::recovery::Replayed;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

pub(super) const GROUP: &str = "group";
pub(super) const TOPIC: &str = "topic";

/// A record of the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    place: Place,
    key: Option<String>,
    what: What,
    value: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Event { ty: String, id: String },
    Raw,
    Unreadable,
}

impl Record {
    fn new(what: What) -> Self {
        let place = Place {
            partition: 0,
            offset: 0,
        };
        Self {
            place,
            key: None,
            what,
            value: "{}",
        }
    }

    pub(super) fn event(ty: &str, id: &str) -> Self {
        Self::new(What::Event {
            ty: ty.to_owned(),
            id: id.to_owned(),
        })
    }

    pub(super) fn raw() -> Self {
        Self::new(What::Raw)
    }

    /// Claims to be an event, of a version that does not exist.
    pub(super) fn unreadable() -> Self {
        Self::new(What::Unreadable)
    }

    pub(super) fn at(self, partition: i32, offset: i64) -> Self {
        Self {
            place: Place { partition, offset },
            ..self
        }
    }

    pub(super) fn keyed(self, key: &str) -> Self {
        Self {
            key: Some(key.to_owned()),
            ..self
        }
    }

    pub(super) fn saying(self, value: &'static str) -> Self {
        Self { value, ..self }
    }

    fn content(&self) -> ContentDigest {
        match &self.what {
            What::Event { ty, .. } => ContentDigest::of_event(ty, self.value.as_bytes()),
            _ => {
                let key = self.key.as_ref().map(String::as_bytes);
                ContentDigest::of_record(Some(0), key, Some(self.value.as_bytes()))
            }
        }
    }

    fn identity(&self) -> (String, String) {
        match &self.what {
            What::Event { id, .. } => ("/source".to_owned(), id.clone()),
            _ => (
                format!("{TOPIC}/{}", self.place.partition),
                format!("{}#{}", self.place.offset, self.content()),
            ),
        }
    }

    fn delivery(&self, handler: &str) -> InboxKey {
        let (source, id) = self.identity();
        InboxKey::new(GROUP, handler, source, id).with_content(self.content())
    }

    fn on_log(&self, topic: &str, place: Place, more: &[(&str, &str)]) -> LogRecord {
        let mut headers = Headers::new();
        let attributes = match &self.what {
            What::Event { ty, id } => vec![
                ("ce_specversion", "1.0"),
                ("ce_source", "/source"),
                ("ce_type", ty.as_str()),
                ("ce_id", id.as_str()),
            ],
            What::Raw => Vec::new(),
            What::Unreadable => vec![
                ("ce_specversion", "9.9"),
                ("ce_source", "/source"),
                ("ce_type", "t"),
                ("ce_id", "i"),
            ],
        };
        for (name, value) in attributes.into_iter().chain(more.iter().copied()) {
            headers.push(name, Some(value.as_bytes()));
        }
        LogRecord {
            topic: topic.into(),
            partition: place.partition,
            offset: place.offset,
            timestamp_kind: TimestampKind::Create,
            timestamp_ms: Some(0),
            key: self.key.as_ref().map(|key| key.clone().into_bytes()),
            value: Some(self.value.as_bytes().to_vec()),
            headers,
        }
    }
}

/// The logs and the store.
#[derive(Default)]
pub(super) struct World {
    records: Vec<Record>,
    dead_letters: Vec<LogRecord>,
    parked: Vec<LogRecord>,
    pub(super) marks: Vec<(Place, bool)>,
    skipped: HashSet<Place>,
    store: RefCell<HashMap<InboxKey, i64>>,
    /// Completions that the store returns only from its second query on.
    coming: RefCell<HashMap<InboxKey, i64>>,
}

impl World {
    pub(super) fn stands(&mut self, record: Record) {
        self.records.push(record);
    }

    pub(super) fn end(&self, partition: i32) -> i64 {
        let own = self.records.iter().map(|record| record.place);
        let own = own.filter(|place| place.partition == partition);
        own.map(|place| place.offset + 1).max().unwrap_or(0)
    }

    pub(super) fn completes(&mut self, record: &Record, handler: &str, at_ms: i64) {
        let store = self.store.get_mut();
        store.entry(record.delivery(handler)).or_insert(at_ms);
    }

    pub(super) fn completes_later(&mut self, record: &Record, handler: &str, at_ms: i64) {
        let coming = self.coming.get_mut();
        coming.insert(record.delivery(handler), at_ms);
    }

    pub(super) fn dies(&mut self, record: &Record, stage: &str) {
        self.dead_letter(record, stage, GROUP, TOPIC);
    }

    pub(super) fn dies_elsewhere(&mut self, record: &Record, group: &str, topic: &str) {
        self.dead_letter(record, "handler", group, topic);
    }

    fn dead_letter(&mut self, record: &Record, stage: &str, group: &str, topic: &str) {
        let place = Place {
            partition: 0,
            offset: self.dead_letters.len() as i64,
        };
        let Place { partition, offset } = record.place;
        let said = [
            ("__dlq.errors.topic", topic),
            ("__dlq.errors.partition", &partition.to_string()),
            ("__dlq.errors.offset", &offset.to_string()),
            ("__dlq.errors.group", group),
            ("evenkeel.dlq.error.stage", stage),
            ("evenkeel.dlq.record.timestamp", "0"),
        ];
        self.dead_letters.push(record.on_log("dlq", place, &said));
    }

    pub(super) fn parks(&mut self, record: &Record, rounds: u32) {
        let place = Place {
            partition: record.place.partition,
            offset: self.parked.len() as i64,
        };
        let said = [
            ("evenkeel.parked.kind", "record"),
            ("evenkeel.parked.offset", &record.place.offset.to_string()),
            ("evenkeel.parked.rounds", &rounds.to_string()),
        ];
        self.parked.push(record.on_log("retry", place, &said));
    }

    pub(super) fn skips(&mut self, record: &Record) {
        self.skipped.insert(record.place);
    }
}

impl Sources for World {
    fn topic(&self, parts: &[Offsets], each: &mut Each<'_>) -> Result<(), AuditError> {
        for record in &self.records {
            let is_meant = parts.iter().any(|part| {
                let Place { partition, offset } = record.place;
                part.partition == partition && (part.start..part.end).contains(&offset)
            });
            if is_meant {
                each(record.on_log(TOPIC, record.place, &[]))?;
            }
        }
        Ok(())
    }

    fn dead_letters(&self, each: &mut Each<'_>) -> Result<(), AuditError> {
        self.dead_letters.iter().cloned().try_for_each(each)
    }

    fn parked(&self, each: &mut Each<'_>) -> Result<(), AuditError> {
        self.parked.iter().cloned().try_for_each(each)
    }

    fn replays(&self, each: &mut dyn FnMut(Place, Option<Replayed>)) -> Result<(), AuditError> {
        let replayed = Replayed {
            by: String::new(),
            at: jiff::Timestamp::UNIX_EPOCH,
            to: String::new(),
            run: String::new(),
            dead_letter_ms: None,
        };
        let marks = self.marks.iter();
        marks.for_each(|(dead_letter, is_marked)| {
            each(*dead_letter, is_marked.then(|| replayed.clone()))
        });
        Ok(())
    }

    fn skipped(&self) -> Result<HashSet<Place>, AuditError> {
        Ok(self.skipped.clone())
    }

    fn completed(&self, keys: &[InboxKey]) -> Result<Vec<Option<Completion>>, AuditError> {
        let mut store = self.store.borrow_mut();
        let told = keys.iter().map(|key| {
            let (completed, at_ms) = store.get_key_value(key)?;
            Some(Completion {
                at_ms: *at_ms,
                content: completed.content,
            })
        });
        let told = told.collect();
        for key in keys {
            if let Some(at_ms) = self.coming.borrow_mut().remove(key) {
                store.insert(key.clone(), at_ms);
            }
        }
        Ok(told)
    }

    fn has_handlers(&self, group: &str, handlers: &[String]) -> Result<Vec<bool>, AuditError> {
        let store = self.store.borrow();
        let has = |handler: &String| {
            let mut keys = store.keys();
            keys.any(|key| key.group == group && key.handler == *handler)
        };
        Ok(handlers.iter().map(has).collect())
    }

    fn has_group(&self, group: &str) -> Result<bool, AuditError> {
        Ok(self.store.borrow().keys().any(|key| key.group == group))
    }
}

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

const RENAMED: &str = "renamed.v2";
const OLD_NAME: &str = "renamed.v1";

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
        let what = match original.map(|at| records[at].what.clone()) {
            Some(what) => what,
            None => match step.kind {
                0 => What::Raw,
                1 => What::Unreadable,
                2 | 3 => What::Event {
                    ty: RENAMED.to_owned(),
                    id: number.to_string(),
                },
                kind => What::Event {
                    ty: format!("type.{kind}"),
                    id: number.to_string(),
                },
            },
        };
        let mut record = Record::new(what).at(step.partition, number as i64);
        record.key = step.key.map(|key| key.to_string());
        enact(
            &mut world,
            &record,
            step,
            number as i64 * 10 + step.shift_ms,
        );
        world.stands(record.clone());
        records.push(record);
    }
    world
}

fn enact(world: &mut World, record: &Record, step: &Step, at_ms: i64) {
    let handler = match &record.what {
        // Of the type without a handler, unless its fate implies one.
        What::Event { ty, .. } if ty == "type.6" => None,
        What::Event { ty, .. } => Some(ty.clone()),
        What::Raw => Some("raw".to_owned()),
        What::Unreadable => None,
    };
    let completes = |world: &mut World, at_ms| {
        if let Some(handler) = &handler {
            world.completes(record, handler, at_ms);
        }
    };
    match step.fate {
        Fate::Effect => completes(world, at_ms),
        Fate::EffectOfBoth => {
            completes(world, at_ms);
            world.completes(record, OLD_NAME, at_ms + 1);
        }
        Fate::Dead => world.dies(record, "handler"),
        Fate::DeadOfAnother => world.dies_elsewhere(record, "another", TOPIC),
        Fate::DeadByAnotherName => {
            let Place { partition, offset } = record.place;
            world.dies(
                &Record::event("type.4", "x").at(partition, offset),
                "schema",
            );
        }
        Fate::Replayed => {
            let dead_letter = Place {
                partition: 0,
                offset: world.dead_letters.len() as i64,
            };
            world.dies(record, "handler");
            world.marks.push((dead_letter, true));
            completes(world, at_ms + 300);
        }
        Fate::Contradicted => {
            world.dies(record, "handler");
            completes(world, at_ms + 300);
        }
        Fate::Parked => world.parks(record, u32::from(at_ms % 20 == 0)),
        Fate::Skipped => world.dies(record, "skipped"),
        Fate::SkippedByRecord => world.skips(record),
        Fate::Nothing => {}
    }
}

/// Findings, and the number of records by end.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    missing: BTreeSet<Place>,
    doubled: BTreeMap<Place, u64>,
    out_of_order: BTreeSet<Place>,
    ignored: u64,
    effects: u64,
}

/// The model: computes the expected findings for the records in `judged`, with all data in memory.
fn model(world: &World, stretches: &[Stretch]) -> Found {
    let is_judged = |place: Place| {
        stretches.iter().any(|part| {
            part.partition == place.partition && (part.from..part.settled()).contains(&place.offset)
        })
    };
    let store = world.store.borrow();
    let names = |record: &Record| -> Vec<String> {
        match &record.what {
            What::Event { ty, .. } if ty == RENAMED => vec![RENAMED.into(), OLD_NAME.into()],
            What::Event { ty, .. } => vec![ty.clone()],
            What::Raw => vec!["raw".into()],
            What::Unreadable => Vec::new(),
        }
    };
    let completions = |record: &Record| -> Vec<i64> {
        let names = names(record).into_iter();
        let told = names.filter_map(|name| store.get(&record.delivery(&name)).copied());
        told.collect()
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
            partition: number("__dlq.errors.partition").expect("it is said") as i32,
            offset: number("__dlq.errors.offset").expect("it is said"),
        };
        let is_skip = header(dead_letter, "evenkeel.dlq.error.stage").as_deref() == Some("skipped");
        let is_event = header(dead_letter, "ce_specversion").as_deref() == Some("1.0");
        let ty = header(dead_letter, "ce_type").filter(|_| is_event);
        let id = header(dead_letter, "ce_id").filter(|_| is_event);
        if is_judged(place) && !is_skip {
            handled.extend(ty);
        }
        let at = Place {
            partition: dead_letter.partition,
            offset: dead_letter.offset,
        };
        let is_marked = world.marks.contains(&(at, true));
        dead_letters.push((place, is_skip, id, is_marked));
    }
    let mut parked: Vec<(Place, Option<String>)> = Vec::new();
    for record in &world.parked {
        let is_event = header(record, "ce_specversion").as_deref() == Some("1.0");
        let offset = header(record, "evenkeel.parked.offset").expect("it is said");
        let place = Place {
            partition: record.partition,
            offset: offset.parse().expect("a number"),
        };
        if header(record, "evenkeel.parked.rounds").as_deref() != Some("0") {
            handled.extend(header(record, "ce_type").filter(|_| is_event));
        }
        parked.push((place, header(record, "ce_id").filter(|_| is_event)));
    }
    let fits = |record: &Record, id: &Option<String>| match (&record.what, id) {
        (What::Event { id: own, .. }, Some(id)) => own == id,
        _ => true,
    };
    let mut found = Found::default();
    let mut lanes: BTreeMap<(i32, String), (i64, Place)> = BTreeMap::new();
    let stands_before = |place: Place| {
        let own = world.records.iter().find(|record| record.place == place);
        let own = own.expect("it stands there").identity();
        let mut others = world.records.iter().filter(|other| {
            let part = stretches.iter();
            let mut part = part.filter(|part| part.partition == other.place.partition);
            let settled = part.next().map_or(0, Stretch::settled);
            other.identity() == own && other.place.offset < settled
        });
        others.any(|other| {
            other.place.partition != place.partition || other.place.offset < place.offset
        })
    };
    for record in world
        .records
        .iter()
        .filter(|record| is_judged(record.place))
    {
        let place = record.place;
        let is_handled = match &record.what {
            What::Event { ty, .. } => ty == RENAMED || handled.contains(ty),
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
            let has_letter = own.iter().any(|dead_letter| fits(record, &dead_letter.2));
            let is_parked = parked
                .iter()
                .any(|(origin, id)| *origin == place && fits(record, id));
            if !has_letter && !is_parked && !world.skipped.contains(&place) {
                found.missing.insert(place);
            }
            continue;
        };
        found.effects += 1;
        if completed.len() > 1 {
            *found.doubled.entry(place).or_default() += 1;
        }
        let of_it = own.iter().filter(|dead_letter| match &record.what {
            What::Event { id, .. } => dead_letter.2.as_ref() == Some(id),
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
        } else if !stands_before(place) && !stands_before(last.1) {
            found.out_of_order.insert(place);
        }
    }
    found
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
        let stretches: Vec<Stretch> = (0..2)
            .map(|partition| {
                let to = world.end(partition);
                Stretch {
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
        let expected = model(&world, &stretches);
        // Far above the number of keys: passes without progress would never end.
        let mut watch = |progress: crate::audit::Progress| assert!(progress.pass < 100, "no end of passes");
        let report = match verify(&world, &settings, limits, stretches, &mut watch) {
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
