//! The store: its connections and its claims.
//!
//! A transaction that is dropped is rolled back before its connection is used again, so
//! cancellation at any await undoes the group. A returned connection of evenkeel's own pool is used
//! again only if it answers and no transaction is open on it.
//!
//! Every call of the server runs within a limit of time. The lock timeout is part of each
//! transaction (`lock_timeout` of PostgreSQL), so a wait for a lock ends on the server and leaves
//! the connection usable; the limit of the answer is the second line, for a server that does not
//! answer at all.

use super::error;
use super::settings::PostgresSettings;
use super::statements::{self, Locking};
use super::transaction::{Open, PostgresTx};
use crate::durations::CALL_MAX;
use crate::event::OutgoingRecord;
use crate::inbox::group_commit::{Cause, GroupStore, Groups, HandedOut, Known, Level, of_outbox};
use crate::inbox::shared::purge_watermark::PurgeWatermark;
use crate::inbox::shared::replies;
use crate::inbox::shared::sent_replies::{self, Sent};
use crate::inbox::{BatchInbox, BoxFuture, Claimed, ClaimedBatch, Inbox, InboxError, InboxKey};
use crate::outbox::{self, PostgresOutbox};
use crate::postgres::{Database, PoolSettings, url_in};
use crate::store_address;
use sqlx::postgres::PgConnectOptions;
use sqlx::{PgPool, Postgres, Transaction};
use std::any::{Any, TypeId};
use std::error::Error;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// An inbox in a PostgreSQL database. Cheap to clone; clones share the connections.
///
/// Deliveries that are ready together share a transaction, each under a savepoint of its own. The
/// effect that a handler writes through [`PostgresTx`] commits with the inbox row or not at all.
/// Several services may share a database, because deliveries are identified by their group.
///
/// `docs/src/service/postgresql.md` covers TLS, poolers, pools of the service and migrations.
///
/// # Examples
/// ```no_run
/// use evenkeel::event::Record;
/// use evenkeel::handler::{HandlerError, Router};
/// use evenkeel::inbox::{PostgresInbox, PostgresSettings, PostgresTx};
/// use evenkeel::sqlx;
///
/// async fn count(_: Record, mut tx: PostgresTx) -> Result<(), HandlerError> {
///     sqlx::query("INSERT INTO records DEFAULT VALUES").execute(&mut *tx).await?;
///     Ok(())
/// }
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let schema = "CREATE TABLE IF NOT EXISTS records (id BIGSERIAL PRIMARY KEY)";
/// let settings = PostgresSettings::new(schema);
/// let inbox = PostgresInbox::open_with("postgres://shop@localhost/shop", &settings).await?;
/// let router = Router::new().raw(count).with_inbox(inbox);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PostgresInbox {
    groups: Arc<Groups<Store>>,
}

/// The version of an inbox's tables, and the version that this release creates. Returned by
/// [`PostgresInbox::versions`]. The tables need an upgrade while `stored` is below `newest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct InboxVersions {
    /// The version in the store; 0 if there is no inbox yet.
    pub stored: u32,
    /// The newest version that this release supports.
    pub newest: u32,
}

impl std::fmt::Debug for PostgresInbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresInbox")
            .field("database", &self.store().name)
            .finish_non_exhaustive()
    }
}

/// Minimum time to wait for an answer of the server, which may itself wait for a lock.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How long to wait for an answer before a fresh connection checks whether the server answers at
/// all, and the time limit of that check. A server that hangs is detected sooner than by waiting
/// for a lock.
const CHECK_AFTER: Duration = Duration::from_secs(2);

/// How long the result of that check is valid.
const CHECK_VALID_FOR: Duration = Duration::from_secs(1);

/// Connections for work other than claims.
const OTHERS_MAX: u32 = 2;

/// How long handlers of a group wait for a lock beside other groups. Those groups commit within
/// little more. A transaction that waits longer probably blocks the one it waits for, which
/// PostgreSQL would detect only after a second (`deadlock_timeout`).
const SHORT_LOCK_TIMEOUT: Duration = Duration::from_millis(30);

/// How often to try a lock that must not be waited for.
const LOCK_INTERVAL: Duration = Duration::from_millis(5);

/// The connections, and the known state of the server.
pub(super) struct Store {
    pub(super) database: Database,
    /// The time and result of the last check whether the server answers.
    pub(super) checked: Mutex<Option<(Instant, bool)>>,
    /// Whether the server failed to answer when it was last used.
    pub(super) is_silent: AtomicBool,
    /// Host, port and database, without user and password.
    pub(super) name: String,
    /// How long to wait for an answer.
    pub(super) answer_limit: Duration,
    /// How long to wait for a lock, in PostgreSQL's format.
    pub(super) lock_timeout: String,
    /// The same for handlers of concurrent groups.
    pub(super) hasty_timeout: String,
    /// Whether transactions see data that others committed since they began.
    pub(super) sees_commits: AtomicBool,
    pub(super) outbox: OnceLock<PostgresOutbox>,
    pub(super) purge_watermark: PurgeWatermark,
    pub(super) sent: Sent,
}

impl PostgresInbox {
    /// Opens the store at `url` (`postgres://user:password@host:port/database`) with the default
    /// settings. Creates or upgrades its tables. `schema` is the service's own DDL (`CREATE TABLE
    /// IF NOT EXISTS …`), executed in the same transaction.
    ///
    /// # Errors
    /// See [`PostgresInbox::open_with`].
    pub async fn open(url: &str, schema: &str) -> Result<Self, InboxError> {
        Self::open_with(url, &PostgresSettings::new(schema)).await
    }

    /// Opens the store at `url` with these settings. Several processes may open it at the same
    /// time. Use `?pgbouncer=true` in the URL for a pooler that assigns server connections per
    /// transaction.
    ///
    /// # Errors
    /// [`InboxError::Foreign`] for a store of a newer version, or for an older one under
    /// [`Migration::Elsewhere`](crate::postgres::Migration::Elsewhere); [`InboxError::NotWritable`]
    /// if the server refuses the user, or the user may not create tables;
    /// [`InboxError::Unavailable`] if the server cannot be reached; [`InboxError::Other`] if the
    /// URL cannot be parsed.
    pub async fn open_with(url: &str, settings: &PostgresSettings) -> Result<Self, InboxError> {
        let database = Database::at(url, pool_settings(settings)).map_err(unreadable)?;
        Self::prepared(database, settings).await
    }

    /// Opens the store with the driver's connect options, for options that a URL cannot express.
    /// Sets `statement_cache_capacity` behind a pooler.
    ///
    /// # Errors
    /// The errors of [`PostgresInbox::open_with`].
    pub async fn connect(
        options: PgConnectOptions,
        settings: &PostgresSettings,
    ) -> Result<Self, InboxError> {
        let database = Database::connect(options, &pool_settings(settings));
        Self::prepared(database, settings).await
    }

    /// Opens the store on a pool of the service, for example one whose connect options are renewed
    /// with an expiring token (`PgPool::set_connect_options`). `connections` of the settings should
    /// be smaller than the pool: other work on the pool waits for the claims. Behind a pooler that
    /// assigns server connections per transaction, the pool's options need
    /// `statement_cache_capacity(0)`.
    ///
    /// # Errors
    /// The errors of [`PostgresInbox::open_with`].
    ///
    /// # Examples
    /// ```no_run
    /// use evenkeel::inbox::{PostgresInbox, PostgresSettings};
    /// use evenkeel::sqlx::postgres::PgPoolOptions;
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = PgPoolOptions::new().max_connections(8);
    /// let pool = pool.connect("postgres://shop@localhost/shop").await?;
    /// let settings = PostgresSettings::new("").with_connections(4);
    /// let inbox = PostgresInbox::with_pool(pool, &settings).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn with_pool(pool: PgPool, settings: &PostgresSettings) -> Result<Self, InboxError> {
        let database = Database::of(pool, settings.pgbouncer)
            .map_err(|error| error::failed("the pool", "open", error))?;
        let database = database.with_reset(settings.reset_session);
        Self::prepared(database, settings).await
    }

    /// Opens the store: everything that all constructors share.
    async fn prepared(database: Database, settings: &PostgresSettings) -> Result<Self, InboxError> {
        let store = Store::on(database, settings);
        store.migrate(settings).await?;
        Ok(Self {
            groups: Groups::new(store, settings.connections, settings.group_max),
        })
    }

    /// The SQL that creates the inbox's tables, or upgrades those of any earlier version, for teams
    /// that run migrations themselves; see
    /// [`Migration::Elsewhere`](crate::postgres::Migration::Elsewhere). Run it in one transaction.
    pub fn migration_sql() -> String {
        statements::migration()
    }

    /// The versions of the inbox in the database at `address`. Changes nothing. `None` for the
    /// address of another kind of store, whose inbox belongs to one service, which upgrades it by
    /// itself.
    ///
    /// # Errors
    /// If the server cannot be reached or refuses the connection; [`InboxError::Foreign`] for a
    /// version that no release writes; [`InboxError::Setting`] for an invalid address.
    ///
    /// # Examples
    /// ```no_run
    /// # use evenkeel::inbox::{InboxError, PostgresInbox};
    /// # async fn example() -> Result<(), InboxError> {
    /// let versions = PostgresInbox::versions("postgres://shop@localhost/shop").await?;
    /// if versions.is_some_and(|versions| versions.stored < versions.newest) {
    ///     println!("run: evenkeel store migrate --execute");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn versions(address: &str) -> Result<Option<InboxVersions>, InboxError> {
        let Some(url) = url_in(address) else {
            return store_address::check(address)
                .map(|()| None)
                .map_err(InboxError::Setting);
        };
        let settings = PostgresSettings::new("").with_connections(1);
        let database = Database::at(url, pool_settings(&settings)).map_err(unreadable)?;
        let store = Store::on(database, &settings);
        let failed = |error| store.failed("read the version", error);
        let mut session = store.database.session().await.map_err(failed)?;
        let stored = statements::version(&mut session).await.map_err(failed)?;
        let stored = match stored.as_deref().map(str::parse) {
            None => 0,
            Some(Ok(version)) if version <= statements::VERSION => version,
            Some(Ok(version)) => {
                return Err(InboxError::Foreign {
                    path: store.name.clone(),
                    reason: format!(
                        "has version {version}, written by a newer release; this one knows \
                         versions up to {}: use the newer release",
                        statements::VERSION
                    ),
                });
            }
            Some(Err(_)) => {
                return Err(InboxError::Foreign {
                    path: store.name.clone(),
                    reason: "has a version that no release of evenkeel writes".to_owned(),
                });
            }
        };
        Ok(Some(InboxVersions {
            stored,
            newest: statements::VERSION,
        }))
    }

    /// Writes the events that handlers publish through their context to this outbox of the same
    /// database, in the transaction of the inbox row and the effect. A
    /// [`Relay`](crate::outbox::Relay) must publish them to Kafka. Without an outbox they are
    /// stored beside the row, and the consumer publishes them after the commit.
    ///
    /// # Errors
    /// [`InboxError::Foreign`] for an outbox of another database, or for a second outbox.
    pub fn with_outbox(self, outbox: PostgresOutbox) -> Result<Self, InboxError> {
        let store = self.store();
        let foreign = |reason: &str| InboxError::Foreign {
            path: store.name.clone(),
            reason: reason.to_owned(),
        };
        if store.name != outbox.database().name() {
            return Err(foreign(
                "is not the database of the outbox: open both on one",
            ));
        }
        let set = store.outbox.set(outbox);
        set.map_err(|_| foreign("has an outbox already"))?;
        Ok(self)
    }

    /// The connections, for reading and writing outside of deliveries. Claims leave two of them
    /// free.
    pub fn pool(&self) -> &PgPool {
        self.store().database.pool()
    }

    /// Deletes deliveries completed more than `older_than` ago, `batch` rows per transaction.
    /// Returns the number of deleted rows.
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
    /// # use evenkeel::inbox::{InboxError, PostgresInbox};
    /// # use std::time::Duration;
    /// # async fn example(inbox: PostgresInbox) -> Result<(), InboxError> {
    /// let days = |days: u64| Duration::from_secs(days * 24 * 60 * 60);
    /// let purged = inbox.purge(days(45), 1_000).await?;
    /// println!("{purged} deliveries forgotten");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn purge(&self, older_than: Duration, batch: u32) -> Result<u64, InboxError> {
        let batch = batch.max(1);
        let store = self.store();
        let failed = |error| store.failed("purge", error);
        let mut purged = 0;
        loop {
            let purge = async {
                let mut session = store.database.session().await.map_err(failed)?;
                let deleted = statements::purge(&mut session, older_than, batch).await;
                let deleted = deleted.map_err(failed)?;
                session.done().await.map_err(failed)?;
                Ok(deleted)
            };
            let (deleted, purged_before) = store.within("purge", purge).await?;
            store.purge_watermark.reach(purged_before.as_deref());
            purged += deleted;
            if deleted < u64::from(batch) {
                return Ok(purged);
            }
        }
    }

    /// Closes all connections after the running claims have ended; a pool of the service is closed
    /// too. Later claims fail as unavailable. Close the inbox after the consumer has ended, not
    /// before.
    pub async fn close(&self) {
        self.pool().close().await;
    }

    pub(super) fn store(&self) -> &Store {
        self.groups.store()
    }
}

impl Store {
    /// Derives the limits of time from the settings. Opens no connection.
    fn on(database: Database, settings: &PostgresSettings) -> Self {
        let timeout = lock_timeout(settings);
        Self {
            name: database.name(),
            database,
            checked: Mutex::default(),
            is_silent: AtomicBool::new(false),
            answer_limit: ANSWER_LIMIT.max(2 * timeout),
            lock_timeout: milliseconds(timeout),
            hasty_timeout: milliseconds(timeout.min(SHORT_LOCK_TIMEOUT)),
            sees_commits: AtomicBool::new(true),
            outbox: OnceLock::new(),
            purge_watermark: PurgeWatermark::default(),
            sent: Sent::default(),
        }
    }

    /// Creates or upgrades the tables and learns the default isolation, in one transaction under
    /// the schema lock.
    async fn migrate(&self, settings: &PostgresSettings) -> Result<(), InboxError> {
        let failed = |error| self.failed("open", error);
        let mut transaction = self.database.begin("").await.map_err(failed)?;
        let prepared = statements::migrate(&mut transaction, settings).await;
        prepared.map_err(|problem| match problem {
            statements::Problem::Foreign(reason) => InboxError::Foreign {
                path: self.name.clone(),
                reason,
            },
            statements::Problem::Postgres(error) => self.failed("prepare", error),
        })?;
        let sees_commits = statements::sees_commits(&mut transaction).await;
        self.sees_commits
            .store(sees_commits.map_err(failed)?, Ordering::Relaxed);
        transaction.commit().await.map_err(failed)
    }

    /// Cancels `work` if the server does not answer: after a while, or as soon as it answers no
    /// other connection either. The connection of `work` is not used again: the system would wait
    /// for an answer on it for a quarter of an hour, or for ever.
    async fn within<T>(
        &self,
        doing: &'static str,
        work: impl Future<Output = Result<T, InboxError>>,
    ) -> Result<T, InboxError> {
        let mut work = pin!(work);
        let began = Instant::now();
        let until = async {
            while began.elapsed() < self.answer_limit {
                tokio::time::sleep(CHECK_AFTER.min(self.answer_limit)).await;
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

    /// Whether the server answers at all; a refusal is an answer. One check serves all callers.
    async fn answers(&self) -> bool {
        let mut checked = self.checked.lock().await;
        if let Some((at, answered)) = *checked
            && at.elapsed() < CHECK_VALID_FOR
        {
            return answered;
        }
        let answered = self.database.answers(CHECK_AFTER).await;
        *checked = Some((Instant::now(), answered));
        answered
    }

    /// Begins a transaction. A transaction that sees nothing committed after its first statement
    /// must not wait for the group's lock, because it would collide with the transactions it waited
    /// for: it is begun again until the lock is free.
    async fn begun(
        &self,
        keys: &[InboxKey],
        is_exclusive: bool,
    ) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        loop {
            let mut transaction = self.database.begin(statements::GUARD).await?;
            if self.sees_commits.load(Ordering::Relaxed)
                || statements::try_lock(&mut transaction, keys, is_exclusive).await?
            {
                return Ok(transaction);
            }
            transaction.rollback().await?;
            tokio::time::sleep(LOCK_INTERVAL).await;
        }
    }

    /// Writes the published events to the outbox, at the end of a transaction. After the locks of
    /// their keys only the commit follows, so two groups that publish on the same keys cannot wait
    /// for each other.
    async fn append(&self, open: &mut Open) -> Result<(), InboxError> {
        if open.staged.is_empty() {
            return Ok(());
        }
        self.reset(open, "publish").await?;
        let is_open = statements::is_open(&mut open.transaction, &self.lock_timeout).await;
        if !is_open.map_err(|error| self.ended("publish", error))? {
            return Err(error::ended_by_hand("its claim is gone"));
        }
        let is_prepared = !self.database.is_pooled();
        let (transaction, staged) = (&mut open.transaction, &open.staged);
        let appended = outbox::postgres::append(transaction, staged, is_prepared).await;
        appended.map_err(|error| of_outbox(error, |error| self.ended("publish", error)))
    }

    /// Resets the settings that a handler changed, if the store is configured to do so.
    async fn reset(&self, open: &mut Open, doing: &'static str) -> Result<(), InboxError> {
        let timeout = self.timeout_in(open);
        let reset = statements::reset(&mut open.transaction, self.database.reset(), timeout).await;
        reset.map_err(|error| self.ended(doing, error))
    }

    /// How long handlers of this transaction wait for a lock.
    fn timeout_in(&self, open: &Open) -> &str {
        match open.is_hasty {
            true => &self.hasty_timeout,
            false => &self.lock_timeout,
        }
    }

    pub(super) fn failed(&self, doing: &'static str, error: sqlx::Error) -> InboxError {
        error::failed(&self.name, doing, error)
    }

    /// Maps an error of a transaction that the handler may have ended.
    fn ended(&self, doing: &'static str, error: sqlx::Error) -> InboxError {
        error::misuse(&error).unwrap_or_else(|| self.failed(doing, error))
    }
}

/// How long to wait for a lock. PostgreSQL counts it in milliseconds of 31 bits, as librdkafka
/// does.
pub(super) fn lock_timeout(settings: &PostgresSettings) -> Duration {
    settings.lock_timeout.min(CALL_MAX)
}

fn pool_settings(settings: &PostgresSettings) -> PoolSettings {
    PoolSettings {
        connections: settings.connections.max(1) + OTHERS_MAX,
        acquire_timeout: lock_timeout(settings),
        is_pooled: settings.pgbouncer,
        resets: settings.reset_session.unwrap_or(true),
    }
}

/// The error for a URL that cannot be parsed. It describes the problem and repeats no part of the
/// URL.
fn unreadable(error: sqlx::Error) -> InboxError {
    error::failed("the URL of the store", "open", error)
}

fn milliseconds(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
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

    fn sent(&self, key: &InboxKey) {
        sent_replies::forget_soon(Arc::clone(&self.groups), key);
    }

    fn forgotten_before_ms(&self) -> Option<i64> {
        self.store().purge_watermark.before_ms()
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

    fn to_handler(handed_out: HandedOut<Open>) -> Box<dyn Any + Send> {
        Box::new(PostgresTx::new(handed_out))
    }

    async fn find(&self, key: &InboxKey) -> Result<Known, InboxError> {
        let work = async {
            let failed = |error| self.failed("look up", error);
            let mut session = self.database.session().await.map_err(failed)?;
            let known = statements::find(&mut session, key).await;
            let known = known.map(|row| Known::of(key, row)).map_err(failed)?;
            session.done().await.map_err(failed)?;
            Ok(known)
        };
        self.within("look up", work).await
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
            let claimed = statements::claim(&mut transaction, keys, locking).await;
            let known = claimed.map_err(failed)?;
            let is_single = known.iter().filter(|row| row.is_none()).count() == 1;
            // A single delivery holds nothing while it waits for its first row.
            let is_hasty = !is_single && !locking.is_exclusive;
            if !is_single {
                let timeout = is_hasty.then_some(self.hasty_timeout.as_str());
                let set = statements::first_savepoint(&mut transaction, timeout).await;
                set.map_err(failed)?;
            }
            if self.purge_watermark.is_due() {
                let purged_before = statements::purged_before(&mut transaction).await;
                self.purge_watermark
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

    async fn savepoint(&self, open: &mut Open) -> Result<(), InboxError> {
        let work = async {
            let timeout = self.timeout_in(open);
            let reset = self.database.reset();
            let set = statements::savepoint(&mut open.transaction, reset, timeout).await;
            set.map_err(|error| self.ended("complete", error))?;
            open.staged_before = open.staged.len();
            Ok(())
        };
        self.within("complete", work).await
    }

    async fn complete(
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
            self.reset(open, "complete").await?;
            let replies = replies::encode(&published);
            let kept = statements::store_replies(&mut open.transaction, key, &replies).await;
            kept.map_err(|error| self.ended("complete", error))?;
            Ok(published)
        };
        self.within("publish", work).await
    }

    async fn rollback_to_savepoint(
        &self,
        open: &mut Open,
        key: &InboxKey,
    ) -> Result<(), InboxError> {
        open.staged.truncate(open.staged_before);
        let work = async {
            if open.is_single {
                // The transaction has no other delivery: it is rolled back as a whole.
                return Ok(());
            }
            let undone = statements::rollback_to_savepoint(&mut open.transaction, key).await;
            undone.map_err(|error| self.ended("abandon", error))
        };
        self.within("abandon", work).await
    }

    async fn release_claims(&self, open: &mut Open, keys: &[InboxKey]) -> Result<(), InboxError> {
        let work = async {
            self.reset(open, "complete").await?;
            let forgotten = statements::release_claims(&mut open.transaction, keys).await;
            forgotten.map_err(|error| self.ended("complete", error))
        };
        self.within("complete", work).await
    }

    async fn prepare(&self, open: &mut Open) -> Result<(), InboxError> {
        let work = async {
            self.append(open).await?;
            // If there is nothing to reset here, settings are reset when the connection is
            // returned.
            let reset = self.database.reset_at_end();
            let closed = statements::release_savepoint(&mut open.transaction, reset).await;
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
                    CHECK_AFTER,
                ))
            }
        }
    }

    fn is_silent(&self) -> bool {
        self.is_silent.load(Ordering::Relaxed)
    }

    fn sent(&self) -> &Sent {
        &self.sent
    }

    async fn forget_replies(&self, keys: &[InboxKey]) -> Result<(), InboxError> {
        let work = async {
            let failed = |error| self.failed("forget replies", error);
            let mut session = self.database.session().await.map_err(failed)?;
            let forgotten = statements::forget_replies(&mut session, keys).await;
            forgotten.map_err(failed)?;
            session.done().await.map_err(failed)
        };
        self.within("forget replies", work).await
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
