//! The journal of effects: one row per handled event, written in the handler's own transaction.
//!
//! Every service's store has this table, so that an audit can compare what was published with what took effect. It has
//! no unique constraint on purpose: a doubled effect has to be seen, not refused.

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

/// Writes the row of the event that is being handled.
///
/// The key is stored as text, and the empty text stands for a record without a key: all keys of the shop are text.
///
/// # Errors
/// When the store refuses the row; the handler must then fail too.
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
