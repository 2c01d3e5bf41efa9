//! The journal of effects: one row per handled event, written in the handler's transaction.
//!
//! Every service's store has this table, so that an audit can compare published events with their
//! effects. It deliberately has no unique constraint: a doubled effect must be visible, not
//! rejected.
//!
//! The journal's statement begins a text that continues with the service's own statements
//! ([`journaled`]): sent alone, it would cost two more changes between the task and the thread of
//! SQLite. [`values`]: lists of rows in a statement.

pub mod values;

use evenkeel::event::Attributes;
use evenkeel::handler::Context;
use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, Sqlite};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use values::{padded, placeholders};

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

/// Writes the rows of events.
const INSERT: &str = r#"
    INSERT INTO effects (source, id, type, topic, partition, "offset", record_key, at)
        SELECT * FROM (VALUES /*effects*/) WHERE column1 IS NOT NULL;"#;

/// A text of one or more statements, whose values are being bound.
pub type Query = sqlx::query::Query<'static, Sqlite, SqliteArguments>;

/// A handled event, as the journal describes it.
#[derive(Debug, Clone, Copy)]
pub struct Effect<'a> {
    /// Source of the event.
    pub source: &'a str,
    /// Id of the event, unique within its source.
    pub id: &'a str,
    /// Type of the event.
    pub ty: &'a str,
    /// Topic of its record.
    pub topic: &'a str,
    /// Partition of its record.
    pub partition: i32,
    /// Offset of its record.
    pub offset: i64,
    /// Key of its record; `None` without one.
    pub key: Option<&'a [u8]>,
}

impl<'a> Effect<'a> {
    /// The effect of an event that was delivered in `context`.
    pub fn of(context: &'a Context, event: &'a Attributes) -> Self {
        Self {
            source: &event.source,
            id: &event.id,
            ty: &event.ty,
            topic: context.topic(),
            partition: context.partition(),
            offset: context.offset(),
            key: context.key(),
        }
    }
}

/// A text that writes the rows of `effects`, in their order, and then executes `statements`. The
/// caller binds the values of `statements`, whose placeholders are all `?`.
///
/// Only `execute` and `fetch_all` execute every statement. `fetch_optional` and `fetch_one` end at
/// the first row, so they are for a text in which only the last statement returns rows.
///
/// The key is stored as text: all keys of the shop are text. The empty text stands for a record
/// without a key. If the store rejects a row, the handler must fail too.
pub fn journaled(effects: &[Effect<'_>], statements: &str) -> Query {
    let text = text_of(effects.len(), statements);
    bind(sqlx::query(AssertSqlSafe(text)), effects)
}

/// [`journaled`] for one event, with a text that is made once on each thread.
pub fn journaled_one(effect: Effect<'_>, statements: &'static str) -> Query {
    let text = made_once(statements);
    bind(sqlx::query(AssertSqlSafe(text)), &[effect])
}

/// The text that writes this many rows and then executes `statements`.
fn text_of(effects: usize, statements: &str) -> String {
    INSERT.replace("/*effects*/", &placeholders(8, effects)) + statements
}

/// The text that writes one row and then executes `statements`.
fn made_once(statements: &'static str) -> Arc<str> {
    thread_local! {
        /// By address and length of the statements, which are few.
        static TEXTS: RefCell<HashMap<(*const u8, usize), Arc<str>>> = RefCell::default();
    }
    TEXTS.with_borrow_mut(|texts| {
        let text = texts.entry((statements.as_ptr(), statements.len()));
        Arc::clone(text.or_insert_with(|| text_of(1, statements).into()))
    })
}

/// Binds the values of the journal's statement. SQLite's driver takes an `Arc` as it is, and would
/// copy another text twice.
fn bind(mut query: Query, effects: &[Effect<'_>]) -> Query {
    let at: Arc<str> = jiff::Timestamp::now().to_string().into();
    let text = |text: &str| Arc::<str>::from(text);
    for effect in padded(effects) {
        let key = effect.map(|effect| effect.key.unwrap_or_default());
        query = query
            .bind(effect.map(|effect| text(effect.source)))
            .bind(effect.map(|effect| text(effect.id)))
            .bind(effect.map(|effect| text(effect.ty)))
            .bind(effect.map(|effect| text(effect.topic)))
            .bind(effect.map(|effect| effect.partition))
            .bind(effect.map(|effect| effect.offset))
            .bind(key.map(|key| Arc::<str>::from(String::from_utf8_lossy(key))))
            .bind(Arc::clone(&at));
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{effect, effects, store};

    #[tokio::test]
    async fn effects_are_journaled_in_order_before_the_other_statements() {
        let mut store = store("").await;
        let ids = ["e-1", "e-2", "e-3"];
        let handled = ids.map(effect);
        let count = journaled(&handled, "SELECT count(*), ? FROM effects").bind("bound");
        let row = count.fetch_one(&mut store).await.unwrap();
        let (count, bound): (i64, String) = sqlx::FromRow::from_row(&row).unwrap();
        assert_eq!((count, bound.as_str()), (3, "bound"));
        assert_eq!(effects(&mut store).await, ids);
    }

    #[tokio::test]
    async fn one_effect_is_written_by_a_text_that_is_made_once() {
        const COUNT: &str = "SELECT count(*), ? FROM effects";
        const SUM: &str = "SELECT sum(seq), ? FROM effects";
        let mut store = store("").await;
        for (id, statements, expected) in [("e-1", COUNT, 1), ("e-2", SUM, 3), ("e-3", COUNT, 3)] {
            let query = journaled_one(effect(id), statements).bind("bound");
            let row = query.fetch_one(&mut store).await.unwrap();
            let row: (i64, String) = sqlx::FromRow::from_row(&row).unwrap();
            assert_eq!(row, (expected, "bound".to_owned()));
        }
        assert_eq!(effects(&mut store).await, ["e-1", "e-2", "e-3"]);
        assert!(Arc::ptr_eq(&made_once(COUNT), &made_once(COUNT)));
        assert_eq!(*made_once(COUNT), text_of(1, COUNT));
    }

    #[tokio::test]
    async fn a_row_has_place_and_key_of_its_record() {
        let mut store = store("").await;
        let keyless = Effect {
            key: None,
            ..effect("e-2")
        };
        let written = journaled(&[effect("e-1"), keyless], "");
        written.execute(&mut store).await.unwrap();
        let rows: Vec<(String, String, String, i32, i64, String)> = sqlx::query_as(
            r#"SELECT source, type, topic, partition, "offset", record_key FROM effects"#,
        )
        .fetch_all(&mut store)
        .await
        .unwrap();
        let row = |key: &str| {
            let [source, ty, topic] = ["/test", "test.v1", "tests"].map(str::to_owned);
            (source, ty, topic, 3, 17, key.to_owned())
        };
        assert_eq!(rows, [row("key"), row("")]);
    }
}
