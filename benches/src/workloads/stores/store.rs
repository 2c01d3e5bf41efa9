//! The store of a turn, with the inbox and the table of effects. It ends with the turn.

use super::handlers::{self, CommitMode, EFFECTS, Seen};
use anyhow::{Context, bail};
use evenkeel::handler::Router;
use evenkeel::inbox::{PostgresInbox, PostgresSettings, SqliteInbox, SqliteSettings};
use evenkeel::testing::{TestPostgres, unique};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, PgConnection, SqliteConnection};
use std::path::PathBuf;
use tempfile::TempDir;

const COUNT: &str = "SELECT count(*) FROM effects";
const COUNT_DISTINCT: &str =
    "SELECT count(*) FROM (SELECT DISTINCT key, place FROM effects) AS effects";

/// Which database a store is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreKind {
    /// A SQLite file.
    Sqlite,
    /// A database of PostgreSQL.
    Postgres,
}

impl StoreKind {
    /// Its name for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }
}

/// An empty store of one consumer group, that waits for the disk at every commit.
pub(crate) struct Store {
    group: String,
    place: Place,
}

/// Where a store is. Removed, and the server stopped, when it is dropped.
pub(crate) enum Place {
    /// A file in this folder.
    Sqlite(TempDir),
    /// The database at this URL.
    Postgres {
        url: String,
        _server: Box<TestPostgres>,
    },
}

impl Store {
    /// Creates a store in `TMPDIR`, and starts the server that it needs.
    pub(crate) async fn create(kind: StoreKind) -> anyhow::Result<Self> {
        let place = match kind {
            StoreKind::Sqlite => Place::Sqlite(tempfile::tempdir()?),
            StoreKind::Postgres => {
                let server = TestPostgres::start().await.context("no PostgreSQL")?;
                Place::Postgres {
                    url: server.database().await?,
                    _server: Box::new(server),
                }
            }
        };
        Ok(Self {
            group: unique("bench-effects"),
            place,
        })
    }

    /// The group that the store belongs to.
    pub(crate) fn group(&self) -> &str {
        &self.group
    }

    /// Where it is.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The router of one member, with connections of its own: inserts an effect for each event.
    pub(crate) async fn router(&self, mode: CommitMode, seen: Seen) -> anyhow::Result<Router> {
        match &self.place {
            Place::Sqlite(folder) => {
                let settings = SqliteSettings::new(&self.group, EFFECTS);
                let settings = match mode {
                    CommitMode::Single => settings.with_group_max(1),
                    CommitMode::Group | CommitMode::Batch => settings,
                };
                let inbox = SqliteInbox::open_with(&sqlite_file(folder), &settings).await?;
                Ok(handlers::for_sqlite(mode, seen).with_inbox(inbox))
            }
            Place::Postgres { url, .. } => {
                let settings = PostgresSettings::new(EFFECTS);
                let settings = match mode {
                    CommitMode::Single => settings.with_group_max(1),
                    CommitMode::Group | CommitMode::Batch => settings,
                };
                let inbox = PostgresInbox::open_with(url, &settings).await?;
                Ok(handlers::for_postgres(mode, seen).with_inbox(inbox))
            }
        }
    }

    /// The number of effects so far.
    pub(crate) async fn effects(&self) -> anyhow::Result<u64> {
        self.number(COUNT).await
    }

    /// Fails unless there is one effect for each of so many events.
    pub(crate) async fn check_once(&self, events: u64) -> anyhow::Result<()> {
        let (all, distinct) = (self.effects().await?, self.number(COUNT_DISTINCT).await?);
        if all != events || distinct != events {
            bail!("wrong answer: {all} effects, of {distinct} of {events} events");
        }
        Ok(())
    }

    async fn number(&self, sql: &'static str) -> anyhow::Result<u64> {
        let number: i64 = match &self.place {
            Place::Sqlite(folder) => {
                let options = SqliteConnectOptions::new().filename(sqlite_file(folder));
                let mut connection = SqliteConnection::connect_with(&options).await?;
                sqlx::query_scalar(sql).fetch_one(&mut connection).await?
            }
            Place::Postgres { url, .. } => {
                let mut connection = PgConnection::connect(url).await?;
                sqlx::query_scalar(sql).fetch_one(&mut connection).await?
            }
        };
        Ok(number.unsigned_abs())
    }
}

/// The file in the folder of a store in SQLite.
pub(crate) fn sqlite_file(folder: &TempDir) -> PathBuf {
    folder.path().join("effects.db")
}
