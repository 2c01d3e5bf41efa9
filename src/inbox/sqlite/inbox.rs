//! The inbox: how it is opened, and its claims.

use super::settings::SqliteSettings;
use super::statements;
use super::store::{Store, now_ms};
use super::transaction::SqliteTx;
use crate::inbox::group_commit::Groups;
use crate::inbox::shared::sent_replies;
use crate::inbox::{BatchInbox, BoxFuture, Claimed, ClaimedBatch, Inbox, InboxError, InboxKey};
use crate::outbox::SqliteOutbox;
use sqlx::SqlitePool;
use std::any::TypeId;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// An inbox in a SQLite file. Cheap to clone; clones share the connections.
///
/// Deliveries that are ready together share a transaction, each under a savepoint of its own, and
/// processes take turns on the file. The effect that a handler writes through [`SqliteTx`] commits
/// with the inbox row or not at all. A file belongs to one consumer group. It must be on a local
/// disk: the WAL needs shared memory, which network file systems do not have. If it (or its WAL) is
/// deleted, moved or replaced while it is open, claims fail with
/// [`InboxError::NotWritable`](crate::inbox::InboxError::NotWritable) within a second: what was
/// written to it would be lost at the end of the process.
///
/// # Examples
/// ```no_run
/// use evenkeel::event::Record;
/// use evenkeel::handler::{HandlerError, Router};
/// use evenkeel::inbox::{SqliteInbox, SqliteTx};
/// use evenkeel::sqlx;
/// use std::path::Path;
///
/// async fn count(_: Record, mut tx: SqliteTx) -> Result<(), HandlerError> {
///     sqlx::query("INSERT INTO records DEFAULT VALUES").execute(&mut *tx).await?;
///     Ok(())
/// }
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let schema = "CREATE TABLE IF NOT EXISTS records (id INTEGER PRIMARY KEY)";
/// let inbox = SqliteInbox::open(Path::new("counter.db"), "counter", schema).await?;
/// let router = Router::new().raw(count).with_inbox(inbox);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SqliteInbox {
    groups: Arc<Groups<Store>>,
}

impl std::fmt::Debug for SqliteInbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteInbox")
            .field("path", &self.store().path)
            .finish_non_exhaustive()
    }
}

/// SQLite has one writer at a time.
const OPEN_MAX: u32 = 1;

impl SqliteInbox {
    /// Opens or creates the store of `group` with the default settings. `schema` is the service's
    /// own DDL (`CREATE TABLE IF NOT EXISTS …`), executed in the transaction that upgrades the
    /// inbox's tables.
    ///
    /// # Errors
    /// See [`SqliteInbox::open_with`].
    pub async fn open(path: &Path, group: &str, schema: &str) -> Result<Self, InboxError> {
        Self::open_with(path, &SqliteSettings::new(group, schema)).await
    }

    /// Opens or creates the store with these settings. Several processes may open it at the same
    /// time.
    ///
    /// # Errors
    /// [`InboxError::Foreign`] for a store of another group or of a newer version, or a file that
    /// is no SQLite database; [`InboxError::NotWritable`] if the file or its directory cannot be
    /// written; [`InboxError::Unavailable`] if another process keeps it locked for longer than the
    /// lock timeout.
    pub async fn open_with(path: &Path, settings: &SqliteSettings) -> Result<Self, InboxError> {
        let name = path.display().to_string();
        if name.is_empty() || name.starts_with(":memory:") {
            return Err(InboxError::Foreign {
                path: name,
                reason: "is no file; name a file, or use MemoryInbox".to_owned(),
            });
        }
        let store = Store::connect(path, name, settings);
        store.migrate(settings).await?;
        Ok(Self {
            groups: Groups::new(store, OPEN_MAX, settings.group_max),
        })
    }

    /// Writes the events that handlers publish through their context to this outbox of the same
    /// file, in the transaction of the inbox row and the effect. A [`Relay`](crate::outbox::Relay)
    /// must publish them to Kafka. Without an outbox they are stored beside the row, and the
    /// consumer publishes them after the commit.
    ///
    /// # Errors
    /// [`InboxError::Foreign`] for an outbox of another file, or for a second outbox.
    pub fn with_outbox(self, outbox: SqliteOutbox) -> Result<Self, InboxError> {
        let store = self.store();
        let foreign = |reason: &str| InboxError::Foreign {
            path: store.path.clone(),
            reason: reason.to_owned(),
        };
        let file = store.readers.connect_options();
        if file.get_filename() != outbox.file().as_path() {
            return Err(foreign(
                "is not the file of the outbox: open both on one file",
            ));
        }
        let set = store.outbox.set(outbox);
        set.map_err(|_| foreign("has an outbox already"))?;
        Ok(self)
    }

    /// A pool for reading. Its connections refuse to write: only the claims' transactions write.
    ///
    /// # Examples
    /// ```no_run
    /// # use evenkeel::{inbox::SqliteInbox, sqlx};
    /// # async fn example(inbox: SqliteInbox) -> Result<(), sqlx::Error> {
    /// let count: i64 = sqlx::query_scalar("SELECT count(*) FROM mails")
    ///     .fetch_one(inbox.pool())
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn pool(&self) -> &SqlitePool {
        &self.store().readers
    }

    /// Deletes deliveries completed more than `older_than` ago, `batch` rows per transaction, so
    /// that claims can run in between. Returns the number of deleted rows.
    ///
    /// Keep rows longer than a record can be redelivered: at least for the retention of the topics,
    /// plus the period in which dead letters are replayed (their topics keep them for ever by
    /// default). A replay of an event whose row was deleted has its effect a second time. The store
    /// records the time up to which it has forgotten, so that such events are counted and logged.
    ///
    /// # Errors
    /// The errors of a claim. Batches deleted before the error stay deleted.
    ///
    /// # Examples
    /// ```no_run
    /// # use std::time::Duration;
    /// # use evenkeel::inbox::{InboxError, SqliteInbox};
    /// # async fn example(inbox: SqliteInbox) -> Result<(), InboxError> {
    /// let days = |days: u64| Duration::from_secs(days * 24 * 60 * 60);
    /// let purged = inbox.purge(days(45), 1_000).await?;
    /// println!("{purged} deliveries forgotten");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn purge(&self, older_than: Duration, batch: u32) -> Result<u64, InboxError> {
        let before_ms = now_ms() - i64::try_from(older_than.as_millis()).unwrap_or(i64::MAX);
        let batch = batch.max(1);
        let mut purged = 0;
        let store = self.store();
        let failed = |error| store.failed("purge", error);
        loop {
            let mut held = store.begin_write("purge").await?;
            let purge = async {
                let gone = statements::purge(&mut held.transaction, before_ms, batch).await?;
                Ok((
                    gone,
                    statements::purged_before(&mut held.transaction).await?,
                ))
            };
            let (gone, purged_before) = purge.await.map_err(failed)?;
            held.commit().await.map_err(failed)?;
            store.purge_watermark.reach(purged_before.as_deref());
            purged += gone;
            if gone < u64::from(batch) {
                return Ok(purged);
            }
        }
    }

    /// Closes all connections after the running claims have ended. Later claims fail as
    /// unavailable. Close the inbox after the consumer has ended, not before.
    pub async fn close(&self) {
        self.store().writer.close().await;
        self.store().readers.close().await;
    }

    pub(super) fn store(&self) -> &Store {
        self.groups.store()
    }
}

impl Inbox for SqliteInbox {
    fn claim<'a>(&'a self, key: &'a InboxKey) -> BoxFuture<'a, Result<Claimed, InboxError>> {
        Box::pin(self.groups.claim(key.clone()))
    }

    fn claim_without_transaction<'a>(
        &'a self,
        key: &'a InboxKey,
    ) -> BoxFuture<'a, Result<Claimed, InboxError>> {
        Box::pin(self.groups.claim_at_completion(key.clone()))
    }

    fn transaction_type(&self) -> Option<TypeId> {
        Some(TypeId::of::<SqliteTx>())
    }

    fn batches(&self) -> Option<&dyn BatchInbox> {
        Some(self)
    }

    fn sent(&self, key: &InboxKey) {
        sent_replies::forget_soon(Arc::clone(&self.groups), key);
    }

    fn forgotten_before_ms(&self) -> Option<i64> {
        self.store().purge_watermark.before_ms()
    }
}

impl BatchInbox for SqliteInbox {
    fn claim_batch<'a>(
        &'a self,
        keys: &'a [InboxKey],
    ) -> BoxFuture<'a, Result<ClaimedBatch, InboxError>> {
        Box::pin(self.groups.claim_batch(keys))
    }
}
