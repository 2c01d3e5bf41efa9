//! A database and its connections, direct or through a pooler.
//!
//! # Connections that cannot be used again
//! A call that is dropped may leave a `BEGIN` whose answer was not read: the driver believes the
//! connection free, and a transaction is open. A transaction is therefore begun in a task that is
//! never cancelled, and a returned connection of an own pool must answer that it has no open
//! transaction.
//!
//! # Connections that can only read
//! A failover may turn the server of an open connection into a replica without closing it, and an
//! address that follows the primary may lead to the old one for a moment. Every write on such a
//! connection fails for as long as the pool keeps it. A returned connection of an own pool must
//! therefore answer that it can write too; otherwise the next caller gets a new one.
//!
//! # Poolers
//! If server connections are assigned per transaction, each statement must be part of one, prepared
//! statements must not outlive it, and session settings belong to whoever had the connection
//! before. [`Session`] hides the difference from the callers.

use super::address::Address;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool, Postgres, Row, Transaction,
};
use std::io::ErrorKind;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

/// How long a returned connection has to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Begins a transaction behind a pooler: an earlier client of the server connection may have left
/// prepared statements with the names that the driver is about to use.
const BEGIN_POOLED: &str = "BEGIN; DEALLOCATE ALL";

/// Resets the settings of the session.
const RESET: &str = "RESET ALL; RESET SESSION AUTHORIZATION";

/// False in a transaction that an earlier statement began, and where no transaction can write: on a
/// replica, or by a setting of the server.
macro_rules! is_usable_sql {
    () => {
        "SELECT now() = statement_timestamp() AND current_setting('transaction_read_only') = 'off' AS is_usable"
    };
}

const IS_USABLE: &str = is_usable_sql!();

/// The same, after a reset of the session's settings.
const IS_RESET_AND_USABLE: &str =
    concat!("RESET ALL; RESET SESSION AUTHORIZATION; ", is_usable_sql!());

/// The reset behind a pooler, where this client did not open the server connection: also sets what
/// the driver sets when it connects.
const RESET_POOLED: &str = "RESET ALL; RESET SESSION AUTHORIZATION; SET timezone = 'UTC'; SET datestyle = 'ISO, MDY'; \
                            SET client_encoding = 'UTF8'";

/// A database: a pool, and how its connections are used. Cheap to clone; clones share the pool.
#[derive(Clone)]
pub(crate) struct Database {
    pool: PgPool,
    /// Whether a pooler assigns server connections per transaction.
    is_pooled: bool,
    /// Whether session settings of a handler are reset after it.
    resets: bool,
    /// Whether evenkeel created the pool.
    is_own: bool,
}

/// A connection for a few statements. Behind a pooler a transaction, because each statement might
/// run on another server connection.
pub(crate) enum Session {
    Direct(PoolConnection<Postgres>),
    Pooled(Transaction<'static, Postgres>),
}

/// Settings of a pool that evenkeel creates.
pub(crate) struct PoolSettings {
    /// The most connections of the pool.
    pub(crate) connections: u32,
    /// How long a caller waits for a free connection.
    pub(crate) acquire_timeout: Duration,
    /// Whether there is a pooler although the address does not mention it.
    pub(crate) is_pooled: bool,
    /// Whether session settings are reset before the next use of the connection.
    pub(crate) resets: bool,
}

impl Database {
    /// Connects lazily to the database at `url`.
    ///
    /// # Errors
    /// For a URL that cannot be parsed; the error repeats no part of it.
    pub(crate) fn at(url: &str, mut settings: PoolSettings) -> Result<Self, sqlx::Error> {
        let Address { options, is_pooled } = Address::of(url)?;
        settings.is_pooled |= is_pooled;
        Ok(Self::connect(options, &settings))
    }

    /// Connects lazily with these options.
    pub(crate) fn connect(options: PgConnectOptions, settings: &PoolSettings) -> Self {
        let is_pooled = settings.is_pooled;
        let options = match is_pooled {
            // A statement kept by name would be looked up on another connection.
            true => options.statement_cache_capacity(0),
            false => options,
        };
        // A pooler would reset another connection than the one that was used.
        let question = match is_pooled || !settings.resets {
            true => IS_USABLE,
            false => IS_RESET_AND_USABLE,
        };
        let pool = PgPoolOptions::new()
            .max_connections(settings.connections)
            .acquire_timeout(settings.acquire_timeout)
            // A broken connection is detected at its use, and that delivery is retried.
            .test_before_acquire(false)
            .after_release(move |connection, _| Box::pin(is_usable(connection, question)))
            .connect_lazy_with(options);
        Self {
            pool,
            is_pooled,
            resets: settings.resets,
            is_own: true,
        }
    }

    /// Uses a pool of the service. By default no settings are reset, because a reset would also
    /// discard those that the pool sets when it connects.
    ///
    /// # Errors
    /// For a pool behind a pooler that keeps statements prepared.
    pub(crate) fn of(pool: PgPool, is_pooled: bool) -> Result<Self, sqlx::Error> {
        if is_pooled && !keeps_nothing_prepared(&pool.connect_options()) {
            return Err(sqlx::Error::Configuration(
                "behind a pooler the pool's connect options need statement_cache_capacity(0)"
                    .into(),
            ));
        }
        Ok(Self {
            pool,
            is_pooled,
            resets: false,
            is_own: false,
        })
    }

    /// Overrides whether session settings of a handler are reset, if given.
    pub(crate) fn with_reset(mut self, resets: Option<bool>) -> Self {
        self.resets = resets.unwrap_or(self.resets);
        self
    }

    /// The pool, for statements that may be their own transactions.
    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Whether a pooler assigns server connections per transaction.
    pub(crate) fn is_pooled(&self) -> bool {
        self.is_pooled
    }

    /// The options of new connections; a service may change them while the pool is in use.
    pub(crate) fn options(&self) -> Arc<PgConnectOptions> {
        self.pool.connect_options()
    }

    /// Host, port and database, without user and password.
    pub(crate) fn name(&self) -> String {
        let options = self.options();
        let database = options.get_database().unwrap_or(options.get_username());
        format!("{}:{}/{database}", options.get_host(), options.get_port())
    }

    /// The statement that resets the session's settings, if they are to be reset.
    pub(crate) fn reset(&self) -> Option<&'static str> {
        self.resets.then_some(reset(self.is_pooled))
    }

    /// The statement that resets the session's settings at the end of a transaction, if it is
    /// needed: behind a pooler, and on a pool of the service, nothing else resets them before the
    /// next use of the connection.
    pub(crate) fn reset_at_end(&self) -> Option<&'static str> {
        self.reset().filter(|_| self.is_pooled || !self.is_own)
    }

    /// A connection for a few statements that need no transaction of their own. End it with
    /// [`Session::done`] after writes; behind a pooler a dropped session undoes them.
    pub(crate) async fn session(&self) -> Result<Session, sqlx::Error> {
        match self.is_pooled {
            true => Ok(Session::Pooled(self.begun(BEGIN_POOLED.to_owned()).await?)),
            false => Ok(Session::Direct(self.pool.acquire().await?)),
        }
    }

    /// Begins a transaction, with statements that follow in the same message. Dropping it rolls it
    /// back.
    pub(crate) async fn begin(
        &self,
        then: &str,
    ) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        let begin = if self.is_pooled {
            BEGIN_POOLED
        } else {
            "BEGIN"
        };
        self.begun(format!("{begin}; {then}")).await
    }

    /// Begins a transaction in a task of its own, which is never cancelled: if the answer to a
    /// `BEGIN` is not read, the driver does not know of the transaction, and on a pool of the
    /// service nothing else would detect it.
    async fn begun(&self, begin: String) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        let pool = self.pool.clone();
        let begun = tokio::spawn(async move { pool.begin_with(AssertSqlSafe(begin)).await });
        begun.await.map_err(|_| sqlx::Error::WorkerCrashed)?
    }

    /// Whether the server answers at all, on a connection outside of the pool; a refusal is an
    /// answer.
    pub(crate) async fn answers(&self, within: Duration) -> bool {
        let options = self.options();
        // A pooler accepts clients by itself; only a statement reaches the server, once a server
        // connection is free.
        let within = if self.is_pooled { 2 * within } else { within };
        let answered = tokio::time::timeout(within, async {
            let mut connection = PgConnection::connect_with(&options).await?;
            if self.is_pooled {
                sqlx::raw_sql("SELECT 1").execute(&mut connection).await?;
            }
            Ok::<_, sqlx::Error>(())
        });
        match answered.await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => error.as_database_error().is_some(),
            Err(_) => false,
        }
    }
}

/// Whether the options turn the cache of prepared statements off. The driver has no getter for it;
/// its URL shows it.
fn keeps_nothing_prepared(options: &PgConnectOptions) -> bool {
    let url = options.to_url_lossy();
    let mut parameters = url.query_pairs();
    parameters.any(|(name, value)| name == "statement-cache-capacity" && value == "0")
}

fn reset(is_pooled: bool) -> &'static str {
    if is_pooled { RESET_POOLED } else { RESET }
}

impl Session {
    /// Ends the session. Behind a pooler this commits the writes; without it they are undone.
    pub(crate) async fn done(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Direct(_) => Ok(()),
            Self::Pooled(transaction) => transaction.commit().await,
        }
    }
}

impl Deref for Session {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match self {
            Self::Direct(connection) => connection,
            Self::Pooled(transaction) => transaction,
        }
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match self {
            Self::Direct(connection) => connection,
            Self::Pooled(transaction) => transaction,
        }
    }
}

/// Whether a returned connection can be used again: it answers, can write, and no transaction is
/// open on it. A `BEGIN` whose answer was not read leaves a transaction that the driver does not
/// know, in which every later statement would fail. The pool would also wait for an answer, but
/// without a limit. A pooler treats a prepared query as two, so the query is not prepared.
async fn is_usable(
    connection: &mut PgConnection,
    question: &'static str,
) -> Result<bool, sqlx::Error> {
    let is_usable = sqlx::raw_sql(question).fetch_one(connection);
    match tokio::time::timeout(ANSWER_LIMIT, is_usable).await {
        Ok(answered) => answered?.try_get("is_usable"),
        Err(_) => Err(sqlx::Error::Io(ErrorKind::TimedOut.into())),
    }
}
