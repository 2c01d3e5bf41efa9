//! The connections to the server, and the transactions of groups on them.
//!
//! A transaction that is dropped is rolled back before its connection is used again, so
//! cancellation at any await undoes the group. A returned connection of evenkeel's own pool is used
//! again only if it answers and no transaction is open on it.
//!
//! Every call of the server has a time limit. The lock timeout is part of each transaction
//! (`lock_timeout` of PostgreSQL), so a wait for a lock ends on the server and leaves the
//! connection usable. The limit of the answer is the second line, for a server that does not answer
//! at all (`answers.rs`).

use super::answers::Answers;
use super::settings::PostgresSettings;
use super::statements::{self, Locking};
use super::transaction::{Open, PostgresTx, Turns};
use super::{error, tables};
use crate::durations::CALL_MAX;
use crate::event::OutgoingRecord;
use crate::inbox::group_commit::{Cause, GroupStore, HandedOut, Known, Level, of_outbox};
use crate::inbox::shared::purge_watermark::PurgeWatermark;
use crate::inbox::shared::sent_replies::Sent;
use crate::inbox::{InboxError, InboxKey};
use crate::outbox::{self, PostgresOutbox};
use crate::postgres::Database;
use sqlx::{Postgres, Transaction};
use std::any::Any;
use std::error::Error;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long handlers of a group wait for a lock beside other groups. Those groups commit within
/// little more. A transaction that waits longer probably blocks the one it waits for, which
/// PostgreSQL would detect only after a second (`deadlock_timeout`).
const SHORT_LOCK_TIMEOUT: Duration = Duration::from_millis(30);

/// How often to try a lock that must not be waited for.
const LOCK_INTERVAL: Duration = Duration::from_millis(5);

/// The connections, and the known state of the server.
pub(super) struct Store {
    pub(super) database: Database,
    /// Bounds the waits for the server.
    pub(super) answers: Answers,
    /// Host, port and database, without user and password.
    pub(super) name: String,
    /// How long to wait for a lock, in PostgreSQL's format.
    pub(super) lock_timeout: String,
    /// The same for handlers of concurrent groups.
    pub(super) short_lock_timeout: String,
    /// Whether transactions see data that others committed since they began.
    pub(super) sees_commits: AtomicBool,
    pub(super) outbox: OnceLock<PostgresOutbox>,
    pub(super) purge_watermark: PurgeWatermark,
    pub(super) sent: Sent,
}

impl Store {
    /// Derives the limits of time from the settings. Opens no connection.
    pub(super) fn new(database: Database, settings: &PostgresSettings) -> Self {
        let timeout = lock_timeout(settings);
        Self {
            name: database.name(),
            answers: Answers::new(database.clone(), timeout),
            database,
            lock_timeout: milliseconds(timeout),
            short_lock_timeout: milliseconds(timeout.min(SHORT_LOCK_TIMEOUT)),
            sees_commits: AtomicBool::new(true),
            outbox: OnceLock::new(),
            purge_watermark: PurgeWatermark::default(),
            sent: Sent::default(),
        }
    }

    /// Creates or upgrades the tables and learns the default isolation, in one transaction under
    /// the schema lock.
    pub(super) async fn migrate(&self, settings: &PostgresSettings) -> Result<(), InboxError> {
        let failed = |error| self.failed("open", error);
        let mut transaction = self.database.begin("").await.map_err(failed)?;
        let prepared = tables::migrate(&mut transaction, settings).await;
        prepared.map_err(|problem| match problem {
            tables::Problem::Foreign(reason) => InboxError::Foreign {
                path: self.name.clone(),
                reason,
            },
            tables::Problem::Postgres(error) => self.failed("prepare", error),
        })?;
        let sees_commits = statements::sees_commits(&mut transaction).await;
        self.sees_commits
            .store(sees_commits.map_err(failed)?, Ordering::Relaxed);
        transaction.commit().await.map_err(failed)
    }

    /// Waits for the lock of the keys' groups where the claim must not wait for it: a transaction
    /// that sees nothing committed after its first statement would collide with the transactions it
    /// waited for. It is begun again until the lock is free.
    async fn retry_until_lock_is_free(
        &self,
        mut transaction: Transaction<'static, Postgres>,
        keys: &[InboxKey],
        is_exclusive: bool,
    ) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        while !self.sees_commits.load(Ordering::Relaxed)
            && !statements::try_lock(&mut transaction, keys, is_exclusive).await?
        {
            transaction.rollback().await?;
            tokio::time::sleep(LOCK_INTERVAL).await;
            transaction = self.database.begin(statements::GUARD).await?;
        }
        Ok(transaction)
    }

    /// Claims keys in a transaction that has one turn for each of them, or one for all.
    async fn claim_keys(
        &self,
        open: Open,
        keys: &[InboxKey],
        level: Level,
        turns: Turns,
    ) -> Result<(Open, Vec<Known>), InboxError> {
        let failed = |error| self.failed("claim", error);
        let is_exclusive = level > Level::Parallel;
        let locking = Locking {
            is_exclusive,
            timeout: &self.lock_timeout,
            timeout_after: match is_exclusive {
                true => &self.lock_timeout,
                false => &self.short_lock_timeout,
            },
        };
        let begun = self.retry_until_lock_is_free(open.transaction, keys, is_exclusive);
        let mut transaction = begun.await.map_err(failed)?;
        let claimed = statements::claim(&mut transaction, keys, locking).await;
        let known = claimed.map_err(failed)?;
        let fresh = known.iter().filter(|row| row.is_none()).count();
        let is_single = fresh == 1 || turns == Turns::OneForAll;
        if fresh > 0 && !is_single {
            let set = statements::first_savepoint(&mut transaction).await;
            set.map_err(failed)?;
        }
        if self.purge_watermark.is_due() {
            let purged_before = statements::purged_before(&mut transaction).await;
            self.purge_watermark
                .reach(purged_before.map_err(failed)?.as_deref());
        }
        let mut open = Open::new(transaction);
        open.is_single = is_single;
        // A single delivery holds nothing while it waits for its first row.
        open.has_short_timeout = fresh > 1 && !is_exclusive;
        Ok((open, Known::of_all(keys, known)))
    }

    /// Writes the published events to the outbox, at the end of a transaction, and makes it ready
    /// to be committed. After the locks of the outbox's keys only the commit follows, so two groups
    /// that publish on the same keys cannot wait for each other, and one waits briefly.
    async fn write_outgoing(&self, open: &mut Open) -> Result<(), InboxError> {
        let is_shared = !open.is_single;
        let (transaction, staged) = (&mut open.transaction, &open.staged);
        let reset = self.database.reset();
        let ready = statements::prepare_last_write(transaction, reset, &self.lock_timeout).await;
        ready.map_err(|error| self.ended("publish", error, is_shared))?;
        let is_prepared = !self.database.is_pooled();
        let appended = outbox::postgres::append(transaction, staged.outgoing(), is_prepared).await;
        appended.map_err(|error| of_outbox(error, |error| self.ended("publish", error, is_shared)))
    }

    /// Writes the published events to the rows of the deliveries, at the end of a transaction, and
    /// makes it ready to be committed. If there is nothing to reset here, settings are reset when
    /// the connection is returned.
    async fn write_replies(&self, open: &mut Open) -> Result<(), InboxError> {
        let is_shared = !open.is_single;
        if !open.staged.replies().is_empty() {
            self.reset(open, "publish").await?;
            let (transaction, replies) = (&mut open.transaction, open.staged.replies());
            let stored = statements::store_replies(transaction, replies).await;
            stored.map_err(|error| self.ended("complete", error, is_shared))?;
        }
        let reset = self.database.reset_at_end();
        let closed = statements::release_savepoint(&mut open.transaction, reset).await;
        closed.map_err(|error| self.ended("complete", error, is_shared))
    }

    /// Resets the settings that a handler changed, if the store is configured to do so.
    async fn reset(&self, open: &mut Open, doing: &'static str) -> Result<(), InboxError> {
        let (timeout, is_shared) = (self.timeout_in(open), !open.is_single);
        let reset = statements::reset(&mut open.transaction, self.database.reset(), timeout).await;
        reset.map_err(|error| self.ended(doing, error, is_shared))
    }

    /// How long handlers of this transaction wait for a lock.
    fn timeout_in(&self, open: &Open) -> &str {
        match open.has_short_timeout {
            true => &self.short_lock_timeout,
            false => &self.lock_timeout,
        }
    }

    pub(super) fn failed(&self, doing: &'static str, error: sqlx::Error) -> InboxError {
        error::failed(&self.name, doing, error)
    }

    /// Maps an error of a transaction that its handler, or one of several, may have ended.
    fn ended(&self, doing: &'static str, error: sqlx::Error, is_shared: bool) -> InboxError {
        error::misuse(&error, is_shared).unwrap_or_else(|| self.failed(doing, error))
    }
}

/// How long to wait for a lock. PostgreSQL counts it in milliseconds of 31 bits, as librdkafka
/// does.
pub(super) fn lock_timeout(settings: &PostgresSettings) -> Duration {
    settings.lock_timeout.min(CALL_MAX)
}

fn milliseconds(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

impl GroupStore for Store {
    type Open = Open;

    /// The savepoint was set at the end of the turn before.
    fn to_handler(mut handed_out: HandedOut<Open>) -> Box<dyn Any + Send> {
        handed_out.is_used = true;
        Box::new(PostgresTx::new(handed_out))
    }

    async fn find(&self, key: &InboxKey) -> Result<Known, InboxError> {
        let work = async {
            let failed = |error| self.failed("look up", error);
            let mut session = self.database.session().await.map_err(failed)?;
            let known = statements::find(&mut session, key).await;
            let known = known.map(|row| Known::of(key, row)).map_err(failed)?;
            session.done().await.map_err(failed)?;
            Ok(known)
        };
        self.answers.cancel_if_silent("look up", work).await
    }

    async fn begin(&self) -> Result<Open, InboxError> {
        let work = async {
            let begun = self.database.begin(statements::GUARD).await;
            begun
                .map(Open::new)
                .map_err(|error| self.failed("claim", error))
        };
        self.answers.cancel_if_silent("claim", work).await
    }

    async fn claim(
        &self,
        open: Open,
        keys: &[InboxKey],
        level: Level,
    ) -> Result<(Open, Vec<Known>), InboxError> {
        let work = self.claim_keys(open, keys, level, Turns::OneForEach);
        self.answers.cancel_if_silent("claim", work).await
    }

    async fn claim_batch(
        &self,
        open: Open,
        keys: &[InboxKey],
        level: Level,
    ) -> Result<(Open, Vec<Known>), InboxError> {
        let work = self.claim_keys(open, keys, level, Turns::OneForAll);
        self.answers.cancel_if_silent("claim", work).await
    }

    async fn keep_turn(&self, open: &mut Open) -> Result<(), InboxError> {
        if open.is_used {
            let work = async {
                let (timeout, is_shared) = (self.timeout_in(open), !open.is_single);
                let reset = self.database.reset();
                let set = statements::savepoint(&mut open.transaction, reset, timeout).await;
                set.map_err(|error| self.ended("complete", error, is_shared))
            };
            self.answers.cancel_if_silent("complete", work).await?;
        }
        open.is_used = false;
        open.staged.keep_turn();
        Ok(())
    }

    fn stage(
        &self,
        open: &mut Open,
        key: &InboxKey,
        published: Vec<OutgoingRecord>,
    ) -> Vec<OutgoingRecord> {
        if self.outbox.get().is_some() {
            open.staged.add_outgoing(published);
            return Vec::new();
        }
        open.staged.add_replies(key, &published);
        published
    }

    async fn undo_turn(&self, open: &mut Open, key: &InboxKey) -> Result<(), InboxError> {
        open.staged.undo_turn();
        if open.is_single {
            // The transaction has no other delivery: it is rolled back as a whole.
            return Ok(());
        }
        let is_used = std::mem::replace(&mut open.is_used, true);
        let work = async {
            let undone = match is_used {
                true => statements::undo_turn(&mut open.transaction, key).await,
                false => {
                    let key = std::slice::from_ref(key);
                    statements::release_claims(&mut open.transaction, key).await
                }
            };
            undone.map_err(|error| self.ended("abandon", error, true))?;
            let forgotten = open.forget_outdated_plans().await;
            forgotten.map_err(|error| self.failed("abandon", error))
        };
        self.answers.cancel_if_silent("abandon", work).await
    }

    async fn release_claims(&self, open: &mut Open, keys: &[InboxKey]) -> Result<(), InboxError> {
        let is_shared = !open.is_single;
        let work = async {
            self.reset(open, "complete").await?;
            let forgotten = statements::release_claims(&mut open.transaction, keys).await;
            forgotten.map_err(|error| self.ended("complete", error, is_shared))
        };
        self.answers.cancel_if_silent("complete", work).await
    }

    async fn prepare(&self, open: &mut Open) -> Result<(), InboxError> {
        let work = async {
            match open.staged.outgoing().is_empty() {
                true => self.write_replies(open).await,
                false => self.write_outgoing(open).await,
            }
        };
        self.answers.cancel_if_silent("complete", work).await
    }

    async fn commit(&self, open: Open) -> Result<(), InboxError> {
        let work = async {
            let committed = open.transaction.commit().await;
            committed.map_err(|error| self.failed("complete", error))?;
            let has_outgoing = !open.staged.outgoing().is_empty();
            if let Some(outbox) = self.outbox.get().filter(|_| has_outgoing) {
                outbox.wake();
            }
            Ok(())
        };
        self.answers.cancel_if_silent("complete", work).await
    }

    async fn check(&self) -> Result<(), InboxError> {
        self.answers.check("a statement of a handler").await
    }

    fn is_silent(&self) -> bool {
        self.answers.is_silent()
    }

    fn sent(&self) -> &Sent {
        &self.sent
    }

    async fn forget_replies(&self, keys: &[InboxKey]) -> Result<(), InboxError> {
        let work = async {
            let failed = |error| self.failed("forget replies", error);
            let mut session = self.database.session().await.map_err(failed)?;
            let forgotten = statements::forget_replies(&mut session, keys).await;
            forgotten.map_err(failed)?;
            session.done().await.map_err(failed)
        };
        self.answers.cancel_if_silent("forget replies", work).await
    }

    async fn roll_back(&self, mut open: Open) -> Result<(), InboxError> {
        let work = async {
            let forgotten = open.forget_outdated_plans().await;
            forgotten.map_err(|error| self.failed("abandon", error))?;
            let rolled_back = open.transaction.rollback().await;
            rolled_back.map_err(|error| self.failed("abandon", error))
        };
        self.answers.cancel_if_silent("abandon", work).await
    }

    fn cause(open: Option<&Open>, error: &(dyn Error + 'static)) -> Option<Cause> {
        if let Some(open) = open
            && error::has_outdated_plan(error)
        {
            open.has_outdated_plan.store(true, Ordering::Relaxed);
        }
        error::cause(error, open.is_some_and(|open| open.has_short_timeout))
    }
}
