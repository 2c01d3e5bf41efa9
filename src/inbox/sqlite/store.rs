//! The connections to the file, and the transactions of groups on them.
//!
//! Owns two pools. The writer's has one connection, which also keeps the queue of writers fair; the
//! readers' connections refuse to write (`query_only`). The driver runs each SQLite connection on a
//! thread of its own, so no statement blocks a task of the runtime.
//!
//! A transaction that is dropped queues its rollback on the connection at once, before the next one
//! can begin there: cancellation at any await leaves the file as it was.

use super::commit_guard::CommitGuard;
use super::settings::{Durability, SqliteSettings};
use super::transaction::{Held, SqliteTx};
use super::write_lock_queue::WriteLockQueue;
use super::{error, statements, tables};
use crate::durations::{CALL_MAX, bounded};
use crate::event::OutgoingRecord;
use crate::inbox::group_commit::{Cause, GroupStore, HandedOut, Known, Level, of_outbox};
use crate::inbox::shared::purge_watermark::PurgeWatermark;
use crate::inbox::shared::sent_replies::Sent;
use crate::inbox::{InboxError, InboxKey};
use crate::outbox::{self, SqliteOutbox};
use crate::sqlite::{SqliteFileWatch, for_writing, is_busy};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, SqlitePool};
use std::any::Any;
use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Takes the write lock at once: a transaction that began with a read could not be promoted once
/// another process had written.
const BEGIN: &str = "BEGIN IMMEDIATE";

/// Pause between two tries to get the write lock from another process.
const LOCK_RETRY: Duration = Duration::from_millis(2);

/// Statements that may wait for the writing connection's thread: far more than a handler sends
/// without waiting for their answers. A savepoint that found the queue full would not be sent at
/// all, and a rollback would block its caller.
const STATEMENTS_MAX: usize = 1 << 20;

/// Connections that read at the same time.
const READERS_MAX: u32 = 4;

pub(super) struct Store {
    /// The path, for messages.
    pub(super) path: String,
    /// One connection: SQLite has one writer at a time, and the pool's queue is fair, while
    /// SQLite's lock is not.
    pub(super) writer: SqlitePool,
    /// Connections that refuse to write. They see the last commit.
    pub(super) readers: SqlitePool,
    /// Whose turn it is to write, in this process.
    pub(super) write_queue: WriteLockQueue,
    /// The hooks of the writer's connection.
    commit_guard: CommitGuard,
    /// Whether the writer's file is still the one at the path.
    file_watch: Arc<SqliteFileWatch>,
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

impl Store {
    /// Sets up the pools without opening a connection. The foreign keys of the service's tables are
    /// checked.
    pub(super) fn connect(path: &Path, name: String, settings: &SqliteSettings) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(match settings.durability {
                Durability::ProcessCrash => SqliteSynchronous::Normal,
                Durability::PowerLoss => SqliteSynchronous::Full,
            });
        let commit_guard = CommitGuard::default();
        let watching = commit_guard.clone();
        let file_watch = Arc::new(SqliteFileWatch::new(path));
        let connected = Arc::clone(&file_watch);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .after_connect(move |connection, _| {
                connected.reconnected();
                Box::pin(watching.clone().watch(connection))
            })
            // If SQLite or the handler ends a transaction without the driver, the driver's count of
            // open transactions is wrong: such a connection is replaced.
            .before_acquire(|connection, _| {
                let clean = !connection.is_in_transaction();
                Box::pin(async move { Ok(clean) })
            })
            // The queue and the retries for the lock are in this crate, because SQLite's own
            // waiting favours the last owner.
            .connect_lazy_with(
                for_writing(options.clone())
                    .create_if_missing(true)
                    .command_buffer_size(STATEMENTS_MAX)
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
            write_queue: WriteLockQueue::default(),
            commit_guard,
            file_watch,
            is_locked: AtomicBool::new(false),
            lock_timeout: bounded(settings.lock_timeout),
            outbox: OnceLock::new(),
            purge_watermark: PurgeWatermark::default(),
            sent: Sent::default(),
        }
    }

    /// Creates or upgrades the tables and runs the service's DDL, in one transaction.
    pub(super) async fn migrate(&self, settings: &SqliteSettings) -> Result<(), InboxError> {
        let mut held = self.begin_write("open").await?;
        tables::migrate(&mut held.transaction, settings)
            .await
            .map_err(|problem| problem.on(&self.path, "prepare"))?;
        held.commit()
            .await
            .map_err(|error| self.failed("prepare", error))
    }

    /// Waits for the writer's turn within this process, then for the file's write lock, up to the
    /// lock timeout. The turn is part of the result, so that only one writer of a process at a time
    /// requests the lock.
    pub(super) async fn begin_write(&self, doing: &'static str) -> Result<Held, InboxError> {
        let turn = self.write_queue.next().await;
        let deadline = Instant::now() + self.lock_timeout;
        loop {
            match self.writer.begin_with(BEGIN).await {
                Ok(transaction) => {
                    self.is_locked.store(false, Ordering::Relaxed);
                    let held = Held::new(transaction, turn, &self.commit_guard);
                    if self.file_watch.is_in_place() {
                        return Ok(held);
                    }
                    held.roll_back()
                        .await
                        .map_err(|error| self.failed(doing, error))?;
                    return Err(error::not_in_place(&self.path, doing));
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

    pub(super) fn failed(&self, doing: &'static str, error: sqlx::Error) -> InboxError {
        error::failed(&self.path, doing, error)
    }

    /// Writes what the handlers published, or waits until all statements that were sent are
    /// executed.
    async fn write_staged(&self, held: &mut Held) -> Result<(), InboxError> {
        let Held {
            transaction,
            staged,
            ..
        } = held;
        if staged.is_empty() {
            let waited = transaction.ping().await;
            return waited.map_err(|error| self.failed("complete", error));
        }
        let appended = outbox::sqlite::append(transaction, staged.outgoing()).await;
        appended.map_err(|error| of_outbox(error, |error| self.failed("publish", error)))?;
        let stored = statements::store_replies(transaction, staged.replies()).await;
        stored.map_err(|error| self.failed("complete", error))
    }

    /// Maps an error of a transaction that a handler may have ended.
    fn ended(&self, doing: &'static str, error: sqlx::Error, is_shared: bool) -> InboxError {
        match error::is_end_of_transaction(&error) {
            true => error::ended_by_hand(error, is_shared),
            false => self.failed(doing, error),
        }
    }
}

impl GroupStore for Store {
    type Open = Held;

    fn to_handler(mut handed_out: HandedOut<Held>) -> Box<dyn Any + Send> {
        handed_out.begin_turn();
        Box::new(SqliteTx::new(handed_out))
    }

    async fn find(&self, key: &InboxKey) -> Result<Known, InboxError> {
        let failed = |error| self.failed("look up", error);
        let mut reader = self.readers.acquire().await.map_err(failed)?;
        let known = statements::find(&mut reader, key).await;
        known.map(|row| Known::of(key, row)).map_err(failed)
    }

    async fn begin(&self) -> Result<Held, InboxError> {
        self.begin_write("claim").await
    }

    async fn claim(
        &self,
        mut held: Held,
        keys: &[InboxKey],
        _: Level,
    ) -> Result<(Held, Vec<Known>), InboxError> {
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

    /// The savepoint of the next turn is sent when its handler takes the transaction.
    async fn keep_turn(&self, held: &mut Held) -> Result<(), InboxError> {
        match held.keep_turn() {
            true => Ok(()),
            false => Err(rolled_back(held)),
        }
    }

    fn stage(
        &self,
        held: &mut Held,
        key: &InboxKey,
        published: Vec<OutgoingRecord>,
    ) -> Vec<OutgoingRecord> {
        if self.outbox.get().is_some() {
            held.staged.add_outgoing(published);
            return Vec::new();
        }
        held.staged.add_replies(key, &published);
        published
    }

    async fn undo_turn(&self, held: &mut Held, key: &InboxKey) -> Result<(), InboxError> {
        let is_shared = held.is_shared();
        let savepoint = held.undo_turn();
        let undone = match savepoint {
            Some(savepoint) => statements::undo_turn(&mut held.transaction, savepoint, key).await,
            None => {
                let key = std::slice::from_ref(key);
                statements::release_claims(&mut held.transaction, key).await
            }
        };
        undone.map_err(|error| self.ended("abandon", error, is_shared))
    }

    async fn release_claims(&self, held: &mut Held, keys: &[InboxKey]) -> Result<(), InboxError> {
        let forgotten = statements::release_claims(&mut held.transaction, keys).await;
        forgotten.map_err(|error| self.ended("complete", error, held.is_shared()))
    }

    /// No handler has the transaction any more, so nothing can end it after this check. What is
    /// written here waits for all statements before it, as a ping does. After a rollback it is
    /// refused or undone with the transaction.
    async fn prepare(&self, held: &mut Held) -> Result<(), InboxError> {
        match self.write_staged(held).await {
            // SQLite may end the transaction of a statement that finds the disk full.
            Err(error @ InboxError::NotWritable(_)) => Err(error),
            _ if !held.is_intact() => Err(rolled_back(held)),
            written => written,
        }
    }

    async fn commit(&self, held: Held) -> Result<(), InboxError> {
        let has_outgoing = !held.staged.outgoing().is_empty();
        let committed = held.commit().await;
        committed.map_err(|error| self.failed("complete", error))?;
        if let Some(outbox) = self.outbox.get().filter(|_| has_outgoing) {
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
        let mut held = self.begin_write("forget replies").await?;
        let forgotten = statements::forget_replies(&mut held.transaction, keys).await;
        forgotten.map_err(failed)?;
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

/// The error of a transaction that is found to be rolled back.
fn rolled_back(held: &Held) -> InboxError {
    error::ended_by_hand("it was rolled back", held.is_shared())
}

/// The wall clock, because rows are kept for days and compared across processes.
pub(super) fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}
