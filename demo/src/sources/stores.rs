//! Reads the services' stores. Read-only: the audit must not change its sources.

use crate::audit::{Books, Effect, Identity, Moved, Position};
use anyhow::Context;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Row};
use std::path::Path;
use std::time::Duration;

/// A connection to a store that cannot change it.
pub(crate) async fn open_store(store: &Path) -> anyhow::Result<SqliteConnection> {
    SqliteConnectOptions::new()
        .filename(store)
        .read_only(true)
        .busy_timeout(Duration::from_secs(5))
        .connect()
        .await
        .with_context(|| format!("cannot read the store {}", store.display()))
}

/// All effects of a service in the order of commits.
pub(crate) async fn read_effects(store: &Path) -> anyhow::Result<Vec<Effect>> {
    let mut connection = open_store(store).await?;
    let rows = sqlx::query(
        r#"SELECT source, id, topic, partition, "offset", record_key FROM effects ORDER BY seq"#,
    )
    .fetch_all(&mut connection)
    .await?;
    connection.close().await?;
    let effect = |row: &sqlx::sqlite::SqliteRow| -> Result<Effect, sqlx::Error> {
        Ok(Effect {
            identity: Identity {
                source: row.try_get("source")?,
                id: row.try_get("id")?,
            },
            at: Position {
                topic: row.try_get("topic")?,
                partition: row.try_get("partition")?,
                offset: row.try_get("offset")?,
            },
            key: row.try_get("record_key")?,
            before_run: false,
        })
    };
    Ok(rows.iter().map(effect).collect::<Result<_, _>>()?)
}

/// Inventory's levels, and the sums of its moves.
pub(crate) async fn read_books(store: &Path) -> anyhow::Result<Books> {
    let mut connection = open_store(store).await?;
    let levels: Vec<(String, i64)> = sqlx::query_as("SELECT article, available FROM stock")
        .fetch_all(&mut connection)
        .await?;
    let moves: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT article, kind, sum(quantity) FROM stock_moves GROUP BY article, kind",
    )
    .fetch_all(&mut connection)
    .await?;
    connection.close().await?;
    let mut books = Books {
        available: levels.into_iter().collect(),
        ..Books::default()
    };
    for (article, kind, quantity) in moves {
        let Moved {
            received,
            reserved,
            released,
        } = books.booked.entry(article).or_default();
        match kind.as_str() {
            "received" => *received += quantity,
            "reserved" => *reserved += quantity,
            "released" => *released += quantity,
            other => anyhow::bail!("inventory's store has a move of the unknown kind {other}"),
        }
    }
    Ok(books)
}
