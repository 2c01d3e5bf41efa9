//! Read access to the completed deliveries of a PostgreSQL store.
//!
//! Reads on a connection of the inbox's own pool, outside of the transactions of claims. Rows of
//! open claims are not visible there, so they are not reported. Long lists are read in chunks; a
//! completion between two chunks may be reported or not, as the trait allows.

use super::statements::storable_text;
use super::{PostgresInbox, PostgresSettings};
use crate::event::ContentDigest;
use crate::inbox::completions::completion::Opening;
use crate::inbox::shared::digest::digest;
use crate::inbox::{BoxFuture, Completion, Completions, InboxError, InboxKey};
use crate::postgres::{Migration, Session, url_in};
use sqlx::{PgConnection, Row};
use std::collections::HashMap;
use std::sync::Arc;

/// How many deliveries one query looks up.
const KEYS_PER_QUERY_MAX: usize = 4096;

/// Reads by the primary key. The time is rounded down, so that it is never after the real one.
const READ_COMPLETIONS: &str = "
    SELECT digest, floor(extract(epoch FROM completed_at) * 1000)::bigint AS at_ms, content
    FROM evenkeel_inbox WHERE digest = ANY($1)";

/// A handler's rows have no index: for a handler that never completed a delivery the query scans
/// all rows, once per such handler.
const HAS_HANDLER: &str = "
    SELECT EXISTS (SELECT 1 FROM evenkeel_inbox WHERE consumer_group = $1 AND handler = $2)";

/// Scans until the first row of the group.
const HAS_GROUP: &str = "SELECT EXISTS (SELECT 1 FROM evenkeel_inbox WHERE consumer_group = $1)";

/// Opens the store at a URL of PostgreSQL. A database may serve several groups, so the group is not
/// checked.
pub(in crate::inbox) fn open_for_reading<'a>(
    address: &'a str,
    _group: &'a str,
) -> Option<Opening<'a>> {
    Some(Box::pin(reader_at(url_in(address)?)))
}

async fn reader_at(url: &str) -> Result<Arc<dyn Completions>, InboxError> {
    let settings = PostgresSettings::new("")
        .with_migration(Migration::Elsewhere)
        .with_connections(1);
    Ok(Arc::new(PostgresInbox::open_with(url, &settings).await?))
}

impl PostgresInbox {
    /// A connection for reading; behind a pooler, a transaction.
    async fn reader(&self) -> Result<Session, InboxError> {
        let connection = self.store().database.session().await;
        connection.map_err(|error| self.store().failed("read", error))
    }
}

impl Completions for PostgresInbox {
    fn completed<'a>(
        &'a self,
        keys: &'a [InboxKey],
    ) -> BoxFuture<'a, Result<Vec<Option<Completion>>, InboxError>> {
        Box::pin(async move {
            let mut connection = self.reader().await?;
            let mut found = Vec::with_capacity(keys.len());
            for keys in keys.chunks(KEYS_PER_QUERY_MAX) {
                let some = read_completions(&mut connection, keys).await;
                found.extend(some.map_err(|error| self.store().failed("read", error))?);
            }
            Ok(found)
        })
    }

    fn has_handlers<'a>(
        &'a self,
        group: &'a str,
        handlers: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<bool>, InboxError>> {
        Box::pin(async move {
            let mut connection = self.reader().await?;
            let mut has = Vec::with_capacity(handlers.len());
            for handler in handlers {
                let known = has_deliveries(&mut connection, group, Some(handler)).await;
                has.push(known.map_err(|error| self.store().failed("read", error))?);
            }
            Ok(has)
        })
    }

    fn has_group<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<bool, InboxError>> {
        Box::pin(async move {
            let mut connection = self.reader().await?;
            let has = has_deliveries(&mut connection, group, None).await;
            has.map_err(|error| self.store().failed("read", error))
        })
    }
}

/// How each of at most [`KEYS_PER_QUERY_MAX`] deliveries was completed.
async fn read_completions(
    connection: &mut PgConnection,
    keys: &[InboxKey],
) -> Result<Vec<Option<Completion>>, sqlx::Error> {
    let digests: Vec<[u8; 32]> = keys.iter().map(digest).collect();
    let mut found: HashMap<Vec<u8>, Completion> = HashMap::new();
    let query = sqlx::query(READ_COMPLETIONS).bind(&digests);
    for row in query.fetch_all(connection).await? {
        let content: Option<Vec<u8>> = row.try_get("content")?;
        let completion = Completion {
            at_ms: row.try_get("at_ms")?,
            content: content.as_deref().and_then(ContentDigest::from_bytes),
        };
        found.insert(row.try_get("digest")?, completion);
    }
    let completions = digests.iter().map(|digest| found.get(digest.as_slice()));
    Ok(completions.map(Option::<&Completion>::copied).collect())
}

/// Whether any delivery of the group exists, and of the handler if one is given.
async fn has_deliveries(
    connection: &mut PgConnection,
    group: &str,
    handler: Option<&str>,
) -> Result<bool, sqlx::Error> {
    let group = storable_text(group);
    let query = match handler {
        Some(handler) => sqlx::query_scalar(HAS_HANDLER)
            .bind(group)
            .bind(storable_text(handler)),
        None => sqlx::query_scalar(HAS_GROUP).bind(group),
    };
    query.fetch_one(connection).await
}
