//! An inbox in PostgreSQL, shared by the instances of a service wherever they run.
//!
//! Owns the connections. Knows nothing of Kafka. Several transactions are open at a time, each for a group of deliveries; that
//! a delivery is in one of them only, also towards other processes, is the unique key's to decide.

mod completions;
mod error;
mod settings;
mod store;
mod transaction;

#[cfg(test)]
mod shared_rows;
#[cfg(test)]
mod tests;

pub use settings::{Migration, PostgresSettings};
pub use transaction::PostgresTx;

use super::address::StoreAddress;
use super::group::{Cause, GroupStore, Groups, Known, Lent, Level};
use super::horizon::Horizon;
use super::{BatchInbox, BoxFuture, Claimed, ClaimedBatch, Inbox, InboxError, InboxKey, replies};
use crate::durations::CALL_MAX;
use crate::event::OutgoingRecord;
use crate::outbox::{self, PostgresOutbox};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool, Postgres, Transaction};
use std::any::{Any, TypeId};
use std::error::Error;
use std::io::ErrorKind;
use std::pin::pin;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use store::Locking;
use tokio::sync::Mutex;
use tokio::time::Instant;
use transaction::Open;

/// An inbox in a PostgreSQL database. Cheap to clone; clones share the connections.
///
/// Deliveries that are ready together share a transaction, each under a savepoint of its own. The effect that a handler writes
/// through [`PostgresTx`] commits with the inbox row or not at all. Several services may share a database: deliveries are known
/// by their group.
#[derive(Clone)]
pub struct PostgresInbox {
    groups: Arc<Groups<Store>>,
}

/// Which version of its tables an inbox has, and which this release makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboxVersions {
    /// The version in the store; 0 where there is no inbox yet.
    pub stored: u32,
    /// The newest that this release knows.
    pub newest: u32,
}

/// How long an answer of the server is waited for at least; it may itself wait for a lock.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How long an answer is waited for before the server is asked on a fresh connection whether it answers at all, and how long that
/// may take: one that stands still is found out sooner than by the wait for a lock.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long that answer holds.
const CHECKED_FOR: Duration = Duration::from_secs(1);

/// How many connections serve other than claims.
const OTHERS_MAX: u32 = 2;

/// How long handlers of a group wait for a lock beside other groups. Those are to commit within little more; who waits for longer
/// is likely to be waited for as well, which PostgreSQL would find out after a second only (`deadlock_timeout`).
const HASTE: Duration = Duration::from_millis(30);

/// How often a lock is tried that cannot be waited for.
const LOCK_INTERVAL: Duration = Duration::from_millis(5);

struct Store {
    pool: PgPool,
    options: PgConnectOptions,
    /// When the server was last asked whether it answers, and what came of it.
    checked: Mutex<Option<(Instant, bool)>>,
    /// Whether it answered nothing when it was last needed.
    is_silent: AtomicBool,
    /// Host, port and database, without user and password.
    name: String,
    /// How long an answer is waited for.
    answer_limit: Duration,
    /// How long a lock is waited for, as PostgreSQL reads it.
    lock_timeout: String,
    /// The same for handlers of groups that run side by side.
    hasty_timeout: String,
    /// Whether transactions see what others have committed since they began.
    sees_commits: AtomicBool,
    outbox: OnceLock<PostgresOutbox>,
    horizon: Horizon,
}

impl PostgresInbox {
    /// Opens the store at `url` (`postgres://user:password@host:port/database`) with the default settings; creates or upgrades
    /// its tables. `schema` is the service's own DDL (`CREATE TABLE IF NOT EXISTS …`), run in the same transaction.
    ///
    /// # Errors
    /// See [`PostgresInbox::open_with`].
    pub async fn open(url: &str, schema: &str) -> Result<Self, InboxError> {
        Self::open_with(url, &PostgresSettings::new(schema)).await
    }

    /// Opens the store at `url` as `settings` say. Several processes may open it at once.
    ///
    /// # Errors
    /// [`InboxError::Foreign`] for a store of a newer version, or one that has yet to be brought up to date by somebody else;
    /// [`InboxError::NotWritable`] where the server refuses the user, or the user may not create tables;
    /// [`InboxError::Unavailable`] where the server cannot be reached; [`InboxError::Other`] where the URL cannot be read.
    pub async fn open_with(url: &str, settings: &PostgresSettings) -> Result<Self, InboxError> {
        // Its error names what is wrong and repeats no part of the URL.
        let options = PgConnectOptions::from_str(url)
            .map_err(|error| error::failed("the URL of the store", "open", error))?;
        let store = Store::connect(options, settings);
        store.prepare(settings).await?;
        Ok(Self {
            groups: Groups::new(store, settings.connections, settings.group_max),
        })
    }

    /// The versions of the inbox in the database at `address`; changes nothing. None for the address of another kind of store,
    /// whose inbox belongs to one service and is brought up to date by it alone.
    ///
    /// # Errors
    /// Where the server cannot be reached, or refuses; [`InboxError::Foreign`] for a version that no release writes;
    /// [`InboxError::Setting`] for an address of no store.
    pub async fn versions(address: &str) -> Result<Option<InboxVersions>, InboxError> {
        let StoreAddress::Postgres(url) = StoreAddress::of(address).map_err(InboxError::Setting)?
        else {
            return Ok(None);
        };
        let options = PgConnectOptions::from_str(url)
            .map_err(|error| error::failed("the URL of the store", "open", error))?;
        let store = Store::connect(options, &PostgresSettings::new("").with_connections(1));
        let failed = |error| store.failed("look at", error);
        let mut connection = store.pool.acquire().await.map_err(failed)?;
        let stored = store::version(&mut connection).await.map_err(failed)?;
        let stored = match stored.as_deref().map(str::parse) {
            None => 0,
            Some(Ok(version)) => version,
            Some(Err(_)) => {
                return Err(InboxError::Foreign {
                    path: store.name.clone(),
                    reason: "is of a version that no release of evenkeel writes".to_owned(),
                });
            }
        };
        Ok(Some(InboxVersions {
            stored,
            newest: store::VERSION,
        }))
    }

    /// The same, where what handlers publish through their context is written to this outbox of the same database, with the
    /// inbox row and the effect: a [`Relay`](crate::outbox::Relay) has to take it to Kafka. Without an outbox it is kept beside
    /// the row and published after the commit, by whoever handles the event.
    ///
    /// # Errors
    /// [`InboxError::Foreign`] for the outbox of another database, or a second one.
    pub fn with_outbox(self, outbox: PostgresOutbox) -> Result<Self, InboxError> {
        let store = self.store();
        let foreign = |reason: &str| InboxError::Foreign {
            path: store.name.clone(),
            reason: reason.to_owned(),
        };
        if store.name != name(&outbox.pool().connect_options()) {
            return Err(foreign(
                "is not the database of the outbox: open both on one",
            ));
        }
        let set = store.outbox.set(outbox);
        set.map_err(|_| foreign("has an outbox already"))?;
        Ok(self)
    }

    /// The connections, for reading and for writing outside of deliveries. Two are left to that while claims use theirs.
    pub fn pool(&self) -> &PgPool {
        &self.store().pool
    }

    /// Forgets deliveries that were completed longer than `older_than` ago, `batch` rows to a transaction. Returns how many
    /// rows went.
    ///
    /// Keep rows for longer than a record can come back: for the retention of the topics, and the time in which dead letters
    /// are replayed besides (their topics keep them for good, unless made otherwise). A replay of an event whose row is gone
    /// has its effect a second time; the store remembers up to when it forgot, so that such an event is counted and logged.
    ///
    /// # Errors
    /// As for a claim; the batches before stay deleted.
    pub async fn purge(&self, older_than: Duration, batch: u32) -> Result<u64, InboxError> {
        let batch = batch.max(1);
        let store = self.store();
        let failed = |error| store.failed("purge", error);
        let mut purged = 0;
        loop {
            let purge = async {
                let mut connection = store.pool.acquire().await.map_err(failed)?;
                let gone = store::purge(&mut connection, older_than, batch).await;
                gone.map_err(failed)
            };
            let (gone, purged_before) = store.within("purge", purge).await?;
            store.horizon.reach(purged_before.as_deref());
            purged += gone;
            if gone < u64::from(batch) {
                return Ok(purged);
            }
        }
    }

    /// Closes all connections; claims that run finish first.
    pub async fn close(&self) {
        self.store().pool.close().await;
    }

    fn store(&self) -> &Store {
        self.groups.store()
    }
}

impl Store {
    fn connect(options: PgConnectOptions, settings: &PostgresSettings) -> Self {
        let name = name(&options);
        // PostgreSQL counts it in milliseconds of 31 bits, as librdkafka does.
        let timeout = settings.lock_timeout.min(CALL_MAX);
        let pool = PgPoolOptions::new()
            .max_connections(settings.connections.max(1) + OTHERS_MAX)
            .acquire_timeout(timeout)
            // A broken one is noticed when it is used, and that delivery is tried again.
            .test_before_acquire(false)
            .after_release(|connection, _| Box::pin(is_usable(connection)))
            .connect_lazy_with(options.clone());
        Self {
            pool,
            options,
            checked: Mutex::default(),
            is_silent: AtomicBool::new(false),
            name,
            answer_limit: ANSWER_LIMIT.max(2 * timeout),
            lock_timeout: milliseconds(timeout),
            hasty_timeout: milliseconds(timeout.min(HASTE)),
            sees_commits: AtomicBool::new(true),
            outbox: OnceLock::new(),
            horizon: Horizon::default(),
        }
    }

    async fn prepare(&self, settings: &PostgresSettings) -> Result<(), InboxError> {
        let failed = |error| self.failed("open", error);
        let mut transaction = self.pool.begin().await.map_err(failed)?;
        let prepared = store::prepare(&mut transaction, settings).await;
        prepared.map_err(|problem| match problem {
            store::Problem::Foreign(reason) => InboxError::Foreign {
                path: self.name.clone(),
                reason,
            },
            store::Problem::Postgres(error) => self.failed("prepare", error),
        })?;
        let sees_commits = store::sees_commits(&mut transaction).await;
        self.sees_commits
            .store(sees_commits.map_err(failed)?, Ordering::Relaxed);
        transaction.commit().await.map_err(failed)
    }

    /// Gives `work` up when the server says nothing: after a while, or as soon as it answers nobody else either. What it had is not used again: a connection on which nothing comes back
    /// would be waited for until the system gives it up, in a quarter of an hour or never.
    async fn within<T>(
        &self,
        doing: &'static str,
        work: impl Future<Output = Result<T, InboxError>>,
    ) -> Result<T, InboxError> {
        let mut work = pin!(work);
        let began = Instant::now();
        let until = async {
            while began.elapsed() < self.answer_limit {
                tokio::time::sleep(PATIENCE.min(self.answer_limit)).await;
                if !self.answers().await {
                    self.is_silent.store(true, Ordering::Relaxed);
                    break;
                }
            }
        };
        tokio::select! {
            biased;
            done = work.as_mut() => {
                if done.is_ok() {
                    self.is_silent.store(false, Ordering::Relaxed);
                }
                done
            }
            () = until => Err(error::silent(&self.name, doing, began.elapsed())),
        }
    }

    /// Whether the server answers anybody: a refusal is an answer. One asks for all.
    async fn answers(&self) -> bool {
        let mut checked = self.checked.lock().await;
        if let Some((at, answered)) = *checked
            && at.elapsed() < CHECKED_FOR
        {
            return answered;
        }
        let connected = tokio::time::timeout(PATIENCE, PgConnection::connect_with(&self.options));
        let answered = match connected.await {
            Ok(Ok(connection)) => {
                // It has said all that was asked.
                drop(connection);
                true
            }
            Ok(Err(error)) => error.as_database_error().is_some(),
            Err(_) => false,
        };
        *checked = Some((Instant::now(), answered));
        answered
    }

    /// Begins a transaction. One that sees nothing that is committed after its first statement must not wait for the group's lock,
    /// or it would collide with what it had waited for: it begins anew until the lock is free.
    async fn begun(
        &self,
        keys: &[InboxKey],
        is_exclusive: bool,
    ) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        loop {
            let mut transaction = store::begin(&self.pool).await?;
            if self.sees_commits.load(Ordering::Relaxed)
                || store::try_lock(&mut transaction, keys, is_exclusive).await?
            {
                return Ok(transaction);
            }
            transaction.rollback().await?;
            tokio::time::sleep(LOCK_INTERVAL).await;
        }
    }

    /// Writes what was published to the outbox, at the end of a transaction: nothing is waited for after the locks of its keys
    /// but the commit, so that two groups that publish on the same keys cannot wait for each other.
    async fn append(&self, open: &mut Open) -> Result<(), InboxError> {
        if open.staged.is_empty() {
            return Ok(());
        }
        let is_open = store::is_open(&mut open.transaction, &self.lock_timeout).await;
        if !is_open.map_err(|error| self.ended("publish", error))? {
            return Err(error::ended_by_hand("its claim is gone"));
        }
        let appended = outbox::append_in_postgres(&mut open.transaction, &open.staged).await;
        appended.map_err(|error| error.into_inbox(|error| self.ended("publish", error)))
    }

    fn failed(&self, doing: &'static str, error: sqlx::Error) -> InboxError {
        error::failed(&self.name, doing, error)
    }

    /// The same, where the transaction may have been ended by hand.
    fn ended(&self, doing: &'static str, error: sqlx::Error) -> InboxError {
        error::misuse(&error).unwrap_or_else(|| self.failed(doing, error))
    }
}

/// Whether a connection that is given back can be used again: it answers, and no transaction is open on it. A `BEGIN` whose
/// answer nobody waited for leaves one that the driver does not know, and in it everything that comes later would fail. The pool
/// would ask for an answer as well, and wait for ever.
async fn is_usable(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    // Equal but in a transaction that an earlier statement began.
    let is_free = sqlx::query_scalar("SELECT now() = statement_timestamp()").fetch_one(connection);
    match tokio::time::timeout(ANSWER_LIMIT, is_free).await {
        Ok(answered) => answered,
        Err(_) => Err(sqlx::Error::Io(ErrorKind::TimedOut.into())),
    }
}

fn milliseconds(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

/// A database, without user and password.
fn name(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or(options.get_username());
    format!("{}:{}/{database}", options.get_host(), options.get_port())
}

impl Inbox for PostgresInbox {
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
        Some(TypeId::of::<PostgresTx>())
    }

    fn batches(&self) -> Option<&dyn BatchInbox> {
        Some(self)
    }

    fn forgotten_before_ms(&self) -> Option<i64> {
        self.store().horizon.before_ms()
    }
}

impl BatchInbox for PostgresInbox {
    fn claim_batch<'a>(
        &'a self,
        keys: &'a [InboxKey],
    ) -> BoxFuture<'a, Result<ClaimedBatch, InboxError>> {
        Box::pin(self.groups.claim_batch(keys))
    }
}

impl GroupStore for Store {
    type Open = Open;

    fn to_handler(lent: Lent<Open>) -> Box<dyn Any + Send> {
        Box::new(PostgresTx::new(lent))
    }

    async fn look(&self, key: &InboxKey) -> Result<Known, InboxError> {
        let work = async {
            let failed = |error| self.failed("look", error);
            let mut connection = self.pool.acquire().await.map_err(failed)?;
            let known = store::known(&mut connection, key).await;
            known.map(|row| Known::of(key, row)).map_err(failed)
        };
        self.within("look", work).await
    }

    async fn begin(
        &self,
        keys: &[InboxKey],
        level: Level,
    ) -> Result<(Open, Vec<Known>), InboxError> {
        let work = async {
            let failed = |error| self.failed("claim", error);
            let locking = Locking {
                is_exclusive: level > Level::Parallel,
                timeout: &self.lock_timeout,
            };
            let begun = self.begun(keys, locking.is_exclusive).await;
            let mut transaction = begun.map_err(failed)?;
            let claimed = store::claim(&mut transaction, keys, locking).await;
            let known = claimed.map_err(failed)?;
            let is_single = known.iter().filter(|row| row.is_none()).count() == 1;
            // One delivery alone holds nothing while it waits for its first row.
            let is_hasty = !is_single && !locking.is_exclusive;
            if !is_single {
                let timeout = is_hasty.then_some(self.hasty_timeout.as_str());
                let marked = store::mark_first(&mut transaction, timeout).await;
                marked.map_err(failed)?;
            }
            if self.horizon.is_due() {
                let purged_before = store::purged_before(&mut transaction).await;
                self.horizon
                    .reach(purged_before.map_err(failed)?.as_deref());
            }
            let open = Open {
                transaction,
                is_single,
                is_hasty,
                staged: Vec::new(),
                staged_before: 0,
            };
            Ok((open, Known::of_all(keys, known)))
        };
        self.within("claim", work).await
    }

    async fn mark(&self, open: &mut Open) -> Result<(), InboxError> {
        let work = async {
            let marked = store::mark(&mut open.transaction).await;
            marked.map_err(|error| self.ended("complete", error))?;
            open.staged_before = open.staged.len();
            Ok(())
        };
        self.within("complete", work).await
    }

    async fn keep(
        &self,
        open: &mut Open,
        key: &InboxKey,
        published: Vec<OutgoingRecord>,
    ) -> Result<Vec<OutgoingRecord>, InboxError> {
        let work = async {
            if published.is_empty() {
                return Ok(published);
            }
            if self.outbox.get().is_some() {
                open.staged.extend(published);
                return Ok(Vec::new());
            }
            let replies = replies::encode(&published);
            let kept = store::keep(&mut open.transaction, key, &replies).await;
            kept.map_err(|error| self.ended("complete", error))?;
            Ok(published)
        };
        self.within("publish", work).await
    }

    async fn undo(&self, open: &mut Open, key: &InboxKey) -> Result<(), InboxError> {
        open.staged.truncate(open.staged_before);
        let work = async {
            if open.is_single {
                // Nothing else is in it: it is rolled back as a whole.
                return Ok(());
            }
            let undone = store::undo(&mut open.transaction, key).await;
            undone.map_err(|error| self.ended("abandon", error))
        };
        self.within("abandon", work).await
    }

    async fn forget(&self, open: &mut Open, keys: &[InboxKey]) -> Result<(), InboxError> {
        let work = async {
            let forgotten = store::forget(&mut open.transaction, keys).await;
            forgotten.map_err(|error| self.ended("complete", error))
        };
        self.within("complete", work).await
    }

    async fn close(&self, open: &mut Open) -> Result<(), InboxError> {
        let work = async {
            self.append(open).await?;
            let closed = store::close(&mut open.transaction).await;
            closed.map_err(|error| self.ended("complete", error))
        };
        self.within("complete", work).await
    }

    async fn commit(&self, open: Open) -> Result<(), InboxError> {
        let work = async {
            let committed = open.transaction.commit().await;
            committed.map_err(|error| self.failed("complete", error))?;
            if let Some(outbox) = self.outbox.get().filter(|_| !open.staged.is_empty()) {
                outbox.wake();
            }
            Ok(())
        };
        self.within("complete", work).await
    }

    async fn check(&self) -> Result<(), InboxError> {
        match self.answers().await {
            true => Ok(()),
            false => {
                self.is_silent.store(true, Ordering::Relaxed);
                Err(error::silent(
                    &self.name,
                    "a statement of a handler",
                    PATIENCE,
                ))
            }
        }
    }

    fn is_silent(&self) -> bool {
        self.is_silent.load(Ordering::Relaxed)
    }

    async fn roll_back(&self, open: Open) -> Result<(), InboxError> {
        let work = async {
            let rolled_back = open.transaction.rollback().await;
            rolled_back.map_err(|error| self.failed("abandon", error))
        };
        self.within("abandon", work).await
    }

    fn cause(open: Option<&Open>, error: &(dyn Error + 'static)) -> Option<Cause> {
        error::cause(error, open.is_some_and(|open| open.is_hasty))
    }
}
