//! A relay as a service writes it by hand: reads a page of rows in the order of their numbers,
//! sends them, awaits all receipts, and deletes the page.
//!
//! It reads the rows that the library's outbox wrote, and sends the same records. It has no leases,
//! and a failed record does not hold back the later ones of its key.

use crate::measure::usage::{Usage, UsageReading};
use crate::spec::Spec;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::FutureProducer;
use rdkafka::producer::future_producer::FutureRecord;
use sqlx::{PgPool, SqlitePool};

/// Rows of a page: as many as evenkeel's relay holds by default.
pub(in crate::workloads) const PAGE_ROWS: i64 = 2_000;

const READ: &str = "SELECT sequence, aggregateid, payload, headers FROM evenkeel_outbox \
                    ORDER BY sequence LIMIT $1";

const COUNT: &str = "SELECT count(*) FROM evenkeel_outbox";

/// The properties of evenkeel's publisher that decide what a record costs.
pub(in crate::workloads) const PRODUCER: [(&str, &str); 3] = [
    ("enable.idempotence", "true"),
    ("linger.ms", "2"),
    ("compression.type", "lz4"),
];

/// A transaction of PostgreSQL may commit a lower number later, so the page is deleted by number.
const DELETE_IN_POSTGRES: &str = "DELETE FROM evenkeel_outbox WHERE sequence = ANY($1)";

/// SQLite has one writer: no lower number than the last one can follow.
const DELETE_IN_SQLITE: &str = "DELETE FROM evenkeel_outbox WHERE sequence <= $1";

/// Number, key, payload and headers, which are JSON.
type Row = (i64, String, Vec<u8>, String);

/// The table with the rows.
pub(super) enum Table {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl Table {
    async fn page(&self) -> Result<Vec<Row>, sqlx::Error> {
        match self {
            Self::Sqlite(pool) => {
                let read = sqlx::query_as(READ).bind(PAGE_ROWS);
                read.fetch_all(pool).await
            }
            Self::Postgres(pool) => {
                let read = sqlx::query_as(READ).bind(PAGE_ROWS);
                read.fetch_all(pool).await
            }
        }
    }

    /// The number of rows.
    pub(super) async fn rows(&self) -> Result<i64, sqlx::Error> {
        match self {
            Self::Sqlite(pool) => sqlx::query_scalar(COUNT).fetch_one(pool).await,
            Self::Postgres(pool) => sqlx::query_scalar(COUNT).fetch_one(pool).await,
        }
    }

    /// Deletes the rows of a page.
    async fn delete(&self, page: &[Row]) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(pool) => {
                let last = page.last().map(|(number, ..)| *number);
                let delete = sqlx::query(DELETE_IN_SQLITE).bind(last);
                delete.execute(pool).await.map(drop)
            }
            Self::Postgres(pool) => {
                let numbers: Vec<i64> = page.iter().map(|(number, ..)| *number).collect();
                let delete = sqlx::query(DELETE_IN_POSTGRES).bind(numbers);
                delete.execute(pool).await.map(drop)
            }
        }
    }
}

/// Publishes all rows of the table. Returns the usage from the first read to the last deletion.
pub(super) async fn publish(spec: &Spec, table: &Table) -> anyhow::Result<Usage> {
    let producer = producer(spec)?;
    let begun = UsageReading::now();
    loop {
        let page = table.page().await?;
        if page.is_empty() {
            return UsageReading::now().since(&begun);
        }
        let records = page.iter().map(|(_, key, payload, headers)| {
            let record = FutureRecord::to(&spec.topic).key(key.as_str());
            anyhow::Ok(
                record
                    .payload(payload.as_slice())
                    .headers(decoded(headers)?),
            )
        });
        send_page(&producer, records).await?;
        table.delete(&page).await?;
    }
}

/// Sends records in their order. Returns when all of them are acknowledged.
pub(in crate::workloads) async fn send_page<'a>(
    producer: &FutureProducer,
    records: impl IntoIterator<Item = anyhow::Result<FutureRecord<'a, str, [u8]>>>,
) -> anyhow::Result<()> {
    let mut receipts = Vec::new();
    for record in records {
        let sent = producer.send_result(record?);
        receipts.push(sent.map_err(|(error, _)| error)?);
    }
    for receipt in receipts {
        receipt.await?.map_err(|(error, _)| error)?;
    }
    Ok(())
}

/// A producer with the properties of evenkeel's publisher. Its buffer has room for a page.
pub(in crate::workloads) fn producer(spec: &Spec) -> anyhow::Result<FutureProducer> {
    Ok(spec.raw(&PRODUCER).create()?)
}

/// The headers of a row. They are texts, as those of every event.
fn decoded(json: &str) -> anyhow::Result<OwnedHeaders> {
    let pairs: Vec<(String, Option<String>)> = serde_json::from_str(json)?;
    let headers = OwnedHeaders::new_with_capacity(pairs.len());
    Ok(pairs.iter().fold(headers, |headers, (key, value)| {
        headers.insert(Header {
            key: key.as_str(),
            value: value.as_deref(),
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::super::events::{event, order_in, record};
    use super::*;
    use evenkeel::outbox::SqliteOutbox;
    use rdkafka::message::Headers;
    use sqlx::sqlite::SqliteConnectOptions;

    #[tokio::test]
    async fn a_page_has_the_records_of_the_outbox_until_it_is_deleted() {
        let folder = tempfile::tempdir().expect("a temporary folder is created");
        let path = folder.path().join("outbox.db");
        let outbox = SqliteOutbox::open(&path).await.expect("it is created");
        let options = SqliteConnectOptions::new().filename(&path);
        let pool = SqlitePool::connect_with(options).await.expect("it opens");
        let mut connection = pool.acquire().await.expect("a connection");
        let written = [0, 1].map(|place| record(&event(7, place, 328), "t").expect("a record"));
        let publish = outbox.publish_records(&mut connection, &written);
        publish.await.expect("it is written");
        drop(connection);

        let table = Table::Sqlite(pool);
        let page = table.page().await.expect("it is read");
        assert_eq!(page.len(), written.len());
        for ((_, key, payload, headers), record) in page.iter().zip(&written) {
            assert_eq!(Some(key.as_bytes()), record.key.as_deref());
            let order = order_in(Some(payload)).expect("an order");
            assert_eq!(order, order_in(record.value.as_deref()).expect("an order"));
            let headers = decoded(headers).expect("texts");
            let pairs: Vec<_> = headers.iter().map(|pair| (pair.key, pair.value)).collect();
            let expected = record.headers.iter().map(|(name, value)| {
                let name = std::str::from_utf8(name).expect("a text");
                (name, value)
            });
            assert_eq!(pairs, expected.collect::<Vec<_>>());
        }
        table.delete(&page).await.expect("it is deleted");
        assert!(table.page().await.expect("it is read").is_empty());
    }
}
