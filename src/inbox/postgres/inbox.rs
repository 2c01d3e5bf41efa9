//! The inbox: how it is opened, and its claims.

use super::settings::PostgresSettings;
use super::store::{Store, lock_timeout};
use super::transaction::PostgresTx;
use super::{error, statements, tables};
use crate::inbox::group_commit::Groups;
use crate::inbox::shared::sent_replies;
use crate::inbox::{BatchInbox, BoxFuture, Claimed, ClaimedBatch, Inbox, InboxError, InboxKey};
use crate::outbox::PostgresOutbox;
use crate::postgres::{Database, PoolSettings, url_in};
use crate::store_address;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use std::any::TypeId;
use std::sync::Arc;
use std::time::Duration;

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

/// Connections for work other than claims.
const OTHERS_MAX: u32 = 2;

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
        let database = Database::at(url, pool_settings(settings)).map_err(invalid_url)?;
        Self::open_on(database, settings).await
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
        Self::open_on(database, settings).await
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
        Self::open_on(database, settings).await
    }

    /// Opens the store: everything that all constructors share.
    async fn open_on(database: Database, settings: &PostgresSettings) -> Result<Self, InboxError> {
        let store = Store::new(database, settings);
        store.migrate(settings).await?;
        Ok(Self {
            groups: Groups::new(store, settings.connections, settings.group_max),
        })
    }

    /// The SQL that creates the inbox's tables, or upgrades those of any earlier version, for teams
    /// that run migrations themselves; see
    /// [`Migration::Elsewhere`](crate::postgres::Migration::Elsewhere). Run it in one transaction.
    pub fn migration_sql() -> String {
        tables::migration()
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
        let database = Database::at(url, pool_settings(&settings)).map_err(invalid_url)?;
        let store = Store::new(database, &settings);
        let failed = |error| store.failed("read the version", error);
        let mut session = store.database.session().await.map_err(failed)?;
        let stored = tables::version(&mut session).await.map_err(failed)?;
        let stored = match stored.as_deref().map(str::parse) {
            None => 0,
            Some(Ok(version)) if version <= tables::VERSION => version,
            Some(Ok(version)) => {
                return Err(InboxError::Foreign {
                    path: store.name.clone(),
                    reason: format!(
                        "has version {version}, written by a newer release; this one knows \
                         versions up to {}: use the newer release",
                        tables::VERSION
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
            newest: tables::VERSION,
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
            let (deleted, purged_before) = store.answers.cancel_if_silent("purge", purge).await?;
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
fn invalid_url(error: sqlx::Error) -> InboxError {
    error::failed("the URL of the store", "open", error)
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
