//! The relay of hand-written code: reads the outbox from its first row, publishes what it read,
//! awaits the acknowledgements, and deletes the rows.
//!
//! One relay keeps the order of a key, because the producer does. It needs no position: what is in
//! the table is unpublished. Its page and its producer are those of evenkeel's relay, and like that
//! one it does not wait for the disk when it deletes: a row that a crash brings back is published
//! again.

use super::work::{EffectBooked, RESULTS, SOURCE};
use crate::workloads::stores::outbox::hand_written::{PAGE_ROWS, send_page};
use ::evenkeel::event::EventType;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};
use std::str::FromStr;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The pause after an empty read.
const PAUSE: Duration = Duration::from_millis(50);

const READ: &str =
    "SELECT number, event_id, record_key, payload FROM outbox ORDER BY number LIMIT $1";
const DELETE: &str = "DELETE FROM outbox WHERE number = ANY($1)";

/// Number, event id, key and payload of a row.
type Row = (i64, String, String, Vec<u8>);

/// Publishes rows until it is stopped.
pub(super) async fn relay(
    producer: FutureProducer,
    database: String,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut connection = connect(&database).await?;
    while !stop.is_cancelled() {
        let page = sqlx::query_as(READ).bind(PAGE_ROWS);
        let rows: Vec<Row> = page.fetch_all(&mut connection).await?;
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
        let delete = sqlx::query(DELETE).bind(numbers);
        delete.execute(&mut connection).await?;
    }
    Ok(())
}

/// A connection whose commits do not wait for the disk.
async fn connect(database: &str) -> Result<PgConnection, sqlx::Error> {
    let options = PgConnectOptions::from_str(database)?;
    let options = options.options([("synchronous_commit", "off")]);
    options.connect().await
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_delete_does_not_wait_for_the_disk() {
        let Some(server) = ::evenkeel::testing::postgres().await else {
            return;
        };
        let url = server.database().await.expect("a database is created");
        let mut connection = connect(&url).await.expect("it connects");
        let setting = sqlx::query_scalar("SHOW synchronous_commit");
        let setting: String = setting.fetch_one(&mut connection).await.expect("a setting");
        assert_eq!(setting, "off");
    }
}
