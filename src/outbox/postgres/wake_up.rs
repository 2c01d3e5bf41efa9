//! Telling and hearing of commits: NOTIFY after them, a few times a second at most, and LISTEN on a connection of its own.
//!
//! Owns that connection, which is none of the pool's: it is kept for as long as anybody waits, and a pool may have a single one.
//! Where it fails, for example behind a pooler that hands connections from one transaction to the next, relays still poll.

use futures_util::future::BoxFuture;
use sqlx::PgPool;
use sqlx::postgres::{PgListener, PgPoolOptions};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

/// The channel on which the relays of other processes are woken.
const CHANNEL: &str = "evenkeel_outbox";

/// Between two notifications at least. All that commits meanwhile shares one.
const NOTIFY_INTERVAL: Duration = Duration::from_millis(10);

/// How long after an event was written its transaction is looked for: most have committed by then, and relays find the others by
/// polling.
const COMMIT_WITHIN: Duration = Duration::from_millis(50);

/// Pause before the connection is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The listening connection, once there is one.
#[derive(Default)]
pub(super) struct WakeUp {
    listener: Mutex<Option<PgListener>>,
    /// One of those who wait listens, and tells the others.
    heard: Notify,
    telling: std::sync::Mutex<Telling>,
}

/// What there is to tell.
#[derive(Default)]
struct Telling {
    /// Commits may come until then.
    until: Option<Instant>,
    /// Somebody is about to notify.
    is_running: bool,
}

impl WakeUp {
    /// Something was committed.
    pub(super) fn tell(self: &Arc<Self>, pool: &PgPool) {
        self.heard.notify_waiters();
        self.notify(pool, Duration::ZERO);
    }

    /// Something was written, and is going to be committed.
    pub(super) fn expect(self: &Arc<Self>, pool: &PgPool) {
        self.notify(pool, COMMIT_WITHIN);
    }

    /// Notifies soon, and again until `within` from now.
    fn notify(self: &Arc<Self>, pool: &PgPool, within: Duration) {
        let mut telling = self.telling();
        telling.until = telling.until.max(Some(Instant::now() + within));
        if !std::mem::replace(&mut telling.is_running, true) {
            tokio::spawn(Arc::clone(self).notifying(pool.clone()));
        }
    }

    async fn notifying(self: Arc<Self>, pool: PgPool) {
        let mut pause = NOTIFY_INTERVAL;
        loop {
            tokio::time::sleep(pause).await;
            let until = self.telling().until;
            self.heard.notify_waiters();
            let notify = sqlx::query("SELECT pg_notify($1, '')").bind(CHANNEL);
            if let Err(error) = notify.execute(&pool).await {
                tracing::debug!(%error, "relays of other processes are not notified; they poll");
            }
            let mut telling = self.telling();
            pause = match telling.until == until {
                // Nothing has come meanwhile, so that there is less and less to expect.
                true => 2 * pause,
                false => NOTIFY_INTERVAL,
            };
            if until < Some(Instant::now()) && telling.until == until {
                telling.is_running = false;
                return;
            }
        }
    }

    fn telling(&self) -> std::sync::MutexGuard<'_, Telling> {
        self.telling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when something was committed from the call on, or may have been while nobody listened.
    pub(super) fn committed<'a>(&'a self, pool: &'a PgPool) -> BoxFuture<'a, ()> {
        let heard = self.heard.notified();
        Box::pin(async move {
            tokio::select! {
                () = heard => {}
                () = self.listen(pool) => self.heard.notify_waiters(),
            }
        })
    }

    async fn listen(&self, pool: &PgPool) {
        let mut listener = self.listener.lock().await;
        loop {
            let Some(listening) = listener.as_mut() else {
                match connect(pool).await {
                    Ok(fresh) => {
                        *listener = Some(fresh);
                        return;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "no notifications of the outbox; polling goes on");
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                }
            };
            match listening.try_recv().await {
                Ok(Some(_)) => {
                    // One look finds what all of them tell of.
                    while listening.next_buffered().is_some() {}
                    return;
                }
                // The connection was lost: what was told meanwhile was not heard.
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "no notifications of the outbox; polling goes on");
                    *listener = None;
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

/// A connection as the pool makes them, but beside it.
async fn connect(pool: &PgPool) -> Result<PgListener, sqlx::Error> {
    let own = PgPoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with((*pool.connect_options()).clone());
    let mut listener = PgListener::connect_with(&own).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}
