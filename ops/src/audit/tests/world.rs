//! The logs and the store of a simulated group, with the events that happen in them.

use crate::audit::AuditError;
use crate::audit::identity::Place;
use crate::audit::sources::{EachRecord, Offsets, Sources};
use evenkeel::event::{ContentDigest, Headers};
use evenkeel::inbox::{Completion, InboxKey};
use evenkeel::kafka::reader::{LogRecord, TimestampKind};
use evenkeel::recovery::Replayed;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

pub(super) const GROUP: &str = "group";
pub(super) const TOPIC: &str = "topic";

/// A record of the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) place: Place,
    pub(super) key: Option<String>,
    pub(super) kind: RecordKind,
    pub(super) value: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RecordKind {
    Event { ty: String, id: String },
    Raw,
    Unreadable,
}

impl Record {
    pub(super) fn new(kind: RecordKind) -> Self {
        let place = Place {
            partition: 0,
            offset: 0,
        };
        Self {
            place,
            key: None,
            kind,
            value: "{}",
        }
    }

    pub(super) fn event(ty: &str, id: &str) -> Self {
        Self::new(RecordKind::Event {
            ty: ty.to_owned(),
            id: id.to_owned(),
        })
    }

    pub(super) fn raw() -> Self {
        Self::new(RecordKind::Raw)
    }

    /// Claims to be an event, of a version that does not exist.
    pub(super) fn unreadable() -> Self {
        Self::new(RecordKind::Unreadable)
    }

    pub(super) fn at(self, partition: i32, offset: i64) -> Self {
        Self {
            place: Place { partition, offset },
            ..self
        }
    }

    pub(super) fn with_key(self, key: &str) -> Self {
        Self {
            key: Some(key.to_owned()),
            ..self
        }
    }

    pub(super) fn with_value(self, value: &'static str) -> Self {
        Self { value, ..self }
    }

    pub(super) fn content(&self) -> ContentDigest {
        match &self.kind {
            RecordKind::Event { ty, .. } => ContentDigest::of_event(ty, self.value.as_bytes()),
            _ => {
                let key = self.key.as_ref().map(String::as_bytes);
                ContentDigest::of_record(Some(0), key, Some(self.value.as_bytes()))
            }
        }
    }

    pub(super) fn identity(&self) -> (String, String) {
        match &self.kind {
            RecordKind::Event { id, .. } => ("/source".to_owned(), id.clone()),
            _ => (
                format!("{TOPIC}/{}", self.place.partition),
                format!("{}#{}", self.place.offset, self.content()),
            ),
        }
    }

    pub(super) fn delivery(&self, handler: &str) -> InboxKey {
        let (source, id) = self.identity();
        InboxKey::new(GROUP, handler, source, id).with_content(self.content())
    }

    fn on_log(&self, topic: &str, place: Place, more: &[(&str, &str)]) -> LogRecord {
        let mut headers = Headers::new();
        let attributes = match &self.kind {
            RecordKind::Event { ty, id } => vec![
                ("ce_specversion", "1.0"),
                ("ce_source", "/source"),
                ("ce_type", ty.as_str()),
                ("ce_id", id.as_str()),
            ],
            RecordKind::Raw => Vec::new(),
            RecordKind::Unreadable => vec![
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
    pub(super) records: Vec<Record>,
    pub(super) dead_letters: Vec<LogRecord>,
    pub(super) parked: Vec<LogRecord>,
    pub(super) replay_marks: Vec<(Place, bool)>,
    pub(super) skipped: HashSet<Place>,
    pub(super) store: RefCell<HashMap<InboxKey, i64>>,
    /// Completions that the store returns only from its second query on.
    pub(super) later_completions: RefCell<HashMap<InboxKey, i64>>,
}

impl World {
    pub(super) fn add(&mut self, record: Record) {
        self.records.push(record);
    }

    pub(super) fn end(&self, partition: i32) -> i64 {
        let own = self.records.iter().map(|record| record.place);
        let own = own.filter(|place| place.partition == partition);
        own.map(|place| place.offset + 1).max().unwrap_or(0)
    }

    pub(super) fn complete(&mut self, record: &Record, handler: &str, at_ms: i64) {
        let store = self.store.get_mut();
        store.entry(record.delivery(handler)).or_insert(at_ms);
    }

    pub(super) fn complete_later(&mut self, record: &Record, handler: &str, at_ms: i64) {
        let later = self.later_completions.get_mut();
        later.insert(record.delivery(handler), at_ms);
    }

    pub(super) fn dead_letter(&mut self, record: &Record, stage: &str) {
        self.push_dead_letter(record, stage, GROUP, TOPIC);
    }

    pub(super) fn foreign_dead_letter(&mut self, record: &Record, group: &str, topic: &str) {
        self.push_dead_letter(record, "handler", group, topic);
    }

    fn push_dead_letter(&mut self, record: &Record, stage: &str, group: &str, topic: &str) {
        let place = Place {
            partition: 0,
            offset: self.dead_letters.len() as i64,
        };
        let Place { partition, offset } = record.place;
        let headers = [
            ("__dlq.errors.topic", topic),
            ("__dlq.errors.partition", &partition.to_string()),
            ("__dlq.errors.offset", &offset.to_string()),
            ("__dlq.errors.group", group),
            ("evenkeel.dlq.error.stage", stage),
            ("evenkeel.dlq.record.timestamp", "0"),
        ];
        self.dead_letters
            .push(record.on_log("dlq", place, &headers));
    }

    pub(super) fn park(&mut self, record: &Record, rounds: u32) {
        let place = Place {
            partition: record.place.partition,
            offset: self.parked.len() as i64,
        };
        let headers = [
            ("evenkeel.parked.kind", "record"),
            ("evenkeel.parked.offset", &record.place.offset.to_string()),
            ("evenkeel.parked.rounds", &rounds.to_string()),
        ];
        self.parked.push(record.on_log("retry", place, &headers));
    }

    pub(super) fn skip(&mut self, record: &Record) {
        self.skipped.insert(record.place);
    }
}

impl Sources for World {
    fn topic(&self, parts: &[Offsets], each: &mut EachRecord<'_>) -> Result<(), AuditError> {
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

    fn dead_letters(&self, each: &mut EachRecord<'_>) -> Result<(), AuditError> {
        self.dead_letters.iter().cloned().try_for_each(each)
    }

    fn parked(&self, each: &mut EachRecord<'_>) -> Result<(), AuditError> {
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
        let marks = self.replay_marks.iter();
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
        let completions = keys.iter().map(|key| {
            let (completed, at_ms) = store.get_key_value(key)?;
            Some(Completion {
                at_ms: *at_ms,
                content: completed.content,
            })
        });
        let completions = completions.collect();
        for key in keys {
            if let Some(at_ms) = self.later_completions.borrow_mut().remove(key) {
                store.insert(key.clone(), at_ms);
            }
        }
        Ok(completions)
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
