//! Read access to the completed deliveries of a PostgreSQL store.
//!
//! Reads on a connection of the inbox's own pool, outside of the transactions of claims. Rows of
//! open claims are not visible there, so they are not reported. Long lists are read in chunks; a
//! completion between two chunks may be reported or not, as the trait allows.

use super::{PostgresInbox, PostgresSettings, statements};
use crate::inbox::completions::completion::Opening;
use crate::inbox::{BoxFuture, Completion, Completions, InboxError, InboxKey};
use crate::postgres::{Migration, Session, url_in};
use std::sync::Arc;

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
            for keys in keys.chunks(statements::KEYS_PER_QUERY_MAX) {
                let some = statements::completed(&mut connection, keys).await;
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
                let known = statements::has_deliveries(&mut connection, group, Some(handler)).await;
                has.push(known.map_err(|error| self.store().failed("read", error))?);
            }
            Ok(has)
        })
    }

    fn has_group<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<bool, InboxError>> {
        Box::pin(async move {
            let mut connection = self.reader().await?;
            let has = statements::has_deliveries(&mut connection, group, None).await;
            has.map_err(|error| self.store().failed("read", error))
        })
    }
}
