//! Whether the server answers.
//!
//! Owns the limits of the waits for it, and the check on a fresh connection. Knows no statement.

use super::error;
use crate::inbox::InboxError;
use crate::postgres::Database;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Minimum time to wait for an answer of the server, which may itself wait for a lock.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How long to wait for an answer before a fresh connection checks whether the server answers at
/// all, and the time limit of that check. A server that hangs is detected sooner than by waiting
/// for a lock.
const CHECK_AFTER: Duration = Duration::from_secs(2);

/// How long the result of that check is valid.
const CHECK_VALID_FOR: Duration = Duration::from_secs(1);

/// The waits for the answers of a server.
pub(super) struct Answers {
    database: Database,
    /// Host, port and database, without user and password.
    name: String,
    /// How long to wait for an answer.
    limit: Duration,
    /// The time and result of the last check whether the server answers.
    checked: Mutex<Option<(Instant, bool)>>,
    /// Whether the server failed to answer when it was last used.
    is_silent: AtomicBool,
}

impl Answers {
    /// For a server whose statements wait for locks at most this long. Opens no connection.
    pub(super) fn new(database: Database, lock_timeout: Duration) -> Self {
        Self {
            name: database.name(),
            database,
            limit: ANSWER_LIMIT.max(2 * lock_timeout),
            checked: Mutex::default(),
            is_silent: AtomicBool::new(false),
        }
    }

    /// Cancels `work` if the server does not answer: after a while, or as soon as it answers no
    /// other connection either. The connection of `work` is not used again: the system would wait
    /// for an answer on it for a quarter of an hour, or for ever.
    pub(super) async fn cancel_if_silent<T>(
        &self,
        doing: &'static str,
        work: impl Future<Output = Result<T, InboxError>>,
    ) -> Result<T, InboxError> {
        let mut work = pin!(work);
        let began = Instant::now();
        let until = async {
            while began.elapsed() < self.limit {
                tokio::time::sleep(CHECK_AFTER.min(self.limit)).await;
                if !self.answers().await {
                    self.is_silent.store(true, Ordering::Relaxed);
                    break;
                }
            }
        };
        tokio::select! {
            biased;
            done = work.as_mut() => {
                if done.is_ok() {
                    self.is_silent.store(false, Ordering::Relaxed);
                }
                done
            }
            () = until => Err(error::no_answer(&self.name, doing, began.elapsed())),
        }
    }

    /// Whether the server answers at all; a refusal is an answer. One check serves all callers.
    async fn answers(&self) -> bool {
        let mut checked = self.checked.lock().await;
        if let Some((at, answered)) = *checked
            && at.elapsed() < CHECK_VALID_FOR
        {
            return answered;
        }
        let answered = self.database.answers(CHECK_AFTER).await;
        *checked = Some((Instant::now(), answered));
        answered
    }

    /// Checks that the server answers at all, for a caller that waits for `doing`.
    ///
    /// # Errors
    /// [`InboxError::Unavailable`] if it does not.
    pub(super) async fn check(&self, doing: &'static str) -> Result<(), InboxError> {
        match self.answers().await {
            true => Ok(()),
            false => {
                self.is_silent.store(true, Ordering::Relaxed);
                Err(error::no_answer(&self.name, doing, CHECK_AFTER))
            }
        }
    }

    /// Whether the server failed to answer when it was last used.
    pub(super) fn is_silent(&self) -> bool {
        self.is_silent.load(Ordering::Relaxed)
    }
}
