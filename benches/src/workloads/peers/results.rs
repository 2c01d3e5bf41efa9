//! Checks the results on the topic: each event has one, under one id, and no record is of anything
//! else. A result may be there several times, because all contestants publish at least once.

use super::work::{EffectBooked, RESULTS};
use crate::measure::result_check;
use crate::spec::Data;
use ::evenkeel::kafka::KafkaConfig;
use ::evenkeel::kafka::reader::{LogRecord, Reader, Span};
use anyhow::{Context, bail, ensure};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Time limit of an answer of the brokers.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// The results that were read.
struct Results {
    per_key: u64,
    /// The id of each event's result, by key and place.
    ids: Vec<Option<Arc<str>>>,
    seen: HashSet<Arc<str>>,
    duplicates: u64,
}

/// Reads the results between these offsets of each partition. Returns the number of duplicates.
///
/// # Errors
/// If an event has no result, or two with different ids; if two events share an id; if a record is
/// no result of an event.
pub(super) async fn check(
    kafka: KafkaConfig,
    data: Data,
    starts: &BTreeMap<i32, i64>,
    ends: &BTreeMap<i32, i64>,
) -> anyhow::Result<u64> {
    let span = |(partition, end): (&i32, &i64)| Span {
        topic: RESULTS.into(),
        partition: *partition,
        start: starts.get(partition).copied().unwrap_or_default(),
        end: Some(*end),
    };
    let spans: Vec<Span> = ends.iter().map(span).collect();
    let read = move || {
        let mut reader = Reader::of_spans(&kafka, spans, ANSWER_LIMIT)?;
        let mut results = Results::of(&data);
        while !reader.at_end() {
            if let Some(record) = reader.next(ANSWER_LIMIT)? {
                let place = format!("{} at {}", record.partition, record.offset);
                let added = results.add(&record);
                added.with_context(|| format!("wrong answer: the record in partition {place}"))?;
            }
        }
        results.finish()
    };
    tokio::task::spawn_blocking(read).await?
}

impl Results {
    fn of(data: &Data) -> Self {
        let per_key = data.records / data.keys as u64;
        let events = per_key as usize * data.keys;
        Self {
            per_key,
            ids: vec![None; events],
            seen: HashSet::with_capacity(events),
            duplicates: 0,
        }
    }

    /// Adds a record. Fails if it is no result of an event, or has another id than its event's
    /// result, or the id of another one.
    fn add(&mut self, record: &LogRecord) -> anyhow::Result<()> {
        let value = record.value.as_deref().unwrap_or_default();
        let booked: EffectBooked = serde_json::from_slice(value).context("is no result")?;
        let key = result_check::key(booked.key as usize);
        ensure!(
            record.key.as_deref() == Some(key.as_bytes()),
            "has the key of another event"
        );
        ensure!(booked.place < self.per_key, "is the result of no event");
        let id = record.headers.last("ce_id").context("has no id")?;
        let id = std::str::from_utf8(id).context("has no id")?;
        let number = u64::from(booked.key) * self.per_key + booked.place;
        match self.ids.get_mut(number as usize) {
            None => bail!("is the result of no event"),
            Some(Some(known)) if **known == *id => self.duplicates += 1,
            Some(Some(known)) => bail!("has the id {id}, its event's result had {known}"),
            Some(unknown) => {
                let id: Arc<str> = id.into();
                ensure!(
                    self.seen.insert(Arc::clone(&id)),
                    "has the id {id} of another event's result"
                );
                *unknown = Some(id);
            }
        }
        Ok(())
    }

    /// The number of duplicates. Fails if an event has no result.
    fn finish(self) -> anyhow::Result<u64> {
        let missing = self.ids.iter().filter(|id| id.is_none()).count();
        ensure!(
            missing == 0 && !self.ids.is_empty(),
            "wrong answer: {missing} of {} events have no result",
            self.ids.len()
        );
        Ok(self.duplicates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::evenkeel::event::Headers;
    use ::evenkeel::kafka::reader::TimestampKind;

    /// The result of the event at this place of the key, with this id.
    fn result(key: u32, place: u64, id: &str) -> LogRecord {
        let mut headers = Headers::new();
        headers.push("ce_id", Some(id.as_bytes()));
        let value = serde_json::to_vec(&EffectBooked { key, place });
        LogRecord {
            topic: RESULTS.into(),
            partition: 0,
            offset: 0,
            timestamp_kind: TimestampKind::Create,
            timestamp_ms: None,
            key: Some(result_check::key(key as usize).into_bytes()),
            value: Some(value.expect("it serialises")),
            headers,
        }
    }

    /// Checks the results of two keys with two events each.
    fn check(results: &[LogRecord]) -> anyhow::Result<u64> {
        let mut check = Results::of(&Data {
            records: 4,
            keys: 2,
            ..crate::workloads::throughput::consume::DATA
        });
        for result in results {
            check.add(result)?;
        }
        check.finish()
    }

    fn all() -> Vec<LogRecord> {
        let events = [(0, 0, "a"), (1, 0, "b"), (0, 1, "c"), (1, 1, "d")];
        let results = events.map(|(key, place, id)| result(key, place, id));
        results.into()
    }

    #[test]
    fn duplicates_are_counted() {
        assert_eq!(check(&all()).expect("each is there"), 0);
        let mut twice = all();
        twice.extend([result(0, 0, "a"), result(1, 1, "d")]);
        assert_eq!(check(&twice).expect("each is there"), 2);
    }

    #[test]
    fn a_missing_result_is_wrong() {
        for missing in 0..all().len() {
            let mut results = all();
            results.remove(missing);
            check(&results).expect_err("one is missing");
        }
    }

    #[test]
    fn a_result_of_another_event_or_id_is_wrong() {
        let mut keyless = result(0, 0, "a");
        keyless.key = None;
        let mut tombstone = result(0, 0, "a");
        tombstone.value = None;
        let mut nameless = result(0, 0, "a");
        nameless.headers = Headers::new();
        let strange = [
            result(0, 2, "e"),
            result(2, 0, "e"),
            result(0, 0, "e"),
            result(0, 0, "b"),
            keyless,
            tombstone,
            nameless,
        ];
        for record in strange {
            let mut results = all();
            results.push(record);
            check(&results).expect_err("it is wrong");
        }
        let mut shared = all();
        shared[3] = result(1, 1, "a");
        check(&shared).expect_err("two events share an id");
    }
}
