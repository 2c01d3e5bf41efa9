//! Forgets deliveries whose copies can come no more, so that the inbox of a service does not grow for ever.
//!
//! Owns when that happens and what is said of it. Knows neither the rows nor the end of the daemon: the inbox deletes, and
//! whoever runs this drops it.

use evenkeel::inbox::{InboxError, SqliteInbox};
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

/// How long a delivery is remembered by default: for longer than the 30 days of the shop's longest topic and two weeks in
/// which a dead letter is looked at and replayed. The dead-letter topics themselves keep their records for good.
pub const RETENTION_DEFAULT: Duration = Duration::from_hours(45 * 24);

/// The first purge comes at a random moment within this, so that instances that start together take turns.
const FIRST_WITHIN: Duration = Duration::from_secs(10);
/// The time from one purge to the next.
const INTERVAL: Duration = Duration::from_hours(1);
/// Rows to a transaction: a claim waits for one of these at most.
const BATCH: u32 = 200;

/// Forgets what was handled longer than `retention` ago, shortly after the start and then every hour, until it is dropped.
///
/// A purge that fails, as when another process keeps the store locked, is logged, and the next comes as if it had not. A run
/// of a few seconds may end before its first.
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
            Ok(rows) => tracing::info!(rows, "old deliveries forgotten"),
            Err(error) => {
                tracing::warn!(%error, "old deliveries are not forgotten; the next try is in an hour");
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
    async fn a_purge_comes_after_the_start_and_every_hour_also_after_one_that_failed() {
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
    fn a_delivery_is_remembered_for_longer_than_its_topic_and_its_dead_letter_can_bring_it_again() {
        let dead_letters = Duration::from_hours(14 * 24);
        for topic in shop_schemas::topics() {
            let kept = u64::try_from(topic.retention_ms).expect("no topic is kept for good");
            let kept = Duration::from_millis(kept) + dead_letters;
            assert!(RETENTION_DEFAULT > kept, "{}", topic.name);
        }
    }
}
