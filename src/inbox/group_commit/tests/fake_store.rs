//! A store in memory, whose faults the tests switch on.

use super::super::{Cause, CompletedRow, GroupStore, HandedOut, Known, Level};
use crate::event::OutgoingRecord;
use crate::inbox::shared::sent_replies::Sent;
use crate::inbox::shared::staged_events::StagedEvents;
use crate::inbox::{InboxError, InboxKey};
use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// How long a transaction on a dead connection waits for its begin, which then fails.
pub(super) const DEAD_FOR: Duration = Duration::from_secs(5);

/// A store that keeps committed deliveries in memory.
pub(super) struct FakeStore {
    pub(super) committed: Mutex<HashSet<InboxKey>>,
    /// The events left to publish of committed deliveries, encoded.
    replies: Mutex<HashMap<InboxKey, Vec<u8>>>,
    pub(super) transactions: AtomicUsize,
    /// The tasks that began transactions.
    pub(super) tasks: Mutex<HashSet<tokio::task::Id>>,
    /// Transactions may begin while there are permits.
    pub(super) begins: Semaphore,
    /// The next transaction has a dead connection.
    pub(super) is_dead_at_begin: AtomicBool,
    /// Claims are answered while there are permits, one for each transaction.
    pub(super) gate: Semaphore,
    pub(super) fails_to_commit: AtomicBool,
    /// The next commit is refused because of the written data.
    pub(super) refuses_to_commit: AtomicBool,
    /// The next transaction was rolled back by one of its handlers, and which one is not known.
    pub(super) is_rolled_back: AtomicBool,
    /// The level of each transaction.
    pub(super) levels: Mutex<Vec<Level>>,
    pub(super) is_silent: AtomicBool,
    pub(super) sent: Sent,
}

/// A handler's error when another transaction is in its way.
#[derive(Debug, thiserror::Error)]
#[error("a deadlock")]
pub(super) struct Deadlock;

#[derive(Default)]
pub(super) struct Open {
    pub(super) claims: HashSet<InboxKey>,
    /// The handler rolled it back.
    pub(super) is_ended: bool,
    staged: StagedEvents,
}

impl Default for FakeStore {
    fn default() -> Self {
        Self {
            committed: Mutex::default(),
            replies: Mutex::default(),
            transactions: AtomicUsize::new(0),
            tasks: Mutex::default(),
            begins: Semaphore::new(Semaphore::MAX_PERMITS),
            is_dead_at_begin: AtomicBool::new(false),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            fails_to_commit: AtomicBool::new(false),
            refuses_to_commit: AtomicBool::new(false),
            is_rolled_back: AtomicBool::new(false),
            levels: Mutex::default(),
            is_silent: AtomicBool::new(false),
            sent: Sent::default(),
        }
    }
}

pub(super) fn down() -> InboxError {
    InboxError::Unavailable("the store is down".into())
}

fn check_open(open: &Open) -> Result<(), InboxError> {
    match open.is_ended {
        true => Err(InboxError::Transaction {
            reason: "it has ended".to_owned(),
        }),
        false => Ok(()),
    }
}

impl FakeStore {
    fn known(&self, key: &InboxKey) -> Known {
        let (committed, replies) = (self.committed.lock().unwrap(), self.replies.lock().unwrap());
        let row = committed.get(key).map(|completed| CompletedRow {
            replies: replies.get(key).cloned().unwrap_or_default(),
            content: completed.content.map(|digest| digest.as_bytes().to_vec()),
        });
        Known::of(key, row)
    }
}

impl GroupStore for FakeStore {
    type Open = Open;

    fn to_handler(handed_out: HandedOut<Open>) -> Box<dyn Any + Send> {
        Box::new(handed_out)
    }

    async fn find(&self, key: &InboxKey) -> Result<Known, InboxError> {
        Ok(self.known(key))
    }

    async fn begin(&self) -> Result<Open, InboxError> {
        self.tasks.lock().unwrap().extend(tokio::task::try_id());
        if self.is_dead_at_begin.swap(false, Ordering::Relaxed) {
            tokio::time::sleep(DEAD_FOR).await;
            return Err(down());
        }
        self.begins.acquire().await.expect("never closed").forget();
        Ok(Open::default())
    }

    async fn claim(
        &self,
        open: Open,
        keys: &[InboxKey],
        level: Level,
    ) -> Result<(Open, Vec<Known>), InboxError> {
        self.gate.acquire().await.expect("never closed").forget();
        self.transactions.fetch_add(1, Ordering::Relaxed);
        let known = keys.iter().map(|key| self.known(key)).collect();
        let claims = keys.iter().cloned().collect();
        self.levels.lock().unwrap().push(level);
        Ok((Open { claims, ..open }, known))
    }

    async fn keep_turn(&self, open: &mut Open) -> Result<(), InboxError> {
        open.staged.keep_turn();
        check_open(open)
    }

    fn stage(
        &self,
        open: &mut Open,
        key: &InboxKey,
        published: Vec<OutgoingRecord>,
    ) -> Vec<OutgoingRecord> {
        open.staged.add_replies(key, &published);
        published
    }

    async fn undo_turn(&self, open: &mut Open, key: &InboxKey) -> Result<(), InboxError> {
        open.staged.undo_turn();
        open.claims.remove(key);
        check_open(open)
    }

    async fn release_claims(&self, open: &mut Open, keys: &[InboxKey]) -> Result<(), InboxError> {
        keys.iter().for_each(|key| {
            open.claims.remove(key);
        });
        check_open(open)
    }

    async fn prepare(&self, open: &mut Open) -> Result<(), InboxError> {
        if self.is_rolled_back.swap(false, Ordering::Relaxed) {
            return Err(InboxError::TryAgain("it was rolled back".into()));
        }
        check_open(open)
    }

    async fn check(&self) -> Result<(), InboxError> {
        match self.is_silent() {
            true => Err(down()),
            false => Ok(()),
        }
    }

    fn is_silent(&self) -> bool {
        self.is_silent.load(Ordering::Relaxed)
    }

    async fn commit(&self, open: Open) -> Result<(), InboxError> {
        if self.fails_to_commit.swap(false, Ordering::Relaxed) {
            return Err(down());
        }
        if self.refuses_to_commit.swap(false, Ordering::Relaxed) {
            return Err(InboxError::Other("a constraint".into()));
        }
        let staged = open.staged.replies().iter().cloned();
        self.replies.lock().unwrap().extend(staged);
        self.committed.lock().unwrap().extend(open.claims);
        Ok(())
    }

    fn sent(&self) -> &Sent {
        &self.sent
    }

    async fn forget_replies(&self, keys: &[InboxKey]) -> Result<(), InboxError> {
        let mut replies = self.replies.lock().unwrap();
        keys.iter().for_each(|key| {
            replies.remove(key);
        });
        Ok(())
    }

    async fn roll_back(&self, _: Open) -> Result<(), InboxError> {
        Ok(())
    }

    fn cause(_: Option<&Open>, error: &(dyn Error + 'static)) -> Option<Cause> {
        error.is::<Deadlock>().then_some(Cause::Deadlock)
    }
}
