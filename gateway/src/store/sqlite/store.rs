//! Opens the file, and runs its writer.
//!
//! Owns the connections: one that writes, and some that refuse to write. The driver runs each on a
//! thread of its own, so no statement blocks a task of the runtime.

use super::super::error::{AcceptError, StoreError};
use super::super::maintenance::{LastBacklog, Maintained, Measured, maintain, now_ms};
use super::super::plan::{Outcome, Plan, check_text};
use super::super::port::{AcceptRequest, AcceptStore, Accepted, Backlog, EventPlace};
use super::super::queue::{Group, Queue, Room};
use super::super::settings::StoreSettings;
use super::super::writer::{Failure, FailureKind, GroupStore, write_groups};
use super::statements;
use super::write_lock::{REST, WriteRun};
use evenkeel::inbox::BoxFuture;
use evenkeel::outbox::{OutboxError, SqliteFileWatch, SqliteOutbox};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, Sqlite, SqlitePool, Transaction};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Its name in logs and metrics.
const NAME: &str = "sqlite";

/// Takes the write lock at once: a transaction that began with a read could not be promoted once
/// another process had written.
const BEGIN: &str = "BEGIN IMMEDIATE";

/// Pause between two tries to get the write lock.
const LOCK_RETRY: Duration = Duration::from_millis(2);

/// How long the write lock of another process is waited for.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a file is not written to any more.
const NOT_IN_PLACE: &str = "the file or FILE-wal was deleted, moved or replaced while it was open, \
                            and what is written to it would be lost; put it back, or start the \
                            gateway again with the file that it is to have";

/// How long a reader waits for a locked file, which happens only while it is recovered.
const READ_TIMEOUT: Duration = Duration::from_secs(3);

/// Connections that read at the same time.
const READERS_MAX: u32 = 4;

/// Accepts events into a SQLite file: events, `Idempotency-Key`s and answers are committed in one
/// transaction with the outbox, and survive a power failure (`synchronous=FULL`).
///
/// If the file (or its WAL) is deleted, moved or replaced while it is open, requests and look-ups
/// fail with [`AcceptError::Unavailable`] within a second: what was written to it would be lost at
/// the end of the process. Its relay still publishes what is in it.
///
/// Requests that wait are written together, up to 256 of them or 4 MiB, so that they share one wait
/// for the disk. A relay publishes the events: see [`SqliteStore::outbox`]. Memory is bounded by
/// [`StoreSettings`].
///
/// A background task measures the backlog twice a second, and deletes identities that are older
/// than the retention. It ends when the store is dropped, and so does the writer, once the queue is
/// empty. The store must be opened in a tokio runtime.
///
/// # Examples
/// ```no_run
/// use evenkeel::outbox::Relay;
/// use evenkeel::publisher::Publisher;
/// use evenkeel_gateway::store::SqliteStore;
/// use std::path::Path;
/// use std::sync::Arc;
/// use tokio_util::sync::CancellationToken;
///
/// # async fn example(publisher: Publisher) -> Result<(), Box<dyn std::error::Error>> {
/// let store = Arc::new(SqliteStore::open(Path::new("gateway.db")).await?);
/// let relay = Relay::new(store.outbox(), publisher).run(CancellationToken::new());
/// tokio::spawn(relay);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SqliteStore {
    file: Arc<SqliteFile>,
    queue: Queue,
    last: Arc<LastBacklog>,
    /// Ends the background task.
    _maintenance: DropGuard,
}

impl SqliteStore {
    /// Opens or creates the file, with the outbox's tables and the gateway's, and the default
    /// settings.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be opened or written, stays locked, or has an outbox of a
    /// newer version.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, &StoreSettings::default()).await
    }

    /// Opens the file like [`SqliteStore::open`], with these settings.
    ///
    /// # Errors
    /// As for [`SqliteStore::open`].
    pub async fn open_with(path: &Path, settings: &StoreSettings) -> Result<Self, StoreError> {
        let file = Arc::new(SqliteFile::open(path).await?);
        let last = Arc::new(LastBacklog::default());
        last.set(
            file.measure()
                .await
                .map_err(StoreError::during("measure its outbox"))?,
        );
        let room = Arc::new(Room::new(settings.queue_bytes_max));
        let (queue, waiting) = Queue::new(settings.queue_requests_max, room);
        tokio::spawn(write_groups(Arc::clone(&file), waiting));
        let stop = CancellationToken::new();
        tokio::spawn(maintain(
            Arc::clone(&file),
            Arc::clone(&last),
            settings.identities_retention,
            stop.clone(),
        ));
        Ok(Self {
            file,
            queue,
            last,
            _maintenance: stop.drop_guard(),
        })
    }

    /// The outbox, for a [`Relay`](evenkeel::outbox::Relay). It is woken after each commit.
    pub fn outbox(&self) -> SqliteOutbox {
        self.file.outbox.clone()
    }

    /// Closes the connections. Requests that come later fail with [`AcceptError::Unavailable`].
    /// Call it after the last request was answered, and after the relay has ended.
    pub async fn close(&self) {
        self.file.readers.close().await;
        self.file.writer.close().await;
    }

    /// Fails a commit as a full disk does: SQLite has rolled back, and the driver does not know.
    #[cfg(test)]
    pub(super) async fn fail_a_commit(&self) {
        let mut transaction = self.file.begin().await.expect("a transaction begins");
        let ended = sqlx::raw_sql("ROLLBACK").execute(&mut *transaction).await;
        ended.expect("the transaction ends");
        let committed = transaction.commit().await;
        committed.expect_err("no transaction is open");
    }

    /// Deletes identities older than the retention at once, as the background task does.
    #[cfg(test)]
    pub(super) async fn purge_before(&self, before_ms: i64) {
        while self
            .file
            .purge(before_ms)
            .await
            .expect("old rows are deleted")
        {}
    }
}

impl AcceptStore for SqliteStore {
    fn accept(&self, request: AcceptRequest) -> BoxFuture<'_, Result<Accepted, AcceptError>> {
        Box::pin(async move {
            check_text(&request)?;
            self.queue.submit(request).await
        })
    }

    fn find<'a>(
        &'a self,
        id: &'a str,
        source: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<EventPlace>, AcceptError>> {
        Box::pin(async move {
            let found = async {
                self.file.check_place()?;
                let mut reader = self.file.readers.acquire().await?;
                statements::find(&mut reader, id, source).await
            };
            found.await.map_err(|error| AcceptError::Unavailable {
                doing: "looking up the event",
                source: error.into(),
            })
        })
    }

    fn backlog(&self) -> Backlog {
        self.last.get()
    }

    fn keeps_identities(&self) -> bool {
        true
    }

    fn name(&self) -> &'static str {
        NAME
    }
}

/// The file and its connections.
#[derive(Debug)]
struct SqliteFile {
    /// One connection: SQLite has one writer at a time.
    writer: SqlitePool,
    /// Connections that refuse to write. They see the last commit.
    readers: SqlitePool,
    outbox: SqliteOutbox,
    /// Whether the writer's file is still the one at the path.
    watch: Arc<SqliteFileWatch>,
    run: Mutex<WriteRun>,
}

impl SqliteFile {
    async fn open(path: &Path) -> Result<Self, StoreError> {
        let outbox = SqliteOutbox::open(path).await?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let watch = Arc::new(SqliteFileWatch::new(path));
        let connected = Arc::clone(&watch);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .after_connect(move |_, _| {
                connected.reconnected();
                Box::pin(async { Ok(()) })
            })
            // A commit for which the disk has no room is rolled back by SQLite itself, and the
            // driver's count of open transactions is wrong then: such a connection is replaced.
            .before_acquire(|connection, _| {
                let is_clean = !connection.is_in_transaction();
                Box::pin(async move { Ok(is_clean) })
            })
            // SQLite's own waiting for the lock favours its last owner. Its log is written to the
            // file every 16 MiB, not every 4: most pages of one checkpoint are those of the last.
            .connect_lazy_with(
                options
                    .clone()
                    .busy_timeout(Duration::ZERO)
                    .pragma("wal_autocheckpoint", "4096"),
            );
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS_MAX)
            .test_before_acquire(false)
            .connect_lazy_with(options.busy_timeout(READ_TIMEOUT).pragma("query_only", "1"));
        let file = Self {
            writer,
            readers,
            outbox,
            watch,
            run: Mutex::default(),
        };
        let failed = StoreError::during("create its tables");
        let mut transaction = file.begin().await.map_err(&failed)?;
        statements::create_tables(&mut transaction)
            .await
            .map_err(&failed)?;
        transaction.commit().await.map_err(&failed)?;
        Ok(file)
    }

    /// Begins a transaction that has the write lock, on the file that is at the path. Waits for the
    /// lock for up to [`LOCK_TIMEOUT`].
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            match self.writer.begin_with(BEGIN).await {
                Err(error) if is_busy(&error) && Instant::now() < deadline => {
                    sleep(LOCK_RETRY).await;
                }
                Ok(transaction) => {
                    // Dropped, it is rolled back.
                    self.check_place()?;
                    return Ok(transaction);
                }
                failed => return failed,
            }
        }
    }

    /// Fails if the open file is not the one at its path any more.
    fn check_place(&self) -> Result<(), sqlx::Error> {
        if self.watch.is_in_place() {
            return Ok(());
        }
        let lost = std::io::Error::new(std::io::ErrorKind::NotFound, NOT_IN_PLACE);
        Err(sqlx::Error::Io(lost))
    }

    /// Rests if this process has held the lock for long.
    async fn leave_lock_to_others(&self) {
        let must_rest = self.run().must_rest(Instant::now());
        if must_rest {
            sleep(REST).await;
        }
    }

    /// Never locked over an await.
    fn run(&self) -> std::sync::MutexGuard<'_, WriteRun> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a group in a transaction that has the lock.
    async fn write_in(
        &self,
        mut transaction: Transaction<'static, Sqlite>,
        group: &mut Group,
    ) -> Result<Vec<Outcome>, Failure> {
        group.claim();
        if group.is_empty() {
            return Ok(Vec::new());
        }
        let group = &*group;
        let known = statements::known(&mut transaction, group)
            .await
            .map_err(failure)?;
        let plan = Plan::of(group.requests(), known);
        if plan.is_empty() {
            return Ok(plan.outcomes);
        }
        let records = plan.records();
        let sequences = self
            .outbox
            .publish_records_numbered(&mut transaction, &records)
            .await;
        let sequences = sequences.map_err(failure_of_outbox)?;
        let written = statements::insert(&mut transaction, &plan, &sequences, now_ms()).await;
        written.map_err(failure)?;
        let committed = transaction.commit().await;
        committed.map_err(|error| Failure::new(FailureKind::Unknown, error))?;
        self.outbox.wake();
        Ok(plan.outcomes)
    }
}

impl GroupStore for SqliteFile {
    const NAME: &'static str = NAME;

    async fn write(&self, group: &mut Group) -> Result<Vec<Outcome>, Failure> {
        self.leave_lock_to_others().await;
        let transaction = self.begin().await.map_err(failure)?;
        let began = Instant::now();
        let written = self.write_in(transaction, group).await;
        self.run().wrote(began, Instant::now());
        written
    }
}

impl Maintained for SqliteFile {
    const NAME: &'static str = NAME;

    async fn measure(&self) -> Result<Measured, sqlx::Error> {
        let mut reader = self.readers.acquire().await?;
        statements::measure(&mut reader).await
    }

    async fn purge(&self, before_ms: i64) -> Result<bool, sqlx::Error> {
        let mut transaction = self.begin().await?;
        let has_more = statements::purge(&mut transaction, before_ms).await?;
        transaction.commit().await?;
        Ok(has_more)
    }
}

/// SQLite's primary result codes (the low byte of an extended code).
mod code {
    pub(super) const BUSY: u32 = 5;
    pub(super) const LOCKED: u32 = 6;
    pub(super) const TOOBIG: u32 = 18;
    pub(super) const CONSTRAINT: u32 = 19;
    pub(super) const MISMATCH: u32 = 20;
}

fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let code: u32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

/// Whether another connection holds the lock.
fn is_busy(error: &sqlx::Error) -> bool {
    matches!(primary_code(error), Some(code::BUSY | code::LOCKED))
}

/// What an error before the commit means for a group.
fn failure(error: sqlx::Error) -> Failure {
    let kind = match primary_code(&error) {
        Some(code::TOOBIG | code::CONSTRAINT | code::MISMATCH) => FailureKind::Refused,
        _ => FailureKind::Unavailable,
    };
    Failure::new(kind, error)
}

fn failure_of_outbox(error: OutboxError) -> Failure {
    match error {
        OutboxError::Store { source, .. } => failure(source),
        other => Failure::new(FailureKind::Unavailable, other),
    }
}
