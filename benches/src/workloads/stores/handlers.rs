//! Handlers that insert one row into the table of effects for each event, in the transaction of the
//! event's inbox row.

use crate::order_event::OrderEvent;
use evenkeel::event::Event;
use evenkeel::handler::{Delivered, HandlerError, Router};
use evenkeel::inbox::{PostgresTx, SqliteTx};
use sqlx::{QueryBuilder, Sqlite};
use std::sync::Arc;

/// The table of effects.
pub(super) const EFFECTS: &str =
    "CREATE TABLE IF NOT EXISTS effects (key INTEGER, place BIGINT, total_cents BIGINT)";
const INSERT: &str = "INSERT INTO effects (key, place, total_cents) VALUES ($1, $2, $3)";

/// How events take effect.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommitMode {
    /// One transaction per event.
    Single,
    /// Group commit: events that are ready share a transaction.
    Group,
    /// A batch handler.
    Batch,
}

impl CommitMode {
    /// The concurrency of a consumer. A batch consists of events that wait while the previous one
    /// runs, so batches need a higher one.
    pub(crate) fn concurrency(self) -> usize {
        match self {
            Self::Single | Self::Group => 256,
            Self::Batch => 1_000,
        }
    }
}

/// Is called by a handler for each event whose row it inserted, before the commit.
pub(crate) type Seen = Arc<dyn Fn(&OrderEvent) + Send + Sync>;

/// The handlers of both stores differ in the type of their transaction.
macro_rules! insert {
    ($seen:expr, $transaction:ty) => {{
        let seen: Seen = $seen;
        move |event: Event<OrderEvent>, mut tx: $transaction| {
            let seen = Arc::clone(&seen);
            async move {
                sqlx::query(INSERT)
                    .bind(event.data.key as i32)
                    .bind(event.data.place as i64)
                    .bind(event.data.total_cents)
                    .execute(&mut *tx)
                    .await?;
                seen(&event.data);
                Ok::<_, HandlerError>(())
            }
        }
    }};
}

/// The same for a batch handler, in one statement.
macro_rules! insert_all {
    ($seen:expr, $transaction:ty, $insert:expr) => {{
        let seen: Seen = $seen;
        move |events: Vec<Delivered<OrderEvent>>, mut tx: $transaction| {
            let seen = Arc::clone(&seen);
            async move {
                $insert(&mut tx, &events).await?;
                for Delivered { event, .. } in &events {
                    seen(&event.data);
                }
                Ok::<_, HandlerError>(())
            }
        }
    }};
}

/// A router with the handler of this mode for SQLite, without its inbox.
pub(super) fn for_sqlite(mode: CommitMode, seen: Seen) -> Router {
    match mode {
        CommitMode::Batch => Router::new().on_batch(insert_all!(seen, SqliteTx, insert_in_sqlite)),
        CommitMode::Single | CommitMode::Group => Router::new().on(insert!(seen, SqliteTx)),
    }
}

/// A router with the handler of this mode for PostgreSQL, without its inbox.
pub(super) fn for_postgres(mode: CommitMode, seen: Seen) -> Router {
    match mode {
        CommitMode::Batch => {
            Router::new().on_batch(insert_all!(seen, PostgresTx, insert_in_postgres))
        }
        CommitMode::Single | CommitMode::Group => Router::new().on(insert!(seen, PostgresTx)),
    }
}

async fn insert_in_sqlite(
    tx: &mut SqliteTx,
    events: &[Delivered<OrderEvent>],
) -> Result<(), sqlx::Error> {
    let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO effects (key, place, total_cents) ");
    insert.push_values(events, |mut row, Delivered { event, .. }| {
        row.push_bind(event.data.key as i32)
            .push_bind(event.data.place as i64)
            .push_bind(event.data.total_cents);
    });
    insert.build().execute(&mut **tx).await.map(drop)
}

async fn insert_in_postgres(
    tx: &mut PostgresTx,
    events: &[Delivered<OrderEvent>],
) -> Result<(), sqlx::Error> {
    let column = |member: fn(&OrderEvent) -> i64| -> Vec<i64> {
        let samples = events.iter().map(|delivered| &delivered.event.data);
        samples.map(member).collect()
    };
    let insert = sqlx::query(
        "INSERT INTO effects SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[])",
    )
    .bind(column(|sample| sample.key.into()))
    .bind(column(|sample| sample.place as i64))
    .bind(column(|sample| sample.total_cents));
    insert.execute(&mut **tx).await.map(drop)
}
