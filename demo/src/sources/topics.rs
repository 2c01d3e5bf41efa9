//! Reads topics between given offsets, with a plain client that joins no group and commits nothing.
//!
//! The library's reader shares its queues with the consumer under audit, so the audit does not use
//! it: both could have the same defect.

use super::super::audit::{Cause, Dead, Facts, Identity, Moved, Position, Published};
use crate::cluster::{Offsets, dead_letters_of};
use anyhow::{Context, bail};
use evenkeel::event::EventType;
use evenkeel::kafka::KafkaConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde::de::DeserializeOwned;
use shop_schemas::{ReservedLine, StockReceived, StockReleased, StockReserved};
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

/// A read fails after this time without a record or the end of a partition.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// The offsets to read, as far as the log still has them. Partitions that were created after the
/// first offsets are read from their beginning.
pub(crate) struct Span {
    pub(crate) from: Offsets,
    pub(crate) low: Offsets,
    pub(crate) to: Offsets,
}

impl Span {
    /// The partitions with offsets to read, and their first offsets.
    fn starts(&self) -> Offsets {
        let start = |(place, to): (&(String, i32), &i64)| {
            let of = |offsets: &Offsets| offsets.get(place).copied().unwrap_or_default();
            let start = of(&self.from).max(of(&self.low));
            (start < *to).then(|| (place.clone(), start))
        };
        self.to.iter().filter_map(start).collect()
    }
}

/// Sums over the records that are not in the facts.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// Moved units by article. Each event counts once.
    pub(crate) moved: BTreeMap<String, Moved>,
    /// Records without CloudEvents source, id and type.
    pub(crate) no_events: u64,
}

/// Reads all records in `span` into `facts`. Blocks.
pub(crate) fn read_topics(
    kafka: &KafkaConfig,
    span: &Span,
    facts: &mut Facts,
) -> anyhow::Result<Totals> {
    let starts = span.starts();
    let mut open: HashSet<(String, i32)> = starts.keys().cloned().collect();
    let mut totals = Totals::default();
    if open.is_empty() {
        return Ok(totals);
    }
    let consumer = reader(kafka)?;
    let mut assignment = TopicPartitionList::new();
    for ((topic, partition), start) in &starts {
        assignment.add_partition_offset(topic, *partition, Offset::Offset(*start))?;
    }
    consumer.assign(&assignment)?;
    let mut moved_by = HashSet::new();
    let mut last_progress = Instant::now();
    while !open.is_empty() {
        match consumer.poll(Duration::from_millis(100)) {
            None if last_progress.elapsed() > SILENCE_MAX => {
                bail!(
                    "no record came for {} s while reading the topics",
                    SILENCE_MAX.as_secs()
                )
            }
            None => continue,
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => {
                close_passed(&consumer, span, &mut open)?
            }
            Some(Err(error)) => return Err(error).context("cannot read the topics"),
            Some(Ok(record)) => {
                let place = (record.topic().to_owned(), record.partition());
                let to = span.to.get(&place).copied().unwrap_or_default();
                if record.offset() < to {
                    take(&record, facts, &mut totals, &mut moved_by)?;
                }
                if record.offset() + 1 >= to {
                    open.remove(&place);
                }
            }
        }
        last_progress = Instant::now();
    }
    Ok(totals)
}

fn reader(kafka: &KafkaConfig) -> anyhow::Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &kafka.brokers);
    for (name, value) in &kafka.properties {
        config.set(name, value);
    }
    config
        // The client cannot assign partitions without a group id. It commits nothing.
        .set("group.id", "shop-demo-audit")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("fetch.queue.backoff.ms", "10")
        // If retention deleted the first offsets, reads the rest. The cluster's low offsets show
        // the loss.
        .set("auto.offset.reset", "earliest");
    config.create().context("cannot make a reader")
}

/// Closes the partitions whose end was reached without a record at the last offset: offsets may
/// have gaps.
fn close_passed(
    consumer: &BaseConsumer,
    span: &Span,
    open: &mut HashSet<(String, i32)>,
) -> anyhow::Result<()> {
    for element in consumer.position()?.elements() {
        let place = (element.topic().to_owned(), element.partition());
        if let (Offset::Offset(next), Some(to)) = (element.offset(), span.to.get(&place))
            && next >= *to
        {
            open.remove(&place);
        }
    }
    Ok(())
}

fn take(
    record: &BorrowedMessage<'_>,
    facts: &mut Facts,
    totals: &mut Totals,
    moved_by: &mut HashSet<Identity>,
) -> anyhow::Result<()> {
    let attribute = |name| attribute(record, name);
    let (Some(source), Some(id), Some(ty)) = (
        attribute("ce_source"),
        attribute("ce_id"),
        attribute("ce_type"),
    ) else {
        totals.no_events += 1;
        return Ok(());
    };
    let identity = Identity { source, id };
    if let Some(service) = dead_letters_of(record.topic()) {
        let dead = facts.dead_letters.entry(service.to_owned()).or_default();
        let header = |name| attribute(name).unwrap_or_else(|| "unknown".to_owned());
        let cause = Cause {
            ty,
            class: header("evenkeel.dlq.error.class"),
            stage: header("evenkeel.dlq.error.stage"),
            message: header("__dlq.errors.message"),
        };
        dead.push(Dead { identity, cause });
        return Ok(());
    }
    let at = Position {
        topic: record.topic().to_owned(),
        partition: record.partition(),
        offset: record.offset(),
    };
    add_moves(
        &ty,
        record.payload().unwrap_or_default(),
        &identity,
        totals,
        moved_by,
    )
    .with_context(|| format!("{ty} at {at} cannot be read"))?;
    let key = record.key();
    let key = key.map(|key| String::from_utf8_lossy(key).into_owned());
    facts.published.push(Published {
        identity,
        ty,
        key,
        at,
    });
    Ok(())
}

/// The last header of that name, as in the binary content mode of CloudEvents.
fn attribute(record: &BorrowedMessage<'_>, name: &str) -> Option<String> {
    let header = record
        .headers()?
        .iter()
        .filter(|header| header.key == name)
        .last()?;
    let text = std::str::from_utf8(header.value?).ok()?;
    Some(text.to_owned())
}

/// Adds the units that an event moved, unless the same event was added before.
fn add_moves(
    ty: &str,
    payload: &[u8],
    identity: &Identity,
    totals: &mut Totals,
    moved_by: &mut HashSet<Identity>,
) -> anyhow::Result<()> {
    fn read<T: DeserializeOwned>(payload: &[u8]) -> anyhow::Result<T> {
        Ok(serde_json::from_slice(payload)?)
    }
    let (lines, amount): (Vec<ReservedLine>, fn(&mut Moved) -> &mut i64) = match ty {
        StockReceived::TYPE => {
            let StockReceived {
                article, quantity, ..
            } = read(payload)?;
            (vec![ReservedLine { article, quantity }], |moved| {
                &mut moved.received
            })
        }
        StockReserved::TYPE => (read::<StockReserved>(payload)?.lines, |moved| {
            &mut moved.reserved
        }),
        StockReleased::TYPE => (read::<StockReleased>(payload)?.lines, |moved| {
            &mut moved.released
        }),
        _ => return Ok(()),
    };
    if moved_by.insert(identity.clone()) {
        for line in lines {
            *amount(totals.moved.entry(line.article).or_default()) += i64::from(line.quantity);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_partitions_are_skipped_and_starts_respect_the_log_start() {
        let offsets = |values: &[(i32, i64)]| -> Offsets {
            let place = |(partition, offset): &(i32, i64)| (("t".to_owned(), *partition), *offset);
            values.iter().map(place).collect()
        };
        let span = Span {
            from: offsets(&[(0, 5), (1, 5), (2, 5)]),
            low: offsets(&[(0, 0), (1, 7), (2, 9), (3, 0), (4, 0)]),
            to: offsets(&[(0, 5), (1, 9), (2, 9), (3, 0), (4, 2)]),
        };
        assert_eq!(span.starts(), offsets(&[(1, 7), (4, 0)]));
    }
}
