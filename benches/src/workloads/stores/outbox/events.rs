//! The events of the outbox workloads: as records for an outbox, and on the topic at the end.

use crate::measure::result_check::ResultCheck;
use crate::order_event::OrderEvent;
use crate::spec::{Data, Spec};
use anyhow::Context;
use evenkeel::event::{ContentMode, Event, OutgoingRecord, encode};
use evenkeel::kafka::reader::{Reader, Reading};
use std::time::Duration;

/// The source of all events.
pub(super) const SOURCE: &str = "/bench/orders";

/// Rows of one transaction of [`transactions`].
const ROWS_PER_TRANSACTION: usize = 500;

/// Time limit of an answer of the brokers while the topic is checked.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// The event at this position of its key, with `size` bytes of JSON.
pub(super) fn event(key: usize, place: u64, size: usize) -> Event<OrderEvent> {
    Event::new(SOURCE, OrderEvent::new(key, place, size))
}

/// The record of an event, for the topic of this turn instead of the event type's.
pub(super) fn record(event: &Event<OrderEvent>, topic: &str) -> anyhow::Result<OutgoingRecord> {
    Ok(OutgoingRecord {
        topic: topic.to_owned(),
        ..encode(event, ContentMode::Binary, None)?
    })
}

/// All events of a turn as records, grouped by the transaction that writes them. Neighbours have
/// different keys, as far as there are several.
pub(super) fn transactions(
    spec: &Spec,
) -> impl Iterator<Item = anyhow::Result<Vec<OutgoingRecord>>> {
    let Data {
        records,
        size,
        keys,
        ..
    } = spec.data;
    let keys = keys as u64;
    let numbered = move |number: u64| {
        let event = event((number % keys) as usize, number / keys, size);
        record(&event, &spec.topic)
    };
    let starts = (0..records).step_by(ROWS_PER_TRANSACTION);
    starts.map(move |start| {
        let end = records.min(start + ROWS_PER_TRANSACTION as u64);
        (start..end).map(&numbered).collect()
    })
}

/// The order in a record's value.
pub(super) fn order_in(value: Option<&[u8]>) -> anyhow::Result<OrderEvent> {
    serde_json::from_slice(value.unwrap_or_default()).context("a record is no order")
}

/// Checks that the topic has every event once, and those of each key in order.
pub(super) async fn check_topic(spec: &Spec) -> anyhow::Result<()> {
    let (kafka, reading) = (spec.kafka()?, Reading::whole([spec.topic.clone()]));
    let check = ResultCheck::of(&spec.data);
    let read = move || {
        let mut reader = Reader::open(&kafka, &reading, ANSWER_LIMIT)?;
        while !reader.at_end() {
            if let Some(record) = reader.next(ANSWER_LIMIT)? {
                let order = order_in(record.value.as_deref())?;
                check.check_position(order.key.into(), order.place);
            }
        }
        check.finish().map(drop)
    };
    tokio::task::spawn_blocking(read).await?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Form;
    use crate::workload::Workload;

    #[test]
    fn transactions_hold_each_event_once_in_its_keys_order() {
        let spec = Spec {
            workload: Workload::Relay,
            contestant: "sqlite".to_owned(),
            brokers: String::new(),
            topic: "orders".to_owned(),
            data: Data {
                records: 1_200,
                size: 328,
                partitions: 1,
                keys: 400,
                form: Form::Event,
            },
            properties: Vec::new(),
        };
        let check = ResultCheck::of(&spec.data);
        let mut rows = Vec::new();
        for transaction in transactions(&spec) {
            let transaction = transaction.expect("orders are encoded");
            rows.push(transaction.len());
            for record in transaction {
                assert_eq!(record.topic, "orders");
                let order = order_in(record.value.as_deref()).expect("an order");
                check.check_position(order.key.into(), order.place);
            }
        }
        assert_eq!(rows, [500, 500, 200]);
        check.finish().expect("each once and in order");
    }
}
