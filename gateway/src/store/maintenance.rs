//! What a store with identities does in the background: measures its backlog, and deletes
//! identities that are older than the retention.
//!
//! Owns the task and the last measurement. Knows no SQL: a [`Maintained`] store runs the
//! statements.

use super::port::Backlog;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How often the backlog is measured.
const MEASURE_INTERVAL: Duration = Duration::from_millis(500);

/// How often old identities are deleted.
const PURGE_INTERVAL: Duration = Duration::from_secs(60);

/// Rows of one delete: few enough that it does not hold up a writer for long.
pub(super) const PURGE_ROWS_MAX: i64 = 1_000;

/// Rest between two deletes, in which writers have the store.
const PURGE_PAUSE: Duration = Duration::from_millis(50);

/// Bounds a statement of the task.
const CALL_LIMIT: Duration = Duration::from_secs(5);

/// The rows that are counted, and whose age is looked at; beyond them the backlog is an estimate.
pub(super) const COUNTED_ROWS_MAX: i64 = 2_000;

/// A store, as the background task uses it. Each method is one statement, and may be dropped.
pub(super) trait Maintained: Send + Sync + 'static {
    /// Its name for logs.
    const NAME: &'static str;

    /// Measures the outbox.
    fn measure(&self) -> impl Future<Output = Result<Measured, sqlx::Error>> + Send;

    /// Deletes up to [`PURGE_ROWS_MAX`] identities of each kind that were accepted before this time
    /// (milliseconds since 1970). Returns whether there may be more.
    fn purge(&self, before_ms: i64) -> impl Future<Output = Result<bool, sqlx::Error>> + Send;
}

/// What a store measures of its outbox.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Measured {
    /// The first rows that wait for no refused event of their key, at most [`COUNTED_ROWS_MAX`].
    pub(super) waiting: i64,
    /// An estimate of all such rows: the span of numbers from the first of them to the last row.
    pub(super) estimated: i64,
    /// The age of the oldest waiting row in milliseconds.
    pub(super) oldest_ms: Option<i64>,
    /// By what the acknowledged events are counted.
    pub(super) total: Total,
}

/// How a store counts events that the brokers acknowledged.
#[derive(Debug, Clone, Copy)]
pub(super) enum Total {
    /// The rows that were ever written.
    Written {
        /// All of them.
        written: i64,
        /// The rows of held keys that still are there, and that the count or the estimate of
        /// waiting rows does not have.
        held: i64,
    },
    /// The rows that were ever deleted.
    Deleted(i64),
}

impl Default for Total {
    fn default() -> Self {
        Self::Deleted(0)
    }
}

impl Measured {
    /// The rows that wait for the brokers: counted, or estimated if there are many.
    fn rows(&self) -> i64 {
        match self.waiting < COUNTED_ROWS_MAX {
            true => self.waiting,
            false => self.estimated.max(self.waiting),
        }
    }

    /// Rows deleted since an unknown beginning.
    fn deleted(&self) -> i64 {
        match self.total {
            Total::Written { written, held } => written - self.rows() - held,
            Total::Deleted(deleted) => deleted,
        }
    }
}

/// The last measurement.
#[derive(Debug, Default)]
pub(super) struct LastBacklog {
    latest: Mutex<Latest>,
}

#[derive(Debug, Default)]
struct Latest {
    backlog: Backlog,
    /// Rows deleted before the store was opened.
    deleted_before: Option<i64>,
}

impl LastBacklog {
    /// The last measurement.
    pub(super) fn get(&self) -> Backlog {
        self.latest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .backlog
    }

    /// Replaces it. Events of keys that wait for a refused event of theirs are left out: they would
    /// let the outbox look slow for as long as an operator leaves them.
    pub(super) fn set(&self, measured: Measured) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let deleted = measured.deleted();
        let before = *latest.deleted_before.get_or_insert(deleted);
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        latest.backlog = Backlog {
            events: count(measured.rows()),
            oldest_age: measured
                .oldest_ms
                .map(|age| Duration::from_millis(count(age))),
            // An estimate may shrink; a count of what was done does not.
            drained: count(deleted - before).max(latest.backlog.drained),
        };
    }
}

/// The wall clock in milliseconds since 1970, because rows are kept for days and compared across
/// processes.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Measures and purges until `stop`. A store that fails keeps its last measurement, and is tried
/// again.
pub(super) async fn maintain<S: Maintained>(
    store: Arc<S>,
    last: Arc<LastBacklog>,
    retention: Duration,
    stop: CancellationToken,
) {
    let measuring = measure_often(&*store, &last);
    let purging = purge_often(&*store, retention);
    let both = async { tokio::join!(measuring, purging) };
    stop.run_until_cancelled(Box::pin(both)).await;
}

async fn measure_often<S: Maintained>(store: &S, last: &LastBacklog) {
    let mut ticks = interval(MEASURE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut fails = false;
    loop {
        ticks.tick().await;
        match bounded(store.measure()).await {
            Ok(measured) => {
                last.set(measured);
                fails = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut fails, true) {
                    tracing::warn!(
                        store = S::NAME,
                        %error,
                        "the backlog of the outbox cannot be measured; its last value is used"
                    );
                }
            }
        }
    }
}

async fn purge_often<S: Maintained>(store: &S, retention: Duration) {
    let retention = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    loop {
        sleep(PURGE_INTERVAL).await;
        let before_ms = now_ms().saturating_sub(retention);
        loop {
            match bounded(store.purge(before_ms)).await {
                Ok(true) => sleep(PURGE_PAUSE).await,
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(
                        store = S::NAME,
                        %error,
                        "old identities cannot be deleted; trying again in a minute"
                    );
                    break;
                }
            }
        }
    }
}

async fn bounded<T>(call: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    match timeout(CALL_LIMIT, call).await {
        Ok(answered) => answered,
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI64, Ordering};

    #[test]
    fn a_backlog_counts_what_waits_and_what_was_drained() {
        let measured = |waiting, estimated, total| Measured {
            waiting,
            estimated,
            oldest_ms: Some(7),
            total,
        };
        let written = |written, held| Total::Written { written, held };
        let all = COUNTED_ROWS_MAX;
        for (first, second, events, drained) in [
            (
                measured(3, 9, written(10, 0)),
                measured(1, 9, written(12, 0)),
                1,
                4,
            ),
            (
                measured(0, 0, Total::Deleted(10)),
                measured(3, 5, Total::Deleted(12)),
                3,
                2,
            ),
            // Rows of a held key are neither waiting nor drained.
            (
                measured(5, 5, written(5, 0)),
                measured(2, 4, written(10, 3)),
                2,
                5,
            ),
            (
                measured(0, 0, Total::Deleted(10)),
                measured(all, 90_000, Total::Deleted(9)),
                90_000,
                0,
            ),
            (
                measured(all, 5_000, written(5_000, 0)),
                measured(all, 4_000, written(6_000, 100)),
                4_000,
                1_900,
            ),
        ] {
            let last = LastBacklog::default();
            last.set(first);
            last.set(second);
            let backlog = last.get();
            assert_eq!(
                (backlog.events, backlog.drained),
                (events, drained),
                "{second:?}"
            );
            assert_eq!(backlog.oldest_age, Some(Duration::from_millis(7)));
        }
    }

    /// A store with old rows, which fails every second measurement.
    struct Fake {
        old_rows: AtomicI64,
        measured: AtomicI64,
    }

    impl Maintained for Fake {
        const NAME: &'static str = "fake";

        async fn measure(&self) -> Result<Measured, sqlx::Error> {
            let waiting = self.measured.fetch_add(1, Ordering::Relaxed);
            match waiting % 2 {
                0 => Ok(Measured {
                    waiting,
                    ..Measured::default()
                }),
                _ => std::future::pending().await,
            }
        }

        async fn purge(&self, before_ms: i64) -> Result<bool, sqlx::Error> {
            assert!(before_ms <= now_ms() - 1_000, "the retention is kept");
            let before = self.old_rows.fetch_sub(PURGE_ROWS_MAX, Ordering::Relaxed);
            Ok(before > PURGE_ROWS_MAX)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_hangs_is_measured_and_purged_again() {
        let store = Arc::new(Fake {
            old_rows: AtomicI64::new(3 * PURGE_ROWS_MAX),
            measured: AtomicI64::new(0),
        });
        let last = Arc::new(LastBacklog::default());
        let stop = CancellationToken::new();
        let running = maintain(
            Arc::clone(&store),
            Arc::clone(&last),
            Duration::from_secs(1),
            stop.clone(),
        );
        let running = tokio::spawn(running);
        sleep(PURGE_INTERVAL + CALL_LIMIT).await;
        assert_eq!(store.old_rows.load(Ordering::Relaxed), 0);
        assert!(last.get().events >= 2, "{:?}", last.get());
        stop.cancel();
        running.await.expect("it ends");
    }
}
