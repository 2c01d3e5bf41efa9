//! An inbox in one SQLite file (WAL), shared by the instances of a service on one machine.
//!
//! Owns the connections and the queue of writers. Knows nothing of Kafka, and waits for nothing but SQLite while it holds
//! the write lock: whoever holds a claim keeps every other writer of the file waiting, so a handler reads what it needs
//! from elsewhere before it is called, and its publications leave after the commit.

mod completions;
mod error;
mod settings;
mod store;
mod transaction;
mod turn;

#[cfg(test)]
mod tests;

pub use completions::SqliteCompletions;
pub(crate) use error::is_busy;
pub use settings::{Durability, SqliteSettings};
pub use transaction::SqliteTx;

use super::group::{Cause, GroupStore, Groups, Known, Lent, Level};
use super::horizon::Horizon;
use super::{BatchInbox, BoxFuture, Claimed, ClaimedBatch, Inbox, InboxError, InboxKey, replies};
use crate::durations::{CALL_MAX, bounded};
use crate::event::OutgoingRecord;
use crate::outbox::{self, SqliteOutbox};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, Sqlite, SqlitePool, Transaction};
use std::any::{Any, TypeId};
use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;
use transaction::Held;
use turn::Turns;

/// Takes the write lock at once: a transaction that began by reading could not be promoted once another process had written.
const BEGIN: &str = "BEGIN IMMEDIATE";

/// Pause between two tries to get the write lock from another process.
const LOCK_RETRY: Duration = Duration::from_millis(2);

/// How many connections read at a time.
const READERS_MAX: u32 = 4;

/// An inbox in a SQLite file. Cheap to clone; clones share the connections.
///
/// Deliveries that are ready together share a transaction, each under a savepoint of its own, and processes take turns on the
/// file. The effect that a handler writes through [`SqliteTx`] commits with the inbox row or not at all.
#[derive(Clone)]
pub struct SqliteInbox {
    groups: Arc<Groups<Store>>,
}

/// SQLite has one writer at a time.
const OPEN_MAX: u32 = 1;

struct Store {
    path: String,
    /// One connection: SQLite has one writer at a time, and waiting here is fair where SQLite's lock is not.
    writer: SqlitePool,
    readers: SqlitePool,
    turns: Turns,
    /// Whether another process kept the write lock for longer than the limit when it was last needed.
    is_locked: AtomicBool,
    lock_timeout: Duration,
    outbox: OnceLock<SqliteOutbox>,
    horizon: Horizon,
}

impl SqliteInbox {
    /// Opens or creates the store of `group` with the default settings. `schema` is the service's own DDL
    /// (`CREATE TABLE IF NOT EXISTS …`), run in the transaction that brings the inbox's tables up to date.
    ///
    /// # Errors
    /// See [`SqliteInbox::open_with`].
    pub async fn open(path: &Path, group: &str, schema: &str) -> Result<Self, InboxError> {
        Self::open_with(path, &SqliteSettings::new(group, schema)).await
    }

    /// Opens or creates the store that `settings` describe. Several processes may open it at once.
    ///
    /// # Errors
    /// [`InboxError::Foreign`] for a store of another group, of a newer version, or a file that is no SQLite database;
    /// [`InboxError::NotWritable`] where the file or its directory cannot be written; [`InboxError::Unavailable`] when
    /// another process keeps it locked for longer than the lock timeout.
    pub async fn open_with(path: &Path, settings: &SqliteSettings) -> Result<Self, InboxError> {
        let name = path.display().to_string();
        if name.is_empty() || name.starts_with(":memory:") {
            return Err(InboxError::Foreign {
                path: name,
                reason: "is no file; name a file, or use MemoryInbox".to_owned(),
            });
        }
        let store = Store::connect(path, name, settings);
        store.prepare(settings).await?;
        Ok(Self {
            groups: Groups::new(store, OPEN_MAX, settings.group_max),
        })
    }

    /// The same, where what handlers publish through their context is written to this outbox of the same file, with the inbox
    /// row and the effect: a [`Relay`](crate::outbox::Relay) has to take it to Kafka. Without an outbox it is kept beside the
    /// row and published after the commit, by whoever handles the event.
    ///
    /// # Errors
    /// [`InboxError::Foreign`] for the outbox of another file, or a second one.
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

    /// A pool for reading: its connections refuse to write, as only the claims' transactions do that.
    pub fn pool(&self) -> &SqlitePool {
        &self.store().readers
    }

    /// Forgets deliveries that were completed longer than `older_than` ago, `batch` rows to a transaction so that claims
    /// get through in between. Returns how many rows went.
    ///
    /// Keep rows for longer than a record can come back: for the retention of the topics, and the time in which dead letters
    /// are replayed besides (their topics keep them for good, unless made otherwise). A replay of an event whose row is gone
    /// has its effect a second time; the store remembers up to when it forgot, so that such an event is counted and logged.
    ///
    /// # Errors
    /// As for a claim; the batches before stay deleted.
    pub async fn purge(&self, older_than: Duration, batch: u32) -> Result<u64, InboxError> {
        let before_ms = now_ms() - i64::try_from(older_than.as_millis()).unwrap_or(i64::MAX);
        let batch = batch.max(1);
        let mut purged = 0;
        let store = self.store();
        let failed = |error| store.failed("purge", error);
        loop {
            let mut held = store.write("purge").await?;
            let purge = async {
                let gone = store::purge(&mut held.transaction, before_ms, batch).await?;
                Ok((gone, store::purged_before(&mut held.transaction).await?))
            };
            let (gone, purged_before) = purge.await.map_err(failed)?;
            held.commit().await.map_err(failed)?;
            store.horizon.reach(purged_before.as_deref());
            purged += gone;
            if gone < u64::from(batch) {
                return Ok(purged);
            }
        }
    }

    /// Closes all connections; claims that run finish first.
    pub async fn close(&self) {
        self.store().writer.close().await;
        self.store().readers.close().await;
    }

    fn store(&self) -> &Store {
        self.groups.store()
    }
}

impl Store {
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
            // A transaction that SQLite or the handler ended behind the driver's back leaves the driver's count of open
            // transactions wrong: such a connection is replaced.
            .before_acquire(|connection, _| {
                let clean = !connection.is_in_transaction();
                Box::pin(async move { Ok(clean) })
            })
            // The queue and the retries for the lock are ours, as SQLite's own waiting favours whoever had it last.
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
            turns: Turns::default(),
            is_locked: AtomicBool::new(false),
            lock_timeout: bounded(settings.lock_timeout),
            outbox: OnceLock::new(),
            horizon: Horizon::default(),
        }
    }

    async fn prepare(&self, settings: &SqliteSettings) -> Result<(), InboxError> {
        let mut held = self.write("open").await?;
        store::prepare(&mut held.transaction, settings)
            .await
            .map_err(|problem| problem.on(&self.path, "prepare"))?;
        held.commit()
            .await
            .map_err(|error| self.failed("prepare", error))
    }

    /// Waits for this process's turn, then for the file's write lock.
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
                Err(error) if error::is_busy(&error) && Instant::now() < deadline => {
                    tokio::time::sleep(LOCK_RETRY).await;
                }
                Err(error) => {
                    let is_locked = error::is_busy(&error);
                    self.is_locked.store(is_locked, Ordering::Relaxed);
                    return Err(self.failed(doing, error));
                }
            }
        }
    }

    fn failed(&self, doing: &'static str, error: sqlx::Error) -> InboxError {
        error::failed(&self.path, doing, error)
    }

    /// The same, where the transaction may have been ended by hand.
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

    fn forgotten_before_ms(&self) -> Option<i64> {
        self.store().horizon.before_ms()
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

    fn to_handler(lent: Lent<Held>) -> Box<dyn Any + Send> {
        Box::new(SqliteTx::new(lent))
    }

    async fn look(&self, key: &InboxKey) -> Result<Known, InboxError> {
        let failed = |error| self.failed("look", error);
        let mut reader = self.readers.acquire().await.map_err(failed)?;
        let known = store::known(&mut reader, key).await;
        known.map(|row| Known::of(key, row)).map_err(failed)
    }

    async fn begin(&self, keys: &[InboxKey], _: Level) -> Result<(Held, Vec<Known>), InboxError> {
        let mut held = self.write("claim").await?;
        let failed = |error| self.failed("claim", error);
        let known = store::claim(&mut held.transaction, keys, now_ms()).await;
        let known = known.map_err(failed)?;
        if self.horizon.is_due() {
            let purged_before = store::purged_before(&mut held.transaction).await;
            self.horizon
                .reach(purged_before.map_err(failed)?.as_deref());
        }
        Ok((held, Known::of_all(keys, known)))
    }

    async fn mark(&self, held: &mut Held) -> Result<(), InboxError> {
        let marked = store::mark(&mut held.transaction).await;
        marked.map_err(|error| self.ended("complete", error))
    }

    async fn keep(
        &self,
        held: &mut Held,
        key: &InboxKey,
        published: Vec<OutgoingRecord>,
    ) -> Result<Vec<OutgoingRecord>, InboxError> {
        if published.is_empty() {
            return Ok(published);
        }
        if self.outbox.get().is_some() {
            let is_open = store::is_open(&mut held.transaction).await;
            if !is_open.map_err(|error| self.failed("publish", error))? {
                return Err(error::ended_by_hand("its claim is gone"));
            }
            let appended = outbox::append_in_sqlite(&mut held.transaction, &published).await;
            appended.map_err(|error| error.into_inbox(|error| self.failed("publish", error)))?;
            held.has_published = true;
            return Ok(Vec::new());
        }
        let replies = replies::encode(&published);
        let kept = store::keep(&mut held.transaction, key, &replies).await;
        kept.map_err(|error| self.failed("complete", error))?;
        Ok(published)
    }

    async fn undo(&self, held: &mut Held, key: &InboxKey) -> Result<(), InboxError> {
        let undone = store::undo(&mut held.transaction, key).await;
        undone.map_err(|error| self.ended("abandon", error))
    }

    async fn forget(&self, held: &mut Held, keys: &[InboxKey]) -> Result<(), InboxError> {
        let forgotten = store::forget(&mut held.transaction, keys).await;
        forgotten.map_err(|error| self.ended("complete", error))
    }

    async fn close(&self, held: &mut Held) -> Result<(), InboxError> {
        let closed = store::close(&mut held.transaction).await;
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

    /// Who has the write lock needs nothing else.
    async fn check(&self) -> Result<(), InboxError> {
        Ok(())
    }

    fn is_silent(&self) -> bool {
        self.is_locked.load(Ordering::Relaxed)
    }

    async fn roll_back(&self, held: Held) -> Result<(), InboxError> {
        let rolled_back = held.roll_back().await;
        rolled_back.map_err(|error| self.failed("abandon", error))
    }

    /// There is one writer at a time, which nobody can be in the way of.
    fn cause(_: Option<&Held>, _: &(dyn Error + 'static)) -> Option<Cause> {
        None
    }
}

/// The wall clock, as rows are kept for days and compared across processes.
fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}

/// A write transaction of the store.
type WriteTransaction = Transaction<'static, Sqlite>;
