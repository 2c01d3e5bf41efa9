//! The relay of hand-written code: reads the outbox from its first row, publishes what it read,
//! awaits the acknowledgements, and deletes the rows.
//!
//! One relay keeps the order of a key, because the producer does. It needs no position: what is in
//! the table is unpublished.

use super::work::{EffectBooked, RESULTS, SOURCE};
use crate::workloads::stores::outbox::hand_written::send_page;
use ::evenkeel::event::EventType;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use sqlx::PgPool;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The pause after an empty read.
const PAUSE: Duration = Duration::from_millis(50);

const READ: &str =
    "SELECT number, event_id, record_key, payload FROM outbox ORDER BY number LIMIT 500";
const DELETE: &str = "DELETE FROM outbox WHERE number = ANY($1)";

/// Number, event id, key and payload of a row.
type Row = (i64, String, String, Vec<u8>);

/// Publishes rows until it is stopped.
pub(super) async fn relay(
    producer: FutureProducer,
    pool: PgPool,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    while !stop.is_cancelled() {
        let rows: Vec<Row> = sqlx::query_as(READ).fetch_all(&pool).await?;
        if rows.is_empty() {
            stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
            continue;
        }
        let records = rows.iter().map(|(_, id, key, payload)| {
            let record = FutureRecord::to(RESULTS).key(key.as_str());
            Ok(record.payload(payload.as_slice()).headers(headers(id)))
        });
        send_page(&producer, records).await?;
        let numbers: Vec<i64> = rows.iter().map(|(number, ..)| *number).collect();
        sqlx::query(DELETE).bind(numbers).execute(&pool).await?;
    }
    Ok(())
}

/// The headers of a CloudEvent in binary mode.
fn headers(id: &str) -> OwnedHeaders {
    let attributes = [
        ("ce_specversion", "1.0"),
        ("ce_id", id),
        ("ce_source", SOURCE),
        ("ce_type", EffectBooked::TYPE),
        ("content-type", "application/json"),
    ];
    attributes
        .into_iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header {
                key,
                value: Some(value),
            })
        })
}
