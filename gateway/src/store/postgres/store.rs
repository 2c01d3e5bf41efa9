//! Opens the database, and runs the writers.
//!
//! Owns the transactions. The connections are those of the outbox, whose pool checks that a
//! returned connection has no open transaction.

use super::super::error::{AcceptError, StoreError};
use super::super::maintenance::{LastBacklog, Maintained, Measured, maintain, now_ms};
use super::super::plan::{Outcome, Plan, check_text};
use super::super::port::{AcceptRequest, AcceptStore, Accepted, Backlog, EventPlace};
use super::super::queue::{Group, Queue, Room};
use super::super::writer::{Failure, FailureKind, GroupStore, write_groups};
use super::failure::{failure, failure_of_commit, failure_of_outbox, timed_out};
use super::settings::PostgresStoreSettings;
use super::{statements, tables};
use evenkeel::inbox::BoxFuture;
use evenkeel::outbox::PostgresOutbox;
use sqlx::{PgConnection, Postgres, Transaction};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Its name in logs and metrics.
const NAME: &str = "postgres";

/// Begins a transaction. The rules of repetitions rely on this isolation level, also if the
/// database has another default. A lock that is not free in time fails one request instead of
/// holding up the writer. A gateway whose host vanished keeps its locks only until the server ends
/// the idle transaction: longer than [`ANSWER_LIMIT`], so that no living gateway is cut off.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; \
                                SET LOCAL lock_timeout = '3s'; \
                                SET LOCAL idle_in_transaction_session_timeout = '15s'";

/// The same behind a pooler: an earlier client of the server connection may have left prepared
/// statements with the names that the driver is about to use.
pub(super) const BEGIN_POOLED: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; DEALLOCATE ALL; \
                                       SET LOCAL lock_timeout = '3s'; \
                                       SET LOCAL idle_in_transaction_session_timeout = '15s'";

/// Bounds a transaction of a writer, and of a reader. Longer than the wait for a lock.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Look-ups at the same time: the connections of the writers are not theirs.
const FINDS_MAX: usize = 2;

/// Accepts events into PostgreSQL: events, `Idempotency-Key`s and answers are committed in one
/// transaction with the outbox. Any number of gateways may share a database. What a commit survives
/// is the server's `synchronous_commit`: leave it on.
///
/// A few writers each gather the requests that wait, up to 256 of them or 4 MiB, into one
/// transaction. A request whose key is being written by another gateway fails with
/// [`AcceptError::InProgress`]. A relay publishes the events: see [`PostgresStore::outbox`]. Memory
/// is bounded by [`StoreSettings`](super::super::StoreSettings).
///
/// A background task measures the backlog twice a second, and deletes identities that are older
/// than the retention. It ends when the store is dropped, and so do the writers, once their queues
/// are empty. The store must be opened in a tokio runtime.
///
/// # Examples
/// ```no_run
/// use evenkeel::outbox::Relay;
/// use evenkeel::publisher::Publisher;
/// use evenkeel_gateway::store::PostgresStore;
/// use tokio_util::sync::CancellationToken;
///
/// # async fn example(publisher: Publisher) -> Result<(), Box<dyn std::error::Error>> {
/// let store = PostgresStore::open("postgres://shop@localhost/shop").await?;
/// let relay = Relay::new(store.outbox(), publisher).run(CancellationToken::new());
/// tokio::spawn(relay);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PostgresStore {
    database: Arc<Database>,
    /// One for each writer.
    queues: Vec<Queue>,
    last: Arc<LastBacklog>,
    /// Turns of look-ups.
    finds: Semaphore,
    /// Ends the background task.
    _maintenance: DropGuard,
}

impl PostgresStore {
    /// Connects to the database at this URL, with the default settings. Creates or upgrades the
    /// tables of the outbox and of the gateway. Use `?pgbouncer=true` in the URL for a pooler that
    /// assigns server connections per transaction.
    ///
    /// # Errors
    /// [`StoreError`]; none contains the URL.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        Self::open_with(url, PostgresStoreSettings::default()).await
    }

    /// Connects like [`PostgresStore::open`], with these settings; a
    /// [`StoreSettings`](super::super::StoreSettings) is enough.
    ///
    /// # Errors
    /// As for [`PostgresStore::open`], and [`StoreError::NoTables`] for missing tables under
    /// [`Migration::Elsewhere`](evenkeel::postgres::Migration::Elsewhere).
    pub async fn open_with(
        url: &str,
        settings: impl Into<PostgresStoreSettings>,
    ) -> Result<Self, StoreError> {
        let settings: PostgresStoreSettings = settings.into();
        let outbox = PostgresOutbox::open_with(url, &settings.outbox()).await?;
        let is_pooled = settings.pgbouncer || names_pooler(url);
        let begin = if is_pooled { BEGIN_POOLED } else { BEGIN };
        let database = Arc::new(Database { outbox, begin });
        let failed = StoreError::during("prepare its tables");
        let mut transaction = database.begin().await.map_err(&failed)?;
        tables::prepare(&mut transaction, settings.migration).await?;
        transaction.commit().await.map_err(&failed)?;

        let last = Arc::new(LastBacklog::default());
        last.set(
            database
                .measure()
                .await
                .map_err(StoreError::during("measure its outbox"))?,
        );
        let room = Arc::new(Room::new(settings.store.queue_bytes_max));
        let queues = (0..settings.writers.max(1)).map(|_| {
            let (queue, waiting) = Queue::new(settings.store.queue_requests_max, Arc::clone(&room));
            tokio::spawn(write_groups(Arc::clone(&database), waiting));
            queue
        });
        let queues = queues.collect();
        let stop = CancellationToken::new();
        tokio::spawn(maintain(
            Arc::clone(&database),
            Arc::clone(&last),
            settings.store.identities_retention,
            stop.clone(),
        ));
        Ok(Self {
            database,
            queues,
            last,
            finds: Semaphore::new(FINDS_MAX),
            _maintenance: stop.drop_guard(),
        })
    }

    /// The outbox, for a [`Relay`](evenkeel::outbox::Relay). It is woken after each commit.
    pub fn outbox(&self) -> PostgresOutbox {
        self.database.outbox.clone()
    }

    /// The SQL that creates the gateway's tables, for teams that run migrations themselves. It may
    /// be run again. The outbox's tables have theirs:
    /// [`PostgresOutbox::migration_sql`](evenkeel::outbox::PostgresOutbox::migration_sql).
    ///
    /// ```
    /// use evenkeel_gateway::store::PostgresStore;
    ///
    /// assert!(PostgresStore::migration_sql().contains("gateway_requests"));
    /// ```
    pub fn migration_sql() -> &'static str {
        tables::TABLES
    }

    /// Closes the connections. Requests that come later fail with [`AcceptError::Unavailable`].
    /// Call it after the last request was answered, and after the relay has ended.
    pub async fn close(&self) {
        self.database.outbox.pool().close().await;
    }

    /// The queue of a caller's writer. Callers are told apart by the source of their events. One
    /// caller's requests are written one group after the other.
    fn queue_of(&self, request: &AcceptRequest) -> &Queue {
        let mut hasher = DefaultHasher::new();
        if let Some(event) = request.events.first() {
            event.source.hash(&mut hasher);
        }
        let writer = hasher.finish() % self.queues.len() as u64;
        &self.queues[writer as usize]
    }

    /// Deletes identities older than the retention at once, as the background task does.
    #[cfg(test)]
    pub(super) async fn purge_before(&self, before_ms: i64) {
        while self
            .database
            .purge(before_ms)
            .await
            .expect("old rows are deleted")
        {}
    }
}

impl AcceptStore for PostgresStore {
    fn accept(&self, request: AcceptRequest) -> BoxFuture<'_, Result<Accepted, AcceptError>> {
        Box::pin(async move {
            check_text(&request)?;
            self.queue_of(&request).submit(request).await
        })
    }

    fn find<'a>(
        &'a self,
        id: &'a str,
        source: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<EventPlace>, AcceptError>> {
        Box::pin(async move {
            // No id that was accepted contains it, and PostgreSQL refuses it.
            if id.contains('\0') || source.is_some_and(|source| source.contains('\0')) {
                return Ok(Vec::new());
            }
            let found = async {
                let turn = self.finds.acquire().await;
                let _turn = turn.map_err(|_| sqlx::Error::PoolClosed)?;
                let mut transaction = self.database.begin().await?;
                statements::find(&mut transaction, id, source).await
            };
            let found = match timeout(ANSWER_LIMIT, found).await {
                Ok(found) => found,
                Err(_) => Err(timed_out()),
            };
            found.map_err(|error| AcceptError::Unavailable {
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

/// Whether a URL has the parameter `pgbouncer=true`.
fn names_pooler(url: &str) -> bool {
    let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
    parameters
        .split('&')
        .any(|parameter| parameter == "pgbouncer=true")
}

/// The database and how its transactions begin.
#[derive(Debug)]
struct Database {
    outbox: PostgresOutbox,
    begin: &'static str,
}

/// What a transaction has written.
struct Written {
    /// The answer to each request, valid once the rows are committed.
    outcomes: Vec<Outcome>,
    has_rows: bool,
}

impl Database {
    /// Begins a transaction in a task of its own, which is never cancelled: a dropped `BEGIN` would
    /// leave a connection in a transaction that the driver does not know. Dropping the transaction
    /// rolls it back.
    async fn begin(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        let (pool, begin) = (self.outbox.pool().clone(), self.begin);
        let begun = tokio::spawn(async move { pool.begin_with(begin).await });
        begun.await.map_err(|_| sqlx::Error::WorkerCrashed)?
    }

    async fn write_group(
        &self,
        group: &mut Group,
        is_committing: &AtomicBool,
    ) -> Result<Vec<Outcome>, Failure> {
        let mut transaction = self.begin().await.map_err(failure)?;
        group.claim();
        if group.is_empty() {
            return Ok(Vec::new());
        }
        let written = Box::pin(self.write_rows(&mut transaction, group)).await;
        let written = match written {
            Ok(written) if written.has_rows => written,
            ended => {
                // The locks of the keys are free before the group, or its callers, try again. If
                // this fails, the connection is lost, and its locks with it.
                let _ = transaction.rollback().await;
                return ended.map(|written| written.outcomes);
            }
        };
        is_committing.store(true, Ordering::Relaxed);
        transaction.commit().await.map_err(failure_of_commit)?;
        self.outbox.wake();
        Ok(written.outcomes)
    }

    /// Writes the rows of a group, and does not commit them.
    async fn write_rows(
        &self,
        connection: &mut PgConnection,
        group: &Group,
    ) -> Result<Written, Failure> {
        let known = statements::known(connection, group)
            .await
            .map_err(failure)?;
        let plan = Plan::of(group.requests(), known);
        let has_rows = !plan.is_empty();
        if has_rows {
            let records = plan.records();
            let sequences = self
                .outbox
                .publish_records_numbered(connection, &records)
                .await;
            let sequences = sequences.map_err(failure_of_outbox)?;
            let inserted = statements::insert(connection, &plan, &sequences, now_ms()).await;
            if !inserted.map_err(failure)? {
                let reason = "another transaction accepted one of the events meanwhile";
                return Err(Failure::new(FailureKind::Collided, reason));
            }
        }
        let outcomes = plan.outcomes;
        Ok(Written { outcomes, has_rows })
    }
}

impl GroupStore for Database {
    const NAME: &'static str = NAME;

    async fn write(&self, group: &mut Group) -> Result<Vec<Outcome>, Failure> {
        let is_committing = AtomicBool::new(false);
        let writing = Box::pin(self.write_group(group, &is_committing));
        match timeout(ANSWER_LIMIT, writing).await {
            Ok(written) => written,
            Err(_) if is_committing.load(Ordering::Relaxed) => {
                Err(Failure::new(FailureKind::Unknown, timed_out()))
            }
            Err(_) => Err(Failure::new(FailureKind::Unavailable, timed_out())),
        }
    }
}

impl Maintained for Database {
    const NAME: &'static str = NAME;

    async fn measure(&self) -> Result<Measured, sqlx::Error> {
        let mut transaction = self.begin().await?;
        let measured = statements::measure(&mut transaction).await?;
        transaction.commit().await?;
        Ok(measured)
    }

    async fn purge(&self, before_ms: i64) -> Result<bool, sqlx::Error> {
        let mut transaction = self.begin().await?;
        let has_more = statements::purge(&mut transaction, before_ms).await?;
        transaction.commit().await?;
        Ok(has_more)
    }
}
