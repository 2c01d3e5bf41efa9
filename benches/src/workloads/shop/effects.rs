//! The effects in the services' stores: counted while the daemons write, and checked at the end.
//!
//! Every handled event is a row of a store's `effects`, which has no unique constraint: an effect
//! that happened twice shows. Rows of other runs, whose keys begin with another name, are left out.

use super::programs::store;
use super::services::{SERVICES, Service};
use anyhow::{Context, bail};
use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

/// Rows are only appended, so a count reads the new ones only.
const NEW: &str = "SELECT coalesce(max(seq), ?1), count(*) FILTER (WHERE instr(record_key, ?2) = 1)
                   FROM effects WHERE seq > ?1";
const BY_TYPE: &str = "SELECT type, count(*), count(DISTINCT record_key) FROM effects
                       WHERE instr(record_key, ?1) = 1 GROUP BY type";
/// Interval between two counts: short beside a backlog, long beside what a count takes.
const COUNT_INTERVAL: Duration = Duration::from_millis(50);
/// A wait fails after this time without a further effect.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The stores of all services, opened for reading.
pub(super) struct Effects {
    /// Begins the keys of this run.
    run: String,
    stores: Vec<Store>,
}

struct Store {
    service: &'static Service,
    connection: SqliteConnection,
    /// The number of the last row that was counted.
    last: i64,
    /// Effects of this run so far.
    counted: u64,
}

/// Effects of a type, and the number of keys that they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    effects: u64,
    keys: u64,
}

impl Effects {
    /// Opens the stores, which the daemons have created.
    pub(super) async fn open(directory: &Path, run: &str) -> anyhow::Result<Self> {
        let mut stores = Vec::with_capacity(SERVICES.len());
        for service in &SERVICES {
            stores.push(Store {
                service,
                connection: open(&store(directory, service.name)).await?,
                last: 0,
                counted: 0,
            });
        }
        let run = run.to_owned();
        Ok(Self { run, stores })
    }

    /// Waits until the stores have all effects of this many orders. Calls `check` meanwhile, whose
    /// error ends the wait.
    pub(super) async fn wait_for(
        &mut self,
        orders: u64,
        mut check: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut silent_since = (0, Instant::now());
        loop {
            check()?;
            let (counted, missing) = self.count(orders).await?;
            if missing == 0 {
                return Ok(());
            }
            if counted > silent_since.0 {
                silent_since = (counted, Instant::now());
            } else if silent_since.1.elapsed() > SILENCE_MAX {
                let seconds = SILENCE_MAX.as_secs();
                bail!("wrong answer: {missing} effects are missing, and none came for {seconds} s");
            }
            tokio::time::sleep(COUNT_INTERVAL).await;
        }
    }

    /// Fails unless every event of this many orders had its effect once. The daemons have stopped.
    pub(super) async fn check_once(&mut self, orders: u64) -> anyhow::Result<()> {
        let mut differences = Vec::new();
        for store in &mut self.stores {
            let found = store.by_type(&self.run).await?;
            let expected = store.service.effects(orders);
            for difference in compare(&expected, &found) {
                differences.push(format!("{}: {difference}", store.service.name));
            }
        }
        match differences.is_empty() {
            true => Ok(()),
            false => bail!("wrong answer: {}", differences.join("; ")),
        }
    }

    /// The number of effects so far, and of those that are missing.
    async fn count(&mut self, orders: u64) -> anyhow::Result<(u64, u64)> {
        let (mut counted, mut missing) = (0, 0);
        for store in &mut self.stores {
            store.count_new(&self.run).await?;
            let expected: u64 = store.service.effects(orders).values().sum();
            counted += store.counted;
            missing += expected.saturating_sub(store.counted);
        }
        Ok((counted, missing))
    }
}

impl Store {
    async fn count_new(&mut self, run: &str) -> anyhow::Result<()> {
        let new = sqlx::query_as::<_, (i64, i64)>(NEW)
            .bind(self.last)
            .bind(run);
        let (last, count) = new.fetch_one(&mut self.connection).await?;
        self.last = last;
        self.counted += count.unsigned_abs();
        Ok(())
    }

    async fn by_type(&mut self, run: &str) -> anyhow::Result<BTreeMap<String, Found>> {
        let rows = sqlx::query_as::<_, (String, i64, i64)>(BY_TYPE).bind(run);
        let rows = rows.fetch_all(&mut self.connection).await?;
        let found = rows.into_iter().map(|(ty, effects, keys)| {
            let (effects, keys) = (effects.unsigned_abs(), keys.unsigned_abs());
            (ty, Found { effects, keys })
        });
        Ok(found.collect())
    }
}

async fn open(path: &Path) -> anyhow::Result<SqliteConnection> {
    SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .busy_timeout(Duration::from_secs(5))
        .connect()
        .await
        .with_context(|| format!("cannot read the store {}", path.display()))
}

/// What is lost, done twice, or should not be, in words.
fn compare(expected: &BTreeMap<&str, u64>, found: &BTreeMap<String, Found>) -> Vec<String> {
    let types: BTreeSet<&str> = expected
        .keys()
        .copied()
        .chain(found.keys().map(String::as_str))
        .collect();
    let difference = |ty: &str| {
        let expected = expected.get(ty).copied().unwrap_or_default();
        let none = Found {
            effects: 0,
            keys: 0,
        };
        let Found { effects, keys } = found.get(ty).copied().unwrap_or(none);
        (effects != expected || keys != expected)
            .then(|| format!("{effects} effects of {ty}, of {keys} keys, instead of {expected}"))
    };
    types.into_iter().filter_map(difference).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::Connection;

    const TABLE: &str = "CREATE TABLE effects (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, type TEXT NOT NULL, record_key TEXT NOT NULL)";

    /// Stores with the effects of `orders` orders of `run`, and those of another run.
    async fn stores(directory: &Path, run: &str, orders: u64) {
        for service in &SERVICES {
            let options = SqliteConnectOptions::new()
                .filename(store(directory, service.name))
                .create_if_missing(true);
            let mut connection = options.connect().await.expect("it is writable");
            sqlx::query(TABLE)
                .execute(&mut connection)
                .await
                .expect("a table");
            for (ty, count) in service.effects(orders) {
                for number in 0..count {
                    for run in [run, "other"] {
                        add(&mut connection, ty, &format!("{run}-{number}")).await;
                    }
                }
            }
            connection.close().await.expect("it closes");
        }
    }

    async fn add(connection: &mut SqliteConnection, ty: &str, key: &str) {
        let insert = sqlx::query("INSERT INTO effects (type, record_key) VALUES (?, ?)")
            .bind(ty)
            .bind(key);
        insert.execute(connection).await.expect("a row");
    }

    #[tokio::test]
    async fn effects_of_this_run_are_counted_and_each_is_expected_once() {
        let directory = tempfile::tempdir().expect("a temporary folder is created");
        stores(directory.path(), "run", 3).await;
        let mut effects = Effects::open(directory.path(), "run")
            .await
            .expect("stores");
        effects.wait_for(3, || Ok(())).await.expect("all are there");
        // A second count reads no row again.
        let (counted, missing) = effects.count(4).await.expect("a count");
        assert_eq!((counted, missing), (3 * 12 + 50, 12));
        effects
            .check_once(3)
            .await
            .expect("each has its effect once");
        effects.check_once(4).await.expect_err("one is lost");
    }

    #[tokio::test]
    async fn an_effect_that_happened_twice_fails_also_beside_a_lost_one() {
        let directory = tempfile::tempdir().expect("a temporary folder is created");
        stores(directory.path(), "run", 3).await;
        let options = SqliteConnectOptions::new().filename(store(directory.path(), "payments"));
        let mut payments = options.connect().await.expect("it is writable");
        let twice = "UPDATE effects SET record_key = 'run-0' WHERE record_key = 'run-1'";
        sqlx::query(twice)
            .execute(&mut payments)
            .await
            .expect("a row");
        let mut effects = Effects::open(directory.path(), "run")
            .await
            .expect("stores");
        let error = effects.check_once(3).await.expect_err("one is twice");
        let error = error.to_string();
        assert!(error.contains("payments: 3 effects of"), "{error}");
        assert!(error.contains("of 2 keys, instead of 3"), "{error}");
    }

    #[tokio::test]
    async fn a_failed_check_ends_the_wait() {
        let directory = tempfile::tempdir().expect("a temporary folder is created");
        stores(directory.path(), "run", 0).await;
        let mut effects = Effects::open(directory.path(), "run")
            .await
            .expect("stores");
        let ended = effects.wait_for(1, || bail!("payments ended")).await;
        let error = ended.expect_err("a daemon ended").to_string();
        assert_eq!(error, "payments ended");
    }

    #[test]
    fn effects_of_other_types_are_differences() {
        let found = |ty: &str, effects| {
            (
                ty.to_owned(),
                Found {
                    effects,
                    keys: effects,
                },
            )
        };
        let expected = [("placed", 3)].into();
        let check = |found: &[(String, Found)], differences: usize| {
            let found = found.iter().cloned().collect();
            let compared = compare(&expected, &found);
            assert_eq!(compared.len(), differences, "{compared:?}");
        };
        check(&[found("placed", 3)], 0);
        check(&[found("placed", 2)], 1);
        check(&[found("placed", 3), found("cancelled", 1)], 1);
        check(&[], 1);
    }
}
