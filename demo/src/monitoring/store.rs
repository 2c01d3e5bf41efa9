//! The state of a store during a run, read by one long-lived connection.

use crate::shop::services::GATEWAY;
use crate::sources::open_store;
use sqlx::sqlite::SqliteConnection;
use std::path::{Path, PathBuf};

/// Rows are only appended, with consecutive numbers, so the highest number is the count. Counting
/// would read all rows.
const OF_SERVICE: &str =
    "SELECT (SELECT max(seq) FROM effects), EXISTS (SELECT 1 FROM evenkeel_outbox)";
/// The gateways handle no event.
const OF_GATEWAY: &str = "SELECT 0, EXISTS (SELECT 1 FROM evenkeel_outbox)";

/// The path of the store of a service, or of the gateways.
pub(crate) fn store_of(directory: &Path, service: &str) -> PathBuf {
    directory.join(format!("{service}.db"))
}

/// The state of a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StoreState {
    /// Number of effects.
    pub(crate) effects: u64,
    /// Whether it has committed events that its relay has not published. If a relay was killed,
    /// they wait until another one takes over its slots.
    pub(crate) is_unpublished: bool,
}

/// Reads the state of one store.
pub(crate) struct StoreProbe {
    /// The service, or [`GATEWAY`].
    pub(crate) service: &'static str,
    path: PathBuf,
    connection: Option<SqliteConnection>,
}

impl StoreProbe {
    /// A probe that connects when it reads first.
    pub(crate) fn new(directory: &Path, service: &'static str) -> Self {
        Self {
            service,
            path: store_of(directory, service),
            connection: None,
        }
    }

    /// Reads the state by one query, which reads the end of an index and holds no transaction
    /// afterwards: it does not delay the daemons. If it fails, the next read uses a new connection.
    pub(crate) async fn read(&mut self) -> anyhow::Result<StoreState> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => open_store(&self.path).await?,
        };
        let query = match self.service {
            GATEWAY => OF_GATEWAY,
            _ => OF_SERVICE,
        };
        let (effects, is_unpublished): (Option<i64>, bool) =
            sqlx::query_as(query).fetch_one(&mut connection).await?;
        self.connection = Some(connection);
        Ok(StoreState {
            effects: effects.unwrap_or_default().unsigned_abs(),
            is_unpublished,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::ConnectOptions;
    use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};

    #[tokio::test]
    async fn a_probe_sees_what_is_written_after_it_connected() {
        let directory = tempfile::tempdir().expect("a temporary folder is created");
        let options = SqliteConnectOptions::new()
            .filename(store_of(directory.path(), "payments"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal);
        let mut probe = StoreProbe::new(directory.path(), "payments");
        assert!(probe.read().await.is_err(), "there is no store");
        let mut store = options.connect().await.expect("a store");
        let mut write = async |sql: &'static str| {
            let written = sqlx::raw_sql(sql).execute(&mut store).await;
            written.expect("it is written");
        };
        write(
            "CREATE TABLE effects (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT);
             CREATE TABLE evenkeel_outbox (id INTEGER PRIMARY KEY)",
        )
        .await;
        let mut check = async |effects, is_unpublished| {
            let state = probe.read().await.expect("its state");
            let expected = StoreState {
                effects,
                is_unpublished,
            };
            assert_eq!(state, expected);
        };
        check(0, false).await;
        write(
            "INSERT INTO effects (id) VALUES ('a'), ('b'); INSERT INTO evenkeel_outbox VALUES (7)",
        )
        .await;
        check(2, true).await;
        write("DELETE FROM evenkeel_outbox").await;
        check(2, false).await;
    }
}
