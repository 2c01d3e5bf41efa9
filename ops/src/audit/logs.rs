//! The sources of a real audit: topics, read without a consumer group, and a store.
//!
//! Owns the readers, and the bridge from blocking threads to the async store. Contains no rules of
//! the audit.

use super::identity::Place;
use super::report::{AuditReport, Finding, PartitionRange};
use super::settings::AuditSettings;
use super::sources::{EachRecord, Offsets, Sources};
use super::verify::{Limits, verify};
use super::{AuditError, Progress};
use crate::Cluster;
use evenkeel::consumer::parked_records;
use evenkeel::control::{Action, CommandOutcome, Entry, History, control_topic};
use evenkeel::inbox::{Completion, Completions, InboxKey};
use evenkeel::kafka::admin::Admin;
use evenkeel::kafka::reader::{LogRecord, Reader, Reading, Span, Start};
use evenkeel::kafka::{KafkaError, UnreadableBatch, is_topic_name};
use evenkeel::recovery::{ReplayLogEntry, Replayed, replay_topic};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// How long one poll for a record takes.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// A read without a record for this long, or for the request timeout if that is longer, fails.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Audits a group and a topic against the group's store.
///
/// `watch` receives the progress on a blocking thread, so it may block.
///
/// The group may run meanwhile: the audit covers the offsets that were committed at its start.
/// Dropping the future cancels the audit; its blocking thread ends soon after.
///
/// # Errors
/// [`AuditError::Kafka`] and [`AuditError::Store`] if a request fails,
/// [`AuditError::NeverCommitted`] and [`AuditError::UnknownToStore`] if there is nothing to prove.
pub async fn audit(
    cluster: &Cluster,
    settings: AuditSettings,
    store: Arc<dyn Completions>,
    mut watch: impl FnMut(Progress) + Send + 'static,
) -> Result<AuditReport, AuditError> {
    let committed = committed(cluster, &settings).await?;
    let stop = CancellationToken::new();
    let logs = Logs {
        cluster: cluster.clone(),
        group: settings.group.clone(),
        topic: settings.topic.clone(),
        dead_letters: settings
            .dead_letter_topic
            .of(&settings.group, &settings.topic),
        store,
        runtime: Handle::current(),
        unreadable: Mutex::default(),
        stop: stop.clone(),
    };
    let _guard = stop.drop_guard();
    let work = move || {
        let ranges = logs.ranges(&settings, &committed)?;
        let limits = Limits::of(settings.memory_bytes);
        let mut report = verify(&logs, &settings, limits, ranges, &mut watch)?;
        logs.add_unreadable(&mut report, settings.listed_max)?;
        Ok(report)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(report) => report,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(AuditError::Stopped),
    }
}

/// The group's committed offset of each partition.
async fn committed(
    cluster: &Cluster,
    settings: &AuditSettings,
) -> Result<BTreeMap<i32, i64>, AuditError> {
    let admin = Admin::connect(&cluster.kafka, cluster.timeout).await?;
    let topic = std::slice::from_ref(&settings.topic);
    let lag = admin.group_lag(&settings.group, topic).await?;
    let committed = lag
        .into_iter()
        .filter_map(|part| Some((part.partition, part.committed?)));
    let committed: BTreeMap<i32, i64> = committed.collect();
    match committed.is_empty() {
        true => Err(AuditError::NeverCommitted {
            group: settings.group.clone(),
            topic: settings.topic.clone(),
        }),
        false => Ok(committed),
    }
}

struct Logs {
    cluster: Cluster,
    group: String,
    topic: String,
    /// Name of the dead-letter topic.
    dead_letters: String,
    store: Arc<dyn Completions>,
    runtime: Handle,
    /// Unreadable batches of the topic: first offset, end offset and cause.
    unreadable: Mutex<BTreeMap<Place, (i64, String)>>,
    stop: CancellationToken,
}

impl Logs {
    /// The offsets to read of each partition.
    fn ranges(
        &self,
        settings: &AuditSettings,
        committed: &BTreeMap<i32, i64>,
    ) -> Result<Vec<PartitionRange>, AuditError> {
        let spans = |start, end| -> Result<Vec<Span>, KafkaError> {
            let reading = Reading::whole([&self.topic])
                .with_start(start)
                .with_end(end);
            let reader = Reader::open(&self.cluster.kafka, &reading, self.cluster.timeout)?;
            Ok(reader.spans().cloned().collect())
        };
        let read = spans(settings.from, settings.to)?;
        let low = spans(Start::Beginning, settings.to)?;
        let low: BTreeMap<i32, i64> = low
            .into_iter()
            .map(|span| (span.partition, span.start))
            .collect();
        let ranges = read.into_iter().map(|span| PartitionRange {
            partition: span.partition,
            low: low.get(&span.partition).copied().unwrap_or(span.start),
            from: span.start,
            to: span.end.unwrap_or(span.start).max(span.start),
            committed: committed.get(&span.partition).copied(),
        });
        Ok(ranges.collect())
    }

    /// Records an unreadable batch of the topic. Returns the offsets after it that are still to be
    /// read.
    fn rest_after(
        &self,
        batch: UnreadableBatch,
        spans: &[Span],
    ) -> Result<Option<Span>, AuditError> {
        let range = batch.extent(&self.cluster.kafka, self.cluster.timeout)?;
        let place = Place {
            partition: batch.partition,
            offset: range.start,
        };
        let mut unreadable = self.unreadable();
        unreadable.insert(place, (range.end, batch.cause));
        let span = spans.iter().find(|span| span.partition == batch.partition);
        let rest = span.map(|span| Span {
            start: range.end,
            ..span.clone()
        });
        Ok(rest.filter(|span| span.end.is_none_or(|end| span.start < end)))
    }

    fn unreadable(&self) -> MutexGuard<'_, BTreeMap<Place, (i64, String)>> {
        self.unreadable
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the unreadable batches to the report, except those that an operator skipped.
    fn add_unreadable(
        &self,
        report: &mut AuditReport,
        listed_max: usize,
    ) -> Result<(), AuditError> {
        let unreadable = std::mem::take(&mut *self.unreadable());
        if unreadable.is_empty() {
            return Ok(());
        }
        let skipped = self.skipped()?;
        for (Place { partition, offset }, (end, cause)) in unreadable {
            let of_batch = |place: &Place| {
                place.partition == partition && (offset..end).contains(&place.offset)
            };
            if !skipped.iter().any(of_batch) {
                let detail = format!("offsets {offset} to {} cannot be read: {cause}", end - 1);
                let finding = || Finding::of_batch(partition, offset, detail);
                report.unreadable.add(listed_max, finding);
            }
        }
        report.compute_totals();
        Ok(())
    }

    /// Passes the remaining records of a reader to `each`. An unreadable batch is an error.
    fn drain(&self, reader: Reader, each: &mut EachRecord<'_>) -> Result<(), AuditError> {
        match self.drain_readable(reader, each)?.into_iter().next() {
            Some(batch) => Err(AuditError::Kafka(KafkaError::UnreadableBatch(batch))),
            None => Ok(()),
        }
    }

    /// Passes the remaining records of a reader to `each`. Returns the unreadable batches at which
    /// partitions ended.
    fn drain_readable(
        &self,
        mut reader: Reader,
        each: &mut EachRecord<'_>,
    ) -> Result<Vec<UnreadableBatch>, AuditError> {
        let mut unreadable = Vec::new();
        let silence_max = self.cluster.timeout.max(SILENCE_MAX);
        let mut last_record = Instant::now();
        while !reader.at_end() {
            if self.stop.is_cancelled() {
                return Err(AuditError::Stopped);
            }
            let next = match reader.next(POLL_TIMEOUT) {
                Err(KafkaError::UnreadableBatch(batch)) => {
                    unreadable.push(batch);
                    continue;
                }
                next => next?,
            };
            match next {
                Some(record) => {
                    each(record)?;
                    last_record = Instant::now();
                }
                None if last_record.elapsed() > silence_max => {
                    return Err(AuditError::Kafka(KafkaError::Timeout {
                        what: "reading what stands on the log".to_owned(),
                        seconds: silence_max.as_secs(),
                    }));
                }
                None => {}
            }
        }
        Ok(unreadable)
    }

    /// Reads a whole topic. A missing topic counts as empty.
    fn read_whole(&self, topic: &str, each: &mut EachRecord<'_>) -> Result<(), AuditError> {
        if !is_topic_name(topic) {
            return Ok(());
        }
        let reading = Reading::whole([topic]);
        match Reader::open(&self.cluster.kafka, &reading, self.cluster.timeout) {
            Ok(reader) => self.drain(reader, each),
            Err(KafkaError::UnknownTopic { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Sources for Logs {
    fn topic(&self, parts: &[Offsets], each: &mut EachRecord<'_>) -> Result<(), AuditError> {
        let topic: Arc<str> = self.topic.as_str().into();
        let spans = parts.iter().map(|part| Span {
            topic: Arc::clone(&topic),
            partition: part.partition,
            start: part.start,
            end: Some(part.end),
        });
        let mut spans: Vec<Span> = spans.collect();
        while !spans.is_empty() {
            let reader =
                Reader::of_spans(&self.cluster.kafka, spans.clone(), self.cluster.timeout)?;
            let unreadable = self.drain_readable(reader, each)?;
            let rest = unreadable
                .into_iter()
                .map(|batch| self.rest_after(batch, &spans));
            let rest: Vec<_> = rest.collect::<Result<_, _>>()?;
            spans = rest.into_iter().flatten().collect();
        }
        Ok(())
    }

    fn dead_letters(&self, each: &mut EachRecord<'_>) -> Result<(), AuditError> {
        self.read_whole(&self.dead_letters, each)
    }

    fn parked(&self, each: &mut EachRecord<'_>) -> Result<(), AuditError> {
        let drain = |reader, each: &mut EachRecord<'_>| self.drain(reader, each);
        let Cluster { kafka, timeout } = &self.cluster;
        match parked_records(kafka, &self.group, &self.topic, *timeout, drain, each) {
            Err(AuditError::Kafka(KafkaError::UnknownTopic { .. })) => Ok(()),
            read => read,
        }
    }

    fn replays(&self, each: &mut dyn FnMut(Place, Option<Replayed>)) -> Result<(), AuditError> {
        let Some(marks) = replay_topic(&self.dead_letters) else {
            return Ok(());
        };
        self.read_whole(&marks, &mut |record| {
            if let Some(ReplayLogEntry::DeadLetter {
                partition,
                offset,
                replayed,
            }) = ReplayLogEntry::read(record.key.as_deref(), record.value.as_deref())
            {
                each(Place { partition, offset }, replayed);
            }
            Ok(())
        })
    }

    fn skipped(&self) -> Result<HashSet<Place>, AuditError> {
        let mut history = History::default();
        self.read_whole(&control_topic(&self.group), &mut |record| {
            apply_entry(&mut history, &record);
            Ok(())
        })?;
        let skipped = history.recorded().filter_map(|recorded| {
            let Action::Skip { record } = recorded.command.action else {
                return None;
            };
            let mut acks = recorded.acks.iter();
            let is_done = acks.any(|ack| ack.outcome == CommandOutcome::Skipped);
            (is_done && record.topic == self.topic).then_some(Place {
                partition: record.partition,
                offset: record.offset,
            })
        });
        Ok(skipped.collect())
    }

    fn completed(&self, keys: &[InboxKey]) -> Result<Vec<Option<Completion>>, AuditError> {
        Ok(self.runtime.block_on(self.store.completed(keys))?)
    }

    fn has_handlers(&self, group: &str, handlers: &[String]) -> Result<Vec<bool>, AuditError> {
        let has = self.store.has_handlers(group, handlers);
        Ok(self.runtime.block_on(has)?)
    }

    fn has_group(&self, group: &str) -> Result<bool, AuditError> {
        Ok(self.runtime.block_on(self.store.has_group(group))?)
    }
}

/// Skips entries that it cannot read, as members do.
fn apply_entry(history: &mut History, record: &LogRecord) {
    if let Ok(entry) = Entry::read(record.key.as_deref(), record.value.as_deref()) {
        let key = record.key.as_deref().unwrap_or_default();
        history.apply(&String::from_utf8_lossy(key), entry);
    }
}
