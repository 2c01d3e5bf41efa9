//! The claims of one store, and the groups that share a transaction.
//!
//! Owns the tasks of groups, and with them the only code that begins, undoes and commits a shared
//! transaction. A group ends in every case with its drop, which frees its keys. Then its task runs
//! the next group, or the drop opens it if the task ends too: no path can leave claims waiting.
//!
//! Callers wait on oneshot channels. A caller that stops waiting drops its receiver or its claim;
//! the task finds the transaction returned as abandoned and continues with the next turn.

use super::claim_queue::{GroupEnd, Queue};
use super::collision::{Cause, CollisionLog, LevelChanged, TransactionCollided};
use super::contention::Level;
use super::pending_answers::{Answer, GroupClaimed, PendingAnswers, Waiter};
use super::store::{GroupStore, Known, RECALL_AFTER};
use super::transaction_handoff::{Handoff, Recall, Returned, hand_off, shutting_down, unavailable};
use crate::event::OutgoingRecord;
use crate::inbox::shared::sent_replies::{ForgetReplies, Sent};
use crate::inbox::{BoxFuture, CLAIMS_MAX, Claim, Claimed, InboxError, InboxKey};
use std::any::Any;
use std::error::Error;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, Sleep, sleep, timeout};

/// A transaction that takes longer to begin may have a dead connection, so another one begins for
/// the claim that would wait for it.
const BEGIN_SOON: Duration = Duration::from_millis(50);

/// How the turn of one claim ends.
#[derive(Clone, Copy)]
enum NextStep {
    /// With the turn of another claim.
    Turn,
    /// With the commit.
    Commit,
}

/// The claims of one store.
pub(in crate::inbox) struct Groups<S: GroupStore> {
    pub(super) store: S,
    /// Bounds the log lines about collisions.
    collision_log: CollisionLog,
    /// The waiting claims. Locked for single steps, never over an await.
    queue: Mutex<Queue<oneshot::Sender<Answer<S::Open>>>>,
    /// One permit for each transaction that may be open: batches take theirs beside the queue.
    pub(super) permits: Arc<Semaphore>,
}

impl<S: GroupStore> Groups<S> {
    /// Creates the claims on `store`, with at most `open_max` transactions at a time, each with at
    /// most `size_max` claims.
    pub(in crate::inbox) fn new(store: S, open_max: u32, size_max: u32) -> Arc<Self> {
        Arc::new(Self {
            store,
            collision_log: CollisionLog::default(),
            queue: Mutex::new(Queue::new(
                open_max,
                size_max.min(CLAIMS_MAX),
                Instant::now(),
            )),
            permits: Arc::new(Semaphore::new(open_max.max(1) as usize)),
        })
    }

    /// The store.
    pub(in crate::inbox) fn store(&self) -> &S {
        &self.store
    }

    /// Claims a delivery, together with other waiting deliveries.
    pub(in crate::inbox) async fn claim(
        self: &Arc<Self>,
        key: InboxKey,
    ) -> Result<Claimed, InboxError> {
        let (waiter, answered) = oneshot::channel();
        self.lock().push(key, waiter);
        self.open();
        // No answer arrives when the runtime shuts down.
        match answered.await.unwrap_or_else(|_| Err(shutting_down()))? {
            GroupClaimed::Fresh(handoff) => {
                Ok(Claimed::Fresh(Box::new(GroupClaim::<S> { handoff })))
            }
            GroupClaimed::Duplicate(unsent) => Ok(Claimed::Duplicate { unsent }),
        }
    }

    /// Opens a transaction for the waiting claims, in a new task, if one may be opened now.
    fn open(self: &Arc<Self>) {
        if self.may_open() {
            tokio::spawn(run_groups(Arc::clone(self)));
        }
    }

    /// Whether the caller must run a group now. Asked after each new claim and at the end of each
    /// group, so claims wait only while no transaction may be opened.
    fn may_open(&self) -> bool {
        self.lock().may_open(Instant::now())
    }

    /// Records that a transaction of these claims, opened at `level`, collided with another one.
    pub(super) fn collided(&self, keys: &[InboxKey], level: Level, cause: Cause) {
        let hold = self.lock().collided(level, cause.cost(), Instant::now());
        let collided = TransactionCollided {
            group: keys.first().map_or("", |key| &key.group),
            cause,
            level,
            hold,
        };
        collided.report(&self.collision_log);
    }

    /// The queue. A panic of another thread does not poison it: every step leaves it consistent.
    pub(super) fn lock(&self) -> MutexGuard<'_, Queue<oneshot::Sender<Answer<S::Open>>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: GroupStore> ForgetReplies for Groups<S> {
    fn sent(&self) -> &Sent {
        self.store.sent()
    }

    async fn forget_replies(&self, keys: &[InboxKey]) -> Result<(), InboxError> {
        self.store.forget_replies(keys).await
    }
}

/// Runs a group, and those that may be opened at its end, one after the other in one task.
async fn run_groups<S: GroupStore>(groups: Arc<Groups<S>>) {
    loop {
        let mut group = Group::new(Arc::clone(&groups));
        group.run().await;
        group.opens_next = false;
        drop(group);
        if !groups.may_open() {
            return;
        }
    }
}

/// Claims that share a transaction. Dropping it frees its keys to be claimed again and, if its task
/// ends with it, opens the next group.
pub(super) struct Group<S: GroupStore> {
    groups: Arc<Groups<S>>,
    /// Whether it took its claims from the queue.
    has_taken: bool,
    /// Whether its transaction took longer than [`BEGIN_SOON`] to begin.
    is_slow: bool,
    /// The claimed keys, in the order of their turns.
    keys: Vec<InboxKey>,
    /// The level at which its claims were taken.
    level: Level,
    /// Whom to answer, with what.
    pending: PendingAnswers<S::Open>,
    /// How it ended. `Lost` until its task knows better, so that a panic counts as a loss.
    ended: GroupEnd,
    /// Whether its drop opens the next group: it was ended by a panic or a shutdown, and its task
    /// with it.
    opens_next: bool,
}

impl<S: GroupStore> Group<S> {
    /// A group that the queue allowed to open; it takes its claims once its transaction has begun.
    fn new(groups: Arc<Groups<S>>) -> Self {
        Self {
            groups,
            has_taken: false,
            is_slow: false,
            keys: Vec::new(),
            level: Level::Parallel,
            pending: PendingAnswers::new(Vec::new()),
            ended: GroupEnd::Lost,
            opens_next: true,
        }
    }

    /// Takes its claims from the queue, once its transaction has begun or has failed to. There may
    /// be none left.
    fn take_claims(&mut self, has_begun: bool) {
        let now = Instant::now();
        let (claims, level) = match self.is_slow {
            true => self.groups.lock().take_late(has_begun, now),
            false => self.groups.lock().take(now),
        };
        let (keys, waiting): (Vec<_>, Vec<_>) = claims.into_iter().unzip();
        self.has_taken = true;
        self.keys = keys;
        self.level = level;
        self.pending = PendingAnswers::new(waiting);
    }

    /// Runs the group to its end and answers its callers. Waits for a permit first, because batches
    /// open transactions beside the queue.
    async fn run(&mut self) {
        let permits = Arc::clone(&self.groups.permits);
        let _permit = permits.acquire().await;
        match self.run_transaction().await {
            Ok(ended) => {
                self.ended = ended;
                self.pending.committed();
            }
            Err(error) => {
                if let Some(cause) = S::cause(None, &error) {
                    self.groups.collided(&self.keys, self.level, cause);
                    self.ended = GroupEnd::Collided;
                } else if matches!(error, InboxError::Other(_) | InboxError::TryAgain(_)) {
                    self.ended = GroupEnd::Refused;
                }
                if self.groups.store.is_silent() {
                    self.fail_waiting(&error);
                }
                self.pending.fail_all(error);
            }
        }
    }

    /// Answers all waiting callers with an error, because the store no longer answers: they need
    /// not detect it one after the other.
    fn fail_waiting(&self, error: &InboxError) {
        let waiting = self.groups.lock().take_waiting();
        for waiter in waiting {
            let _ = waiter.send(Err(unavailable(error)));
        }
    }

    /// Begins the transaction, claims the keys, gives each claim its turn, and commits.
    async fn run_transaction(&mut self) -> Result<GroupEnd, InboxError> {
        let groups = Arc::clone(&self.groups);
        let store = &groups.store;
        let open = self.begin(store).await?;
        if self.keys.is_empty() {
            store.roll_back(open).await?;
            return Ok(GroupEnd::After(Duration::ZERO));
        }
        let (mut open, known) = store.claim(open, &self.keys, self.level).await?;
        // The time spent waiting for other transactions does not limit the size of a group.
        let began = Instant::now();
        let (back, ended) = self.take_turns(open, known).await?;
        open = back;
        if !self.pending.is_empty() {
            self.settle_last_turn(&mut open, NextStep::Commit).await?;
        }
        // The last turn may have been undone.
        match self.pending.is_empty() {
            true => store.roll_back(open).await?,
            false => store.commit(open).await?,
        }
        Ok(ended.unwrap_or_else(|| GroupEnd::After(began.elapsed())))
    }

    /// Begins the transaction, and takes the claims only then: those that arrived meanwhile need no
    /// transaction of their own. After [`BEGIN_SOON`], none waits for this one any more.
    async fn begin(&mut self, store: &S) -> Result<S::Open, InboxError> {
        let mut begin = pin!(store.begin());
        let begun = match timeout(BEGIN_SOON, begin.as_mut()).await {
            Ok(begun) => begun,
            Err(_) => {
                self.groups.lock().begins_slowly();
                self.is_slow = true;
                self.groups.open();
                begin.await
            }
        };
        self.take_claims(begun.is_ok());
        begun
    }

    /// Gives each claim its turn, until one collides with another transaction. Returns how the
    /// group ended.
    async fn take_turns(
        &mut self,
        mut open: S::Open,
        known: Vec<Known>,
    ) -> Result<(S::Open, Option<GroupEnd>), InboxError> {
        let groups = Arc::clone(&self.groups);
        let store = &groups.store;
        let mut is_first = true;
        let mut recall_timer = pin!(sleep(RECALL_AFTER));
        let mut known = known.into_iter().enumerate();
        while let Some((place, known_of)) = known.next() {
            let is_turn = matches!(known_of, Known::Nothing);
            // Also after a turn that was undone: the undoing of a claim must be kept as well.
            if is_turn && !std::mem::take(&mut is_first) {
                self.settle_last_turn(&mut open, NextStep::Turn).await?;
            }
            let Some(waiter) = self.pending.waiting.pop() else {
                break;
            };
            if let Known::Completed(unsent) = known_of {
                // The caller may have stopped waiting.
                let _ = waiter.send(unsent.map(GroupClaimed::Duplicate));
                continue;
            }
            let (handoff, returned) = hand_off(open);
            let recall = handoff.recall();
            // A transaction whose caller has gone returns at once.
            let _ = waiter.send(Ok(GroupClaimed::Fresh(handoff)));
            open = match recalled(store, returned, &recall, recall_timer.as_mut()).await? {
                Returned::Abandoned(mut open) => {
                    store.undo_turn(&mut open, &self.keys[place]).await?;
                    open
                }
                Returned::Collided(mut open, cause) => {
                    store.undo_turn(&mut open, &self.keys[place]).await?;
                    groups.collided(&self.keys[place..=place], self.level, cause);
                    groups.lock().mark_suspect(self.keys[place].clone());
                    self.return_unused_claims(&mut open, known).await?;
                    return Ok((open, Some(GroupEnd::Collided)));
                }
                Returned::Complete(mut open, published, answer) => {
                    let unsent = store.stage(&mut open, &self.keys[place], published);
                    self.pending.last = Some((place, (answer, unsent)));
                    open
                }
            };
        }
        Ok((open, None))
    }

    /// Releases the claims that had no turn: they wait for the next transaction.
    async fn return_unused_claims(
        &mut self,
        open: &mut S::Open,
        known: impl Iterator<Item = (usize, Known)>,
    ) -> Result<(), InboxError> {
        let (mut fresh, mut claims): (Vec<InboxKey>, Vec<Waiter<S::Open>>) = Default::default();
        for ((place, known), waiter) in known.zip(self.pending.waiting.drain(..).rev()) {
            match known {
                Known::Completed(unsent) => {
                    let _ = waiter.send(unsent.map(GroupClaimed::Duplicate));
                }
                Known::Nothing => {
                    fresh.push(self.keys[place].clone());
                    claims.push((self.keys[place].clone(), waiter));
                }
            }
        }
        self.groups.lock().push_back_to_front(claims);
        match fresh.is_empty() || self.pending.is_empty() {
            // With nothing to commit, everything is rolled back.
            true => Ok(()),
            false => self.groups.store.release_claims(open, &fresh).await,
        }
    }

    /// Keeps the writes of the last turn. If that is impossible, because a statement failed and the
    /// handler ignored it, only this turn is undone. Otherwise the transaction is not usable, and
    /// the group is lost.
    async fn settle_last_turn(
        &mut self,
        open: &mut S::Open,
        next: NextStep,
    ) -> Result<(), InboxError> {
        let groups = Arc::clone(&self.groups);
        let step = async |open: &mut S::Open| match next {
            NextStep::Turn => groups.store.keep_turn(open).await,
            NextStep::Commit => groups.store.prepare(open).await,
        };
        let Err(error) = step(open).await else {
            self.pending.confirm_last();
            return Ok(());
        };
        if !matches!(error, InboxError::Transaction { .. }) {
            return Err(error);
        }
        let Some((place, completion)) = self.pending.last.take() else {
            return Err(error);
        };
        let undone = groups.store.undo_turn(open, &self.keys[place]).await;
        if undone.is_err() {
            self.pending.last = Some((place, completion));
            return Err(error);
        }
        let _ = completion.0.send(Err(error));
        step(open).await
    }
}

/// Waits until a transaction returns, and recalls it if the store no longer answers. `recall_timer`
/// belongs to the whole group, so that a turn needs no timer.
pub(super) async fn recalled<S: GroupStore>(
    store: &S,
    mut returned: oneshot::Receiver<Returned<S::Open>>,
    recall: &Recall<S::Open>,
    mut recall_timer: Pin<&mut Sleep>,
) -> Result<Returned<S::Open>, InboxError> {
    loop {
        tokio::select! {
            biased;
            returned = &mut returned => return returned.map_err(|_| shutting_down()),
            () = recall_timer.as_mut() => {}
        }
        if let Err(error) = store.check().await {
            recall.now(error);
        }
        recall_timer.as_mut().reset(Instant::now() + RECALL_AFTER);
    }
}

/// Frees the keys of the group, adapts the size of the next one, and opens it unless the group's
/// task does.
impl<S: GroupStore> Drop for Group<S> {
    fn drop(&mut self) {
        if !self.has_taken {
            // A panic or a shutdown ended it before its transaction began. Its claims end with it:
            // the next group could end in the same way.
            self.take_claims(false);
        }
        let now = Instant::now();
        let mut queue = self.groups.lock();
        let hold = queue.ended(&self.keys, self.ended, self.level, now);
        drop(queue);
        if let Some(hold) = hold {
            let changed = LevelChanged {
                group: self.keys.first().map_or("", |key| &key.group),
                cause: Cause::LockWait,
                level: self.level,
                hold,
            };
            changed.report(&self.groups.collision_log);
        }
        // During shutdown no runtime is left to run the next group.
        if self.opens_next && tokio::runtime::Handle::try_current().is_ok() {
            self.groups.open();
        }
    }
}

/// A claim whose transaction others share. Every end of it, also a drop, returns the transaction to
/// the group's task, which does the rest.
struct GroupClaim<S: GroupStore> {
    handoff: Handoff<S::Open>,
}

impl<S: GroupStore> Claim for GroupClaim<S> {
    fn transaction(&mut self) -> Option<Box<dyn Any + Send>> {
        self.handoff.to_handler().map(S::to_handler)
    }

    fn complete(
        self: Box<Self>,
        published: Vec<OutgoingRecord>,
    ) -> BoxFuture<'static, Result<Vec<OutgoingRecord>, InboxError>> {
        Box::pin(self.handoff.complete(published))
    }

    fn poll_recalled(&mut self, cx: &mut Context<'_>) -> Poll<InboxError> {
        self.handoff.poll_recalled(cx)
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
        let collided = self.handoff.fail(|open| S::cause(Some(open), error));
        Box::pin(std::future::ready(Ok(collided)))
    }
}
