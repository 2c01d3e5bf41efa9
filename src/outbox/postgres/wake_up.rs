//! Notifies relays of commits, by NOTIFY after commits, and LISTEN on a connection of its own.
//!
//! Owns that connection, which is outside of the pool: it is kept as long as a relay waits, and a
//! pool may have a single connection. If it fails, for example behind a pooler that assigns
//! connections per transaction, relays still poll.
//!
//! Notifications are hints: a read of the table depends on none of them, and a lost notification
//! delays rows by one poll interval. Writers do not notify in their own transaction, because
//! PostgreSQL serialises the commits of notifying transactions; a task of the publishing process
//! notifies a moment later, and again until the commit is likely.

use crate::postgres::Database;
use futures_util::future::BoxFuture;
use sqlx::postgres::{PgListener, PgPoolOptions};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

/// The channel on which the relays of other processes are notified.
const CHANNEL: &str = "evenkeel_outbox";

const NOTIFY: &str = "NOTIFY evenkeel_outbox";

/// Minimum interval between two notifications. All commits of the interval share one.
const NOTIFY_INTERVAL: Duration = Duration::from_millis(10);

/// How long after an event was written notifications are sent for its commit. Most transactions
/// have committed by then; relays find the others by polling.
const EXPECTED_COMMIT_DELAY: Duration = Duration::from_millis(50);

/// Pause before the connection is opened again.
const RECONNECT_PAUSE: Duration = Duration::from_secs(5);

/// The listening connection, once there is one.
#[derive(Default)]
pub(super) struct WakeUp {
    listener: Mutex<Option<PgListener>>,
    /// One of the waiting relays listens, and notifies the others.
    notified: Notify,
    pending: std::sync::Mutex<PendingNotifications>,
}

/// Pending notifications. One task at most notifies; callers extend its time.
#[derive(Default)]
struct PendingNotifications {
    /// Commits are expected until then.
    until: Option<Instant>,
    /// A task is about to notify.
    is_running: bool,
}

impl WakeUp {
    /// Reports a commit.
    pub(super) fn notify_committed(self: &Arc<Self>, database: &Database) {
        self.notified.notify_waiters();
        self.notify(database, Duration::ZERO);
    }

    /// Reports a write whose commit will follow.
    pub(super) fn notify_written(self: &Arc<Self>, database: &Database) {
        self.notify(database, EXPECTED_COMMIT_DELAY);
    }

    /// Notifies soon, and repeatedly until `within` from now.
    fn notify(self: &Arc<Self>, database: &Database, within: Duration) {
        let mut pending = self.pending();
        pending.until = pending.until.max(Some(Instant::now() + within));
        if !std::mem::replace(&mut pending.is_running, true) {
            tokio::spawn(Arc::clone(self).send_notifications(database.clone()));
        }
    }

    /// Notifies until the expected commits are likely to have happened, less and less often.
    async fn send_notifications(self: Arc<Self>, database: Database) {
        let mut pause = NOTIFY_INTERVAL;
        loop {
            tokio::time::sleep(pause).await;
            let until = self.pending().until;
            self.notified.notify_waiters();
            // A statement that is not prepared is a single statement for a pooler too.
            let notify = sqlx::raw_sql(NOTIFY).execute(database.pool());
            if let Err(error) = notify.await {
                tracing::debug!(
                    %error,
                    "failed to notify the relays of other processes; they poll"
                );
            }
            let mut pending = self.pending();
            pause = match pending.until == until {
                // Nothing was reported meanwhile, so commits become less likely.
                true => 2 * pause,
                false => NOTIFY_INTERVAL,
            };
            if until < Some(Instant::now()) && pending.until == until {
                pending.is_running = false;
                return;
            }
        }
    }

    /// The pending notifications. Never locked over an await.
    fn pending(&self) -> std::sync::MutexGuard<'_, PendingNotifications> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns after a commit that follows the call, or after a period without a listener, in which
    /// one may have been missed.
    pub(super) fn committed<'a>(&'a self, database: &'a Database) -> BoxFuture<'a, ()> {
        let notified = self.notified.notified();
        Box::pin(async move {
            tokio::select! {
                () = notified => {}
                () = self.listen(database) => self.notified.notify_waiters(),
            }
        })
    }

    /// Waits for a notification of another process. Returns also after the connection was opened or
    /// lost, because a commit may have been missed meanwhile. One relay of the process listens; the
    /// others wait for the lock or to be notified by it. The connection is kept for the next call.
    async fn listen(&self, database: &Database) {
        if database.is_pooled() {
            // A pooler forwards no notifications: the relay polls.
            return std::future::pending().await;
        }
        let mut listener = self.listener.lock().await;
        loop {
            let Some(listening) = listener.as_mut() else {
                match connect(database).await {
                    Ok(fresh) => {
                        *listener = Some(fresh);
                        return;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "no notifications of the outbox; polling instead");
                        tokio::time::sleep(RECONNECT_PAUSE).await;
                        continue;
                    }
                }
            };
            match listening.try_recv().await {
                Ok(Some(_)) => {
                    // One read of the table covers all these notifications.
                    while listening.next_buffered().is_some() {}
                    return;
                }
                // The connection was lost, and notifications may have been missed.
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "no notifications of the outbox; polling instead");
                    *listener = None;
                    tokio::time::sleep(RECONNECT_PAUSE).await;
                }
            }
        }
    }
}

/// Opens a connection with the pool's options, outside of the pool.
async fn connect(database: &Database) -> Result<PgListener, sqlx::Error> {
    let own = PgPoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with((*database.options()).clone());
    let mut listener = PgListener::connect_with(&own).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}
