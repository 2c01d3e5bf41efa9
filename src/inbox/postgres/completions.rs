//! What a PostgreSQL store says of deliveries.

use super::{PostgresInbox, store};
use crate::inbox::{BoxFuture, Completion, Completions, InboxError, InboxKey};
use sqlx::Postgres;
use sqlx::pool::PoolConnection;

impl PostgresInbox {
    async fn looking(&self) -> Result<PoolConnection<Postgres>, InboxError> {
        let connection = self.store().pool.acquire().await;
        connection.map_err(|error| self.store().failed("read", error))
    }
}

impl Completions for PostgresInbox {
    fn completed<'a>(
        &'a self,
        keys: &'a [InboxKey],
    ) -> BoxFuture<'a, Result<Vec<Option<Completion>>, InboxError>> {
        Box::pin(async move {
            let mut connection = self.looking().await?;
            let mut told = Vec::with_capacity(keys.len());
            for keys in keys.chunks(store::LOOK_MAX) {
                let some = store::completed(&mut connection, keys).await;
                told.extend(some.map_err(|error| self.store().failed("read", error))?);
            }
            Ok(told)
        })
    }

    fn has_handlers<'a>(
        &'a self,
        group: &'a str,
        handlers: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<bool>, InboxError>> {
        Box::pin(async move {
            let mut connection = self.looking().await?;
            let mut has = Vec::with_capacity(handlers.len());
            for handler in handlers {
                let known = store::has(&mut connection, group, Some(handler)).await;
                has.push(known.map_err(|error| self.store().failed("read", error))?);
            }
            Ok(has)
        })
    }

    fn has_group<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<bool, InboxError>> {
        Box::pin(async move {
            let mut connection = self.looking().await?;
            let has = store::has(&mut connection, group, None).await;
            has.map_err(|error| self.store().failed("read", error))
        })
    }
}
