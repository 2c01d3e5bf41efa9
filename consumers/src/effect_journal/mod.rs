//! The journal of effects: one row per handled event, written in the handler's transaction.
//!
//! Every service's store has this table, so that an audit can compare published events with their
//! effects. It deliberately has no unique constraint: a doubled effect must be visible, not
//! rejected.

use evenkeel::event::Attributes;
use evenkeel::handler::Context;
use sqlx::SqliteConnection;

/// The journal's table.
pub const SCHEMA: &str = r#"
CREATE TABLE IF NOT EXISTS effects (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    source     TEXT NOT NULL,
    id         TEXT NOT NULL,
    type       TEXT NOT NULL,
    topic      TEXT NOT NULL,
    partition  INTEGER NOT NULL,
    "offset"   INTEGER NOT NULL,
    record_key TEXT NOT NULL,
    at         TEXT NOT NULL
);
"#;

/// Writes the row of the current event.
///
/// The key is stored as text: all keys of the shop are text. The empty text stands for a record
/// without a key.
///
/// # Errors
/// If the store rejects the row. The handler must then fail too.
pub async fn record(
    store: &mut SqliteConnection,
    context: &Context,
    event: &Attributes,
) -> Result<(), sqlx::Error> {
    let key = String::from_utf8_lossy(context.key().unwrap_or_default()).into_owned();
    sqlx::query(
        r#"INSERT INTO effects (source, id, type, topic, partition, "offset", record_key, at)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?)"#,
    )
    .bind(&event.source)
    .bind(&event.id)
    .bind(&event.ty)
    .bind(context.topic())
    .bind(context.partition())
    .bind(context.offset())
    .bind(key)
    .bind(jiff::Timestamp::now().to_string())
    .execute(store)
    .await?;
    Ok(())
}
