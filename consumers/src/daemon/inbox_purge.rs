//! Deletes old inbox rows whose events cannot be redelivered any more, so that the inbox of a
//! service does not grow forever.
//!
//! Owns the schedule and the log messages. The inbox deletes the rows; the caller ends the task by
//! dropping it.

use evenkeel::inbox::{InboxError, SqliteInbox};
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

/// Default retention of inbox rows: longer than the 30 days of the shop's longest topic plus two
/// weeks for inspecting and replaying a dead letter. The dead-letter topics keep their records
/// forever.
pub const RETENTION_DEFAULT: Duration = Duration::from_hours(45 * 24);

/// The first purge runs at a random time within this duration, so that instances that start
/// together take turns.
const FIRST_WITHIN: Duration = Duration::from_secs(10);
/// Interval between purges.
const INTERVAL: Duration = Duration::from_hours(1);
/// Rows per transaction. A claim waits for at most one of these transactions.
const BATCH: u32 = 200;

/// Deletes rows that were handled longer than `retention` ago, shortly after the start and then
/// every hour, until the future is dropped.
///
/// A failed purge, for instance while another process locks the store, is logged; the next one runs
/// on schedule. A run of a few seconds may end before its first purge.
pub async fn hourly(inbox: &SqliteInbox, retention: Duration) -> Infallible {
    let first = FIRST_WITHIN.mul_f64(rand::random());
    repeat(first, async || inbox.purge(retention, BATCH).await).await
}

async fn repeat(
    first: Duration,
    mut purge: impl AsyncFnMut() -> Result<u64, InboxError>,
) -> Infallible {
    let mut due = tokio::time::interval_at(Instant::now() + first, INTERVAL);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        match purge().await {
            Ok(rows) => tracing::info!(rows, "old inbox rows deleted"),
            Err(error) => {
                tracing::warn!(%error, "cannot delete old inbox rows; retrying in an hour");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    fn locked() -> InboxError {
        InboxError::Unavailable("another process holds the write lock".into())
    }

    #[tokio::test(start_paused = true)]
    async fn purges_run_after_the_start_and_hourly_despite_failures() {
        let began = Instant::now();
        let mut purged_at = Vec::new();
        let purge = async || {
            purged_at.push(began.elapsed());
            match purged_at.len() {
                2 => Err(locked()),
                _ => Ok(7),
            }
        };
        let first = Duration::from_secs(3);
        let ended = timeout(INTERVAL * 3, repeat(first, purge)).await;
        assert!(ended.is_err(), "it goes on until it is dropped");
        assert_eq!(purged_at, [first, first + INTERVAL, first + INTERVAL * 2]);
    }

    #[test]
    fn inbox_retention_exceeds_topic_retention_plus_dead_letter_waits() {
        let dead_letters = Duration::from_hours(14 * 24);
        for topic in shop_schemas::topics() {
            let kept = u64::try_from(topic.retention_ms).expect("no topic is kept for good");
            let kept = Duration::from_millis(kept) + dead_letters;
            assert!(RETENTION_DEFAULT > kept, "{}", topic.name);
        }
    }
}
