//! The store: its connections and its claims.
//!
//! Owns two pools. The writer's has one connection, which also keeps the queue of writers fair; the
//! readers' connections refuse to write (`query_only`). The driver runs each SQLite connection on a
//! thread of its own, so no statement blocks a task of the runtime.
//!
//! A transaction that is dropped queues its rollback on the connection at once, before the next one
//! can begin there: cancellation at any await leaves the file as it was.

use super::settings::{Durability, SqliteSettings};
use super::transaction::{Held, SqliteTx};
use super::write_lock_queue::WriteLockQueue;
use super::{error, statements};
use crate::durations::{CALL_MAX, bounded};
use crate::event::OutgoingRecord;
use crate::inbox::group_commit::{Cause, GroupStore, Groups, HandedOut, Known, Level, of_outbox};
use crate::inbox::shared::purge_watermark::PurgeWatermark;
use crate::inbox::shared::replies;
use crate::inbox::shared::sent_replies::{self, Sent};
use crate::inbox::{BatchInbox, BoxFuture, Claimed, ClaimedBatch, Inbox, InboxError, InboxKey};
use crate::outbox::{self, SqliteOutbox};
use crate::sqlite::is_busy;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, SqlitePool};
use std::any::{Any, TypeId};
use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Takes the write lock at once: a transaction that began with a read could not be promoted once
/// another process had written.
pub(super) const BEGIN: &str = "BEGIN IMMEDIATE";

/// Pause between two tries to get the write lock from another process.
const LOCK_RETRY: Duration = Duration::from_millis(2);

/// Connections that read at the same time.
const READERS_MAX: u32 = 4;

/// An inbox in a SQLite file. Cheap to clone; clones share the connections.
///
/// Deliveries that are ready together share a transaction, each under a savepoint of its own, and
/// processes take turns on the file. The effect that a handler writes through [`SqliteTx`] commits
/// with the inbox row or not at all. A file belongs to one consumer group. It must be on a local
/// disk: the WAL needs shared memory, which network file systems do not have.
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

pub(super) struct Store {
    /// The path, for messages.
    pub(super) path: String,
    /// One connection: SQLite has one writer at a time, and the pool's queue is fair, while
    /// SQLite's lock is not.
    pub(super) writer: SqlitePool,
    /// Connections that refuse to write. They see the last commit.
    pub(super) readers: SqlitePool,
    /// Whose turn it is to write, in this process.
    pub(super) turns: WriteLockQueue,
    /// Whether another process held the write lock for longer than the limit when it was last
    /// needed.
    pub(super) is_locked: AtomicBool,
    /// How long to wait for the write lock of another process.
    pub(super) lock_timeout: Duration,
    /// The outbox that takes published events, if there is one; set before the first claim.
    pub(super) outbox: OnceLock<SqliteOutbox>,
    pub(super) purge_watermark: PurgeWatermark,
    /// Replies to delete.
    pub(super) sent: Sent,
}

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
            let mut held = store.write("purge").await?;
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

impl Store {
    /// Sets up the pools without opening a connection. `foreign_keys` is on: the guard against a
    /// handler's `COMMIT` is a foreign key.
    fn connect(path: &Path, name: String, settings: &SqliteSettings) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(match settings.durability {
                Durability::ProcessCrash => SqliteSynchronous::Normal,
                Durability::PowerLoss => SqliteSynchronous::Full,
            });
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            // If SQLite or the handler ends a transaction without the driver, the driver's count of
            // open transactions is wrong: such a connection is replaced.
            .before_acquire(|connection, _| {
                let clean = !connection.is_in_transaction();
                Box::pin(async move { Ok(clean) })
            })
            // The queue and the retries for the lock are in this crate, because SQLite's own
            // waiting favours the last owner.
            .connect_lazy_with(
                options
                    .clone()
                    .create_if_missing(true)
                    .busy_timeout(Duration::ZERO),
            );
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS_MAX)
            .connect_lazy_with(
                options
                    .busy_timeout(settings.lock_timeout.min(CALL_MAX))
                    .pragma("query_only", "1"),
            );
        Self {
            path: name,
            writer,
            readers,
            turns: WriteLockQueue::default(),
            is_locked: AtomicBool::new(false),
            lock_timeout: bounded(settings.lock_timeout),
            outbox: OnceLock::new(),
            purge_watermark: PurgeWatermark::default(),
            sent: Sent::default(),
        }
    }

    /// Creates or upgrades the tables and runs the service's DDL, in one transaction.
    async fn migrate(&self, settings: &SqliteSettings) -> Result<(), InboxError> {
        let mut held = self.write("open").await?;
        statements::migrate(&mut held.transaction, settings)
            .await
            .map_err(|problem| problem.on(&self.path, "prepare"))?;
        held.commit()
            .await
            .map_err(|error| self.failed("prepare", error))
    }

    /// Waits for this process's turn, then for the file's write lock, up to the lock timeout. The
    /// turn is part of the result, so a process asks for the lock with one writer at a time.
    async fn write(&self, doing: &'static str) -> Result<Held, InboxError> {
        let turn = self.turns.next().await;
        let deadline = Instant::now() + self.lock_timeout;
        loop {
            match self.writer.begin_with(BEGIN).await {
                Ok(transaction) => {
                    self.is_locked.store(false, Ordering::Relaxed);
                    return Ok(Held {
                        transaction,
                        turn,
                        has_published: false,
                    });
                }
                Err(error) if is_busy(&error) && Instant::now() < deadline => {
                    tokio::time::sleep(LOCK_RETRY).await;
                }
                Err(error) => {
                    let is_locked = is_busy(&error);
                    self.is_locked.store(is_locked, Ordering::Relaxed);
                    return Err(self.failed(doing, error));
                }
            }
        }
    }

    fn failed(&self, doing: &'static str, error: sqlx::Error) -> InboxError {
        error::failed(&self.path, doing, error)
    }

    /// Maps an error of a transaction that the handler may have ended.
    fn ended(&self, doing: &'static str, error: sqlx::Error) -> InboxError {
        match error::is_missing_savepoint(&error) {
            true => error::ended_by_hand(error),
            false => self.failed(doing, error),
        }
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

impl GroupStore for Store {
    type Open = Held;

    fn to_handler(handed_out: HandedOut<Held>) -> Box<dyn Any + Send> {
        Box::new(SqliteTx::new(handed_out))
    }

    async fn find(&self, key: &InboxKey) -> Result<Known, InboxError> {
        let failed = |error| self.failed("look up", error);
        let mut reader = self.readers.acquire().await.map_err(failed)?;
        let known = statements::find(&mut reader, key).await;
        known.map(|row| Known::of(key, row)).map_err(failed)
    }

    async fn begin(&self, keys: &[InboxKey], _: Level) -> Result<(Held, Vec<Known>), InboxError> {
        let mut held = self.write("claim").await?;
        let failed = |error| self.failed("claim", error);
        let known = statements::claim(&mut held.transaction, keys, now_ms()).await;
        let known = known.map_err(failed)?;
        if self.purge_watermark.is_due() {
            let purged_before = statements::purged_before(&mut held.transaction).await;
            self.purge_watermark
                .reach(purged_before.map_err(failed)?.as_deref());
        }
        Ok((held, Known::of_all(keys, known)))
    }

    async fn savepoint(&self, held: &mut Held) -> Result<(), InboxError> {
        let marked = statements::savepoint(&mut held.transaction).await;
        marked.map_err(|error| self.ended("complete", error))
    }

    async fn complete(
        &self,
        held: &mut Held,
        key: &InboxKey,
        published: Vec<OutgoingRecord>,
    ) -> Result<Vec<OutgoingRecord>, InboxError> {
        if published.is_empty() {
            return Ok(published);
        }
        if self.outbox.get().is_some() {
            let is_open = statements::is_open(&mut held.transaction).await;
            if !is_open.map_err(|error| self.failed("publish", error))? {
                return Err(error::ended_by_hand("its claim is gone"));
            }
            let appended = outbox::sqlite::append(&mut held.transaction, &published).await;
            appended.map_err(|error| of_outbox(error, |error| self.failed("publish", error)))?;
            held.has_published = true;
            return Ok(Vec::new());
        }
        let replies = replies::encode(&published);
        let kept = statements::store_replies(&mut held.transaction, key, &replies).await;
        kept.map_err(|error| self.failed("complete", error))?;
        Ok(published)
    }

    async fn rollback_to_savepoint(
        &self,
        held: &mut Held,
        key: &InboxKey,
    ) -> Result<(), InboxError> {
        let undone = statements::rollback_to_savepoint(&mut held.transaction, key).await;
        undone.map_err(|error| self.ended("abandon", error))
    }

    async fn release_claims(&self, held: &mut Held, keys: &[InboxKey]) -> Result<(), InboxError> {
        let forgotten = statements::release_claims(&mut held.transaction, keys).await;
        forgotten.map_err(|error| self.ended("complete", error))
    }

    async fn prepare(&self, held: &mut Held) -> Result<(), InboxError> {
        let closed = statements::release_savepoint(&mut held.transaction).await;
        closed.map_err(|error| self.ended("complete", error))
    }

    async fn commit(&self, held: Held) -> Result<(), InboxError> {
        let has_published = held.has_published;
        let committed = held.commit().await;
        committed.map_err(|error| self.failed("complete", error))?;
        if let Some(outbox) = self.outbox.get().filter(|_| has_published) {
            outbox.wake();
        }
        Ok(())
    }

    /// The holder of the write lock needs nothing else.
    async fn check(&self) -> Result<(), InboxError> {
        Ok(())
    }

    fn is_silent(&self) -> bool {
        self.is_locked.load(Ordering::Relaxed)
    }

    fn sent(&self) -> &Sent {
        &self.sent
    }

    async fn forget_replies(&self, keys: &[InboxKey]) -> Result<(), InboxError> {
        let failed = |error| self.failed("forget replies", error);
        let mut held = self.write("forget replies").await?;
        for key in keys {
            let forgotten = statements::forget_replies(&mut held.transaction, key).await;
            forgotten.map_err(failed)?;
        }
        held.commit().await.map_err(failed)
    }

    async fn roll_back(&self, held: Held) -> Result<(), InboxError> {
        let rolled_back = held.roll_back().await;
        rolled_back.map_err(|error| self.failed("abandon", error))
    }

    /// There is one writer at a time, so no transaction can be in its way.
    fn cause(_: Option<&Held>, _: &(dyn Error + 'static)) -> Option<Cause> {
        None
    }
}

/// The wall clock, because rows are kept for days and compared across processes.
pub(super) fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}
