//! Hearing of commits: LISTEN on a connection of its own.
//!
//! Owns that connection, which is none of the pool's: it is kept for as long as anybody waits, and a pool may have a single one.
//! Where it fails, for example behind a pooler that hands connections from one transaction to the next, relays still poll.

use super::append::CHANNEL;
use futures_util::future::BoxFuture;
use sqlx::PgPool;
use sqlx::postgres::{PgListener, PgPoolOptions};
use std::time::Duration;
use tokio::sync::{Mutex, Notify};

/// Pause before the connection is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The listening connection, once there is one.
#[derive(Default)]
pub(super) struct WakeUp {
    listener: Mutex<Option<PgListener>>,
    /// One of those who wait listens, and tells the others.
    heard: Notify,
}

impl WakeUp {
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
