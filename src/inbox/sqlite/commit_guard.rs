//! Lets nobody but the store commit on the writing connection, and notices rollbacks.
//!
//! Owns the commit hook and the rollback hook of the connection. Knows no statement. SQLite calls
//! both hooks in the connection's thread, before it answers the statement that caused them.
//!
//! A handler can end its transaction by SQL, and SQLite ends it by itself when the disk is full. If
//! the handler no longer waits for that statement, the end is noticed late. What is executed
//! meanwhile would be in a transaction of its own, or in none; because its commit is refused, it
//! leaves nothing.

use sqlx::SqliteConnection;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The state of the writing connection. Clones share it.
#[derive(Clone, Default)]
pub(super) struct CommitGuard(Arc<State>);

#[derive(Default)]
struct State {
    /// Whether the store commits its transaction now.
    may_commit: AtomicBool,
    /// Whether a transaction was rolled back since the store began its last one.
    is_rolled_back: AtomicBool,
}

impl CommitGuard {
    /// Sets the hooks of a new connection. SQLite turns a commit that the hook refuses into a
    /// rollback. A transaction that wrote nothing is committed without it, unless it began with a
    /// write lock.
    pub(super) async fn watch(self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let Self(commits) = self;
        let rollbacks = Arc::clone(&commits);
        let mut handle = connection.lock_handle().await?;
        handle.set_commit_hook(move || commits.may_commit.load(Ordering::Relaxed));
        handle.set_rollback_hook(move || rollbacks.is_rolled_back.store(true, Ordering::Relaxed));
        Ok(())
    }

    /// A transaction of the store has begun: all statements before it were answered.
    pub(super) fn begin(&self) {
        self.0.may_commit.store(false, Ordering::Relaxed);
        self.0.is_rolled_back.store(false, Ordering::Relaxed);
    }

    /// Whether no answered statement rolled the transaction back.
    pub(super) fn is_intact(&self) -> bool {
        !self.0.is_rolled_back.load(Ordering::Relaxed)
    }

    /// Allows the next commit: that of the store.
    pub(super) fn allow_commit(&self) {
        self.0.may_commit.store(true, Ordering::Relaxed);
    }
}
