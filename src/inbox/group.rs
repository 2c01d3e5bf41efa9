//! Group commit: deliveries that are ready together share one transaction, so that the disk is waited for once.
//!
//! A claim waits in a queue. As soon as a transaction may be opened it is opened for all that wait, and each handler has it in
//! turn, under a savepoint of its own: what fails is undone alone. When the last has had its turn the transaction is committed,
//! and only then are the completions answered; so nothing is called done that a crash could still undo. A claim that comes
//! alone has a transaction alone, at once.
//!
//! A delivery whose transaction another one was in the way of is no failure: its group ends early, commits what it has, and the
//! delivery is claimed again. Where that comes often, groups are open one at a time (`contention.rs`).
//!
//! Owns the order of events in a group. Knows no SQL: a store says how its transactions are begun and ended
//! ([`GroupStore`]).

mod batch;
mod books;
mod collision;
mod contention;
mod late;
mod lend;
mod queue;
#[cfg(test)]
mod tests;

pub(super) use collision::Cause;
pub(super) use contention::Level;
pub(super) use lend::Lent;
#[cfg(any(feature = "sqlite", test))]
pub(super) use queue::GROUP_MAX;

use super::{BoxFuture, CLAIMS_MAX, Claim, Claimed, InboxError, InboxKey, replies};
use crate::event::{ContentDigest, OutgoingRecord};
use books::{Answer, Asker, Books, Turn};
use collision::{Said, TransactionCollided};
use lend::{Completed, Loan, Recall, Returned, lend};
use queue::{Ended, Queue};
use std::any::Any;
use std::error::Error;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, Sleep, sleep};

/// How a store does what a group needs. Called by one group at a time for each open transaction, in the order given here.
pub(super) trait GroupStore: Send + Sync + 'static {
    /// An open transaction. Dropping it rolls it back.
    type Open: Send + 'static;

    /// What a handler names as its argument, made of an open transaction.
    fn to_handler(lent: Lent<Self::Open>) -> Box<dyn Any + Send>;

    /// What is known of a delivery; nothing of one that is claimed. Waits for nobody.
    fn look(&self, key: &InboxKey) -> impl Future<Output = Result<Known, InboxError>> + Send;

    /// Begins a transaction at this level, claims these keys in it, all different, and marks that place; says of each what the
    /// store knew. May wait for others who claimed one of them, but not for ever.
    fn begin(
        &self,
        keys: &[InboxKey],
        level: Level,
    ) -> impl Future<Output = Result<(Self::Open, Vec<Known>), InboxError>> + Send;

    /// Keeps what was written since the last mark, and marks this place: what is written from here on can be undone alone.
    fn mark(&self, open: &mut Self::Open) -> impl Future<Output = Result<(), InboxError>> + Send;

    /// Keeps what a completed delivery published; answers with what its caller has to publish.
    fn keep(
        &self,
        open: &mut Self::Open,
        key: &InboxKey,
        published: Vec<OutgoingRecord>,
    ) -> impl Future<Output = Completed> + Send;

    /// Undoes what was written since the last mark, and this claim with it.
    fn undo(
        &self,
        open: &mut Self::Open,
        key: &InboxKey,
    ) -> impl Future<Output = Result<(), InboxError>> + Send;

    /// Takes these claims back, and nothing of what was written.
    fn forget(
        &self,
        open: &mut Self::Open,
        keys: &[InboxKey],
    ) -> impl Future<Output = Result<(), InboxError>> + Send;

    /// Keeps what was written since the last mark, and makes the transaction ready to be committed.
    fn close(&self, open: &mut Self::Open) -> impl Future<Output = Result<(), InboxError>> + Send;

    /// Commits a transaction that is closed.
    fn commit(&self, open: Self::Open) -> impl Future<Output = Result<(), InboxError>> + Send;

    /// Whether the store answers at all: asked while a handler has had a transaction for [`RECALL_AFTER`], as its own statements
    /// may never be answered. An error says that it does not.
    fn check(&self) -> impl Future<Output = Result<(), InboxError>> + Send;

    /// Whether the last that was heard of the store is that it answers nobody.
    fn is_silent(&self) -> bool;

    /// Ends a transaction that has nothing to commit.
    fn roll_back(&self, open: Self::Open) -> impl Future<Output = Result<(), InboxError>> + Send;

    /// Whether an error says that another transaction was in the way, and how. `open` is the transaction in which a handler met
    /// it; without one it is an error of this store.
    fn cause(open: Option<&Self::Open>, error: &(dyn Error + 'static)) -> Option<Cause>;
}

/// How long a handler has a transaction before the store is asked whether it answers, and again after as long.
const RECALL_AFTER: Duration = Duration::from_secs(3);

/// How the writing of one claim ends.
#[derive(Clone, Copy)]
enum Next {
    /// With the turn of another.
    Turn,
    /// With the commit.
    Commit,
}

/// What a store knew of a key when it was claimed.
pub(super) enum Known {
    /// Nothing: a claim has it now.
    Nothing,
    /// It was completed, with this left to publish; it cannot be read where somebody else wrote it.
    Completed(Result<Vec<OutgoingRecord>, InboxError>),
}

/// The row of a completed delivery.
#[derive(Clone)]
pub(super) struct CompletedRow {
    /// What it left to publish, as it is stored.
    pub(super) replies: Vec<u8>,
    /// What its event said, as it is stored.
    pub(super) content: Option<Vec<u8>>,
}

impl Known {
    /// What a row says of `key`.
    pub(super) fn of(key: &InboxKey, row: Option<CompletedRow>) -> Self {
        let Some(row) = row else {
            return Self::Nothing;
        };
        let content = row.content.as_deref().and_then(ContentDigest::from_bytes);
        Self::Completed(match key.is_reused(content) {
            true => Err(InboxError::Reused),
            false => replies::decode(&row.replies),
        })
    }

    /// The same of several, in their order.
    pub(super) fn of_all(keys: &[InboxKey], rows: Vec<Option<CompletedRow>>) -> Vec<Self> {
        let of_each = keys.iter().zip(rows);
        of_each.map(|(key, row)| Self::of(key, row)).collect()
    }
}

/// The claims of one store.
pub(super) struct Groups<S: GroupStore> {
    store: S,
    said: Said,
    queue: Mutex<Queue<oneshot::Sender<Answer<S::Open>>>>,
    /// As many as transactions may be open: batches take theirs beside the queue.
    places: Arc<Semaphore>,
}

impl<S: GroupStore> Groups<S> {
    /// Claims on `store`, in at most `open_max` transactions at a time, of `size_max` claims at most.
    pub(super) fn new(store: S, open_max: u32, size_max: u32) -> Arc<Self> {
        Arc::new(Self {
            store,
            said: Said::default(),
            queue: Mutex::new(Queue::new(
                open_max,
                size_max.min(CLAIMS_MAX),
                Instant::now(),
            )),
            places: Arc::new(Semaphore::new(open_max.max(1) as usize)),
        })
    }

    /// The store.
    pub(super) fn store(&self) -> &S {
        &self.store
    }

    /// Claims a delivery, together with those that wait as it does.
    pub(super) async fn claim(self: &Arc<Self>, key: InboxKey) -> Result<Claimed, InboxError> {
        let (asker, answered) = oneshot::channel();
        self.lock().push(key, asker);
        self.open();
        // Without an answer the runtime ends.
        match answered.await.unwrap_or_else(|_| Err(closing()))? {
            Turn::Fresh(loan) => Ok(Claimed::Fresh(Box::new(GroupClaim::<S> { loan }))),
            Turn::Duplicate(unsent) => Ok(Claimed::Duplicate { unsent }),
        }
    }

    /// Opens a transaction for what waits, if one may be opened now.
    fn open(self: &Arc<Self>) {
        if let Some(group) = Group::next(self) {
            tokio::spawn(group.run());
        }
    }

    /// A transaction of these claims, opened at `level`, collided with another one.
    fn collided(&self, keys: &[InboxKey], level: Level, cause: Cause) {
        let hold = self.lock().collided(level, cause.cost(), Instant::now());
        let collided = TransactionCollided {
            group: keys.first().map_or("", |key| &key.group),
            cause,
            level,
            hold,
        };
        collided.tell(&self.said);
    }

    fn lock(&self) -> MutexGuard<'_, Queue<oneshot::Sender<Answer<S::Open>>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Claims that share a transaction. Dropped, its keys are free to be claimed again, and the next group is opened.
struct Group<S: GroupStore> {
    groups: Arc<Groups<S>>,
    keys: Vec<InboxKey>,
    level: Level,
    books: Books<S::Open>,
    ended: Ended,
}

impl<S: GroupStore> Group<S> {
    fn next(groups: &Arc<Groups<S>>) -> Option<Self> {
        let (claims, level) = groups.lock().open(Instant::now());
        if claims.is_empty() {
            return None;
        }
        let (keys, waiting): (Vec<_>, Vec<_>) = claims.into_iter().unzip();
        Some(Self {
            groups: Arc::clone(groups),
            keys,
            level,
            books: Books::new(waiting),
            ended: Ended::Lost,
        })
    }

    async fn run(mut self) {
        let places = Arc::clone(&self.groups.places);
        let _place = places.acquire().await;
        match self.begin().await {
            Ok(ended) => {
                self.ended = ended;
                self.books.committed();
            }
            Err(error) => {
                if let Some(cause) = S::cause(None, &error) {
                    self.groups.collided(&self.keys, self.level, cause);
                    self.ended = Ended::Collided;
                } else if matches!(error, InboxError::Other(_)) {
                    self.ended = Ended::Refused;
                }
                if self.groups.store.is_silent() {
                    self.fail_waiting(&error);
                }
                self.books.lost(error);
            }
        }
    }

    /// The store answers nobody: those that wait for a transaction need not find out one after the other.
    fn fail_waiting(&self, error: &InboxError) {
        let waiting = self.groups.lock().take_waiting();
        for asker in waiting {
            let _ = asker.send(Err(InboxError::Unavailable(error.to_string().into())));
        }
    }

    /// Claims, gives each its turn, and commits.
    async fn begin(&mut self) -> Result<Ended, InboxError> {
        let groups = Arc::clone(&self.groups);
        let store = &groups.store;
        let (mut open, known) = store.begin(&self.keys, self.level).await?;
        // How long others were waited for before says nothing of how large a group may be.
        let began = Instant::now();
        let (back, ended) = self.take_turns(open, known).await?;
        open = back;
        if !self.books.is_empty() {
            self.keep_last(&mut open, Next::Commit).await?;
        }
        // The last may have been undone.
        match self.books.is_empty() {
            true => store.roll_back(open).await?,
            false => store.commit(open).await?,
        }
        Ok(ended.unwrap_or_else(|| Ended::After(began.elapsed())))
    }

    /// Gives each its turn, until one collides with another transaction. Says then how the group ended.
    async fn take_turns(
        &mut self,
        mut open: S::Open,
        known: Vec<Known>,
    ) -> Result<(S::Open, Option<Ended>), InboxError> {
        let groups = Arc::clone(&self.groups);
        let store = &groups.store;
        let mut is_marked = true;
        let mut patience = pin!(sleep(RECALL_AFTER));
        let mut known = known.into_iter().enumerate();
        while let Some((place, known_of)) = known.next() {
            let is_turn = matches!(known_of, Known::Nothing);
            // A store marks when it begins. What undoes a claim is marked as well, or it would be undone with the next.
            if is_turn && !std::mem::take(&mut is_marked) {
                self.keep_last(&mut open, Next::Turn).await?;
            }
            let Some(asker) = self.books.waiting.pop() else {
                break;
            };
            if let Known::Completed(unsent) = known_of {
                // Whoever asked may have given up.
                let _ = asker.send(unsent.map(Turn::Duplicate));
                continue;
            }
            let (loan, returned) = lend(open);
            let recall = loan.recall();
            // A loan that nobody takes comes back at once.
            let _ = asker.send(Ok(Turn::Fresh(loan)));
            open = match recalled(store, returned, &recall, patience.as_mut()).await? {
                Returned::Abandoned(mut open) => {
                    store.undo(&mut open, &self.keys[place]).await?;
                    open
                }
                Returned::Collided(mut open, cause) => {
                    store.undo(&mut open, &self.keys[place]).await?;
                    groups.collided(&self.keys[place..=place], self.level, cause);
                    groups.lock().suspect(self.keys[place].clone());
                    self.give_back(&mut open, known).await?;
                    return Ok((open, Some(Ended::Collided)));
                }
                Returned::Complete(mut open, published, answer) => {
                    let key = &self.keys[place];
                    match store.keep(&mut open, key, published).await {
                        Ok(unsent) => self.books.last = Some((place, (answer, unsent))),
                        Err(error) => {
                            // It may have been dropped meanwhile.
                            let _ = answer.send(Err(error));
                            store.undo(&mut open, key).await?;
                        }
                    }
                    open
                }
            };
        }
        Ok((open, None))
    }

    /// Takes back the claims of those that have had no turn: they wait for the next transaction.
    async fn give_back(
        &mut self,
        open: &mut S::Open,
        known: impl Iterator<Item = (usize, Known)>,
    ) -> Result<(), InboxError> {
        let (mut fresh, mut claims): (Vec<InboxKey>, Vec<Asker<S::Open>>) = Default::default();
        for ((place, known), asker) in known.zip(self.books.waiting.drain(..).rev()) {
            match known {
                Known::Completed(unsent) => {
                    let _ = asker.send(unsent.map(Turn::Duplicate));
                }
                Known::Nothing => {
                    fresh.push(self.keys[place].clone());
                    claims.push((self.keys[place].clone(), asker));
                }
            }
        }
        self.groups.lock().push_back_to_front(claims);
        match fresh.is_empty() || self.books.is_empty() {
            // With nothing to be committed everything is rolled back.
            true => Ok(()),
            false => self.groups.store.forget(open, &fresh).await,
        }
    }

    /// Keeps what the last turn wrote. Where that cannot be, because one of its statements failed and its handler went on, it
    /// alone is undone.
    async fn keep_last(&mut self, open: &mut S::Open, next: Next) -> Result<(), InboxError> {
        let groups = Arc::clone(&self.groups);
        let step = async |open: &mut S::Open| match next {
            Next::Turn => groups.store.mark(open).await,
            Next::Commit => groups.store.close(open).await,
        };
        let Err(error) = step(open).await else {
            self.books.last_is_kept();
            return Ok(());
        };
        if !matches!(error, InboxError::Transaction { .. }) {
            return Err(error);
        }
        let Some((place, completion)) = self.books.last.take() else {
            return Err(error);
        };
        if groups.store.undo(open, &self.keys[place]).await.is_err() {
            self.books.last = Some((place, completion));
            return Err(error);
        }
        let _ = completion.0.send(Err(error));
        step(open).await
    }
}

/// Waits until a transaction comes back, and recalls it where the store answers nobody any more. `patience` is that of a whole
/// group, so that a turn costs no timer.
async fn recalled<S: GroupStore>(
    store: &S,
    mut returned: oneshot::Receiver<Returned<S::Open>>,
    recall: &Recall,
    mut patience: Pin<&mut Sleep>,
) -> Result<Returned<S::Open>, InboxError> {
    loop {
        tokio::select! {
            biased;
            returned = &mut returned => return returned.map_err(|_| closing()),
            () = patience.as_mut() => {}
        }
        if let Err(error) = store.check().await {
            recall.now(error);
        }
        patience.as_mut().reset(Instant::now() + RECALL_AFTER);
    }
}

impl<S: GroupStore> Drop for Group<S> {
    fn drop(&mut self) {
        let now = Instant::now();
        self.groups
            .lock()
            .ended(&self.keys, self.ended, self.level, now);
        // When the runtime ends there is none to run the next.
        if tokio::runtime::Handle::try_current().is_ok() {
            self.groups.open();
        }
    }
}

/// A claim whose transaction others share.
struct GroupClaim<S: GroupStore> {
    loan: Loan<S::Open>,
}

impl<S: GroupStore> Claim for GroupClaim<S> {
    fn transaction(&mut self) -> Option<Box<dyn Any + Send>> {
        self.loan.to_handler().map(S::to_handler)
    }

    fn complete(
        self: Box<Self>,
        published: Vec<OutgoingRecord>,
    ) -> BoxFuture<'static, Result<Vec<OutgoingRecord>, InboxError>> {
        Box::pin(self.loan.complete(published))
    }

    fn poll_recalled(&mut self, cx: &mut Context<'_>) -> Poll<InboxError> {
        self.loan.poll_recalled(cx)
    }

    fn abandon(self: Box<Self>) -> BoxFuture<'static, Result<(), InboxError>> {
        // The group undoes it before the key can be claimed again.
        drop(self);
        Box::pin(std::future::ready(Ok(())))
    }

    fn fail(
        self: Box<Self>,
        error: &(dyn Error + Send + Sync + 'static),
    ) -> BoxFuture<'static, Result<bool, InboxError>> {
        let collided = self.loan.fail(|open| S::cause(Some(open), error));
        Box::pin(std::future::ready(Ok(collided)))
    }
}

/// The process ends, and with it what would have answered.
fn closing() -> InboxError {
    InboxError::Unavailable("the runtime of its connections is ending".into())
}
