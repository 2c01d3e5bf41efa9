use super::claim_queue::GROUP_MAX;
use super::store::RECALL_AFTER;
use super::transaction_handoff::Completed;
use super::*;
use crate::event::OutgoingRecord;
use crate::inbox::shared::sent_replies::Sent;
use crate::inbox::{BoxFuture, Claim, Claimed, InboxError, InboxKey, conformance};
use std::any::Any;
use std::collections::HashSet;
use std::error::Error;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};

/// A store that keeps committed deliveries in memory.
struct Fake {
    committed: Mutex<HashSet<InboxKey>>,
    transactions: AtomicUsize,
    /// Transactions may begin while there are permits.
    gate: Semaphore,
    fails_to_commit: AtomicBool,
    /// The next commit is refused because of the written data.
    refuses_to_commit: AtomicBool,
    /// The level of each transaction.
    levels: Mutex<Vec<Level>>,
    is_silent: AtomicBool,
    sent: Sent,
}

/// A handler's error when another transaction is in its way.
#[derive(Debug, thiserror::Error)]
#[error("a deadlock")]
struct Deadlock;

#[derive(Default)]
struct Open {
    kept: HashSet<InboxKey>,
    marks: usize,
    /// The handler rolled it back.
    is_over: bool,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            committed: Mutex::default(),
            transactions: AtomicUsize::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            fails_to_commit: AtomicBool::new(false),
            refuses_to_commit: AtomicBool::new(false),
            levels: Mutex::default(),
            is_silent: AtomicBool::new(false),
            sent: Sent::default(),
        }
    }
}

fn down() -> InboxError {
    InboxError::Unavailable("the store is down".into())
}

fn over(open: &Open) -> Result<(), InboxError> {
    match open.is_over {
        true => Err(InboxError::Transaction {
            reason: "it is over".to_owned(),
        }),
        false => Ok(()),
    }
}

fn known(committed: &HashSet<InboxKey>, key: &InboxKey) -> Known {
    let row = committed.get(key).map(|completed| CompletedRow {
        replies: Vec::new(),
        content: completed.content.map(|said| said.as_bytes().to_vec()),
    });
    Known::of(key, row)
}

impl GroupStore for Fake {
    type Open = Open;

    fn to_handler(handed_out: HandedOut<Open>) -> Box<dyn Any + Send> {
        Box::new(handed_out)
    }

    async fn find(&self, key: &InboxKey) -> Result<Known, InboxError> {
        Ok(known(&self.committed.lock().unwrap(), key))
    }

    async fn begin(
        &self,
        keys: &[InboxKey],
        level: Level,
    ) -> Result<(Open, Vec<Known>), InboxError> {
        self.gate.acquire().await.expect("never closed").forget();
        self.transactions.fetch_add(1, Ordering::Relaxed);
        let committed = self.committed.lock().unwrap();
        let known = keys.iter().map(|key| known(&committed, key)).collect();
        let kept = keys.iter().cloned().collect();
        self.levels.lock().unwrap().push(level);
        let open = Open {
            kept,
            ..Open::default()
        };
        Ok((open, known))
    }

    async fn savepoint(&self, open: &mut Open) -> Result<(), InboxError> {
        open.marks += 1;
        over(open)
    }

    async fn complete(&self, _: &mut Open, _: &InboxKey, _: Vec<OutgoingRecord>) -> Completed {
        Ok(Vec::new())
    }

    async fn rollback_to_savepoint(
        &self,
        open: &mut Open,
        key: &InboxKey,
    ) -> Result<(), InboxError> {
        open.kept.remove(key);
        over(open)
    }

    async fn release_claims(&self, open: &mut Open, keys: &[InboxKey]) -> Result<(), InboxError> {
        keys.iter().for_each(|key| {
            open.kept.remove(key);
        });
        over(open)
    }

    async fn prepare(&self, open: &mut Open) -> Result<(), InboxError> {
        over(open)
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
        self.committed.lock().unwrap().extend(open.kept);
        Ok(())
    }

    fn sent(&self) -> &Sent {
        &self.sent
    }

    async fn forget_replies(&self, _: &[InboxKey]) -> Result<(), InboxError> {
        Ok(())
    }

    async fn roll_back(&self, _: Open) -> Result<(), InboxError> {
        Ok(())
    }

    fn cause(_: Option<&Open>, error: &(dyn Error + 'static)) -> Option<Cause> {
        error.is::<Deadlock>().then_some(Cause::Deadlock)
    }
}

fn key(id: usize) -> InboxKey {
    InboxKey {
        group: "g".to_owned(),
        handler: "h".to_owned(),
        source: "/s".to_owned(),
        id: id.to_string(),
        content: None,
    }
}

/// Groups whose transactions begin when the test allows it, after they have grown to 16 claims.
async fn grown() -> Arc<Groups<Fake>> {
    let groups = Groups::new(Fake::default(), 1, GROUP_MAX);
    for id in 1000..1004 {
        let claims = (0..16).map(|n| deliver(&groups, id * 100 + n));
        futures_util::future::join_all(claims.collect::<Vec<_>>()).await;
    }
    let fake = groups.store();
    fake.gate.forget_permits(Semaphore::MAX_PERMITS);
    fake.transactions.store(0, Ordering::Relaxed);
    groups
}

async fn fresh(groups: &Arc<Groups<Fake>>, id: usize) -> Box<dyn Claim> {
    match groups
        .claim(key(id))
        .await
        .expect("the store answers the claim")
    {
        Claimed::Fresh(claim) => claim,
        Claimed::Duplicate { .. } => panic!("{id} is new"),
    }
}

async fn deliver(groups: &Arc<Groups<Fake>>, id: usize) -> Result<(), InboxError> {
    let claim = fresh(groups, id).await;
    claim.complete(Vec::new()).await.map(drop)
}

/// Runs `tasks` claims that wait behind one with a transaction of its own, and returns their
/// outcomes after they ran together.
async fn together<T: Send + 'static>(
    groups: &Arc<Groups<Fake>>,
    tasks: Vec<impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let first = groups.claim(key(0));
    let mut first = std::pin::pin!(first);
    assert!(futures_util::poll!(&mut first).is_pending());
    let tasks: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
    // On one thread: each of them has claimed before this continues.
    tokio::task::yield_now().await;
    groups.store().gate.add_permits(2);
    let Ok(Claimed::Fresh(claim)) = first.await else {
        panic!("the first is new");
    };
    drop(claim);
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(task.await.expect("no task panics"));
    }
    outcomes
}

fn committed(groups: &Groups<Fake>) -> HashSet<String> {
    let committed = groups.store().committed.lock().unwrap();
    let ids = committed.iter().map(|key| key.id.clone());
    ids.filter(|id| id.len() < 3).collect()
}

fn ids(ids: &[usize]) -> HashSet<String> {
    ids.iter().map(usize::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn a_silent_store_recalls_its_transaction_from_the_handler() {
    let groups = Groups::new(Fake::default(), 1, GROUP_MAX);
    let recalled = async |claim: &mut Box<dyn Claim>, within: Duration| {
        let recalled = std::future::poll_fn(|cx| claim.poll_recalled(cx));
        tokio::time::timeout(within, recalled).await
    };
    let mut claim = fresh(&groups, 1).await;
    let handed_out = claim.transaction();
    let minute = Duration::from_secs(60);
    assert!(recalled(&mut claim, minute).await.is_err(), "it answers");
    groups.store().is_silent.store(true, Ordering::Relaxed);
    let error = recalled(&mut claim, 2 * RECALL_AFTER).await;
    let error = error.expect("recalled");
    assert!(matches!(error, InboxError::Unavailable(_)), "{error}");
    drop((handed_out, claim));
    groups.store().is_silent.store(false, Ordering::Relaxed);
    deliver(&groups, 1).await.expect("as good as new");
}

#[tokio::test(start_paused = true)]
async fn a_silent_store_recalls_its_transaction_from_a_batch() {
    let groups = Groups::new(Fake::default(), 1, GROUP_MAX);
    let claimed = groups
        .claim_batch(&[key(1), key(2)])
        .await
        .expect("the store answers the claims");
    let mut claim = claimed.claim.expect("fresh");
    let _lent = claim.transaction();
    groups.store().is_silent.store(true, Ordering::Relaxed);
    let recalled = std::future::poll_fn(|cx| claim.poll_recalled(cx));
    let recalled = tokio::time::timeout(2 * RECALL_AFTER, recalled).await;
    assert!(recalled.is_ok());
}

#[tokio::test]
async fn a_silent_store_fails_all_waiting_claims() {
    let groups = Groups::new(Fake::default(), 1, GROUP_MAX);
    let first = fresh(&groups, 1).await;
    let waiting: Vec<_> = (2..5)
        .map(|id| {
            let groups = Arc::clone(&groups);
            tokio::spawn(async move { groups.claim(key(id)).await.map(drop) })
        })
        .collect();
    tokio::task::yield_now().await;
    let fake = groups.store();
    fake.is_silent.store(true, Ordering::Relaxed);
    fake.fails_to_commit.store(true, Ordering::Relaxed);
    assert!(first.complete(Vec::new()).await.is_err());
    for claim in waiting {
        let claimed = claim.await.expect("no panic");
        assert!(matches!(claimed, Err(InboxError::Unavailable(_))));
    }
    assert_eq!(fake.transactions.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn waiting_claims_share_a_commit_and_are_answered_after_it() {
    let groups = grown().await;
    let tasks = (1..=5).map(|id| {
        let groups = Arc::clone(&groups);
        async move {
            deliver(&groups, id).await.expect("committed");
            committed(&groups).len()
        }
    });
    let seen = together(&groups, tasks.collect()).await;
    assert_eq!(seen, [5; 5], "each was answered when all were committed");
    assert_eq!(groups.store().transactions.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_failed_claim_is_undone_alone() {
    let groups = grown().await;
    let tasks = (1..=6).map(|id| {
        let groups = Arc::clone(&groups);
        async move {
            let mut claim = fresh(&groups, id).await;
            let handed_out = claim.transaction();
            match id % 3 {
                0 => drop(claim),
                1 => claim.abandon().await.expect("given back"),
                _ => {
                    drop(handed_out);
                    return claim.complete(Vec::new()).await.map(drop);
                }
            }
            drop(handed_out);
            Ok(())
        }
    });
    let outcomes = together(&groups, tasks.collect()).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(committed(&groups), ids(&[2, 5]));
}

/// The transaction after it is of one claim.
#[tokio::test]
async fn a_failed_commit_completes_none_and_claims_are_retried_alone() {
    let groups = grown().await;
    groups
        .store()
        .fails_to_commit
        .store(true, Ordering::Relaxed);
    let tasks = (1..=3).map(|id| {
        let groups = Arc::clone(&groups);
        async move { deliver(&groups, id).await }
    });
    for outcome in together(&groups, tasks.collect()).await {
        let error = outcome.expect_err("not committed");
        assert!(matches!(error, InboxError::Unavailable(_)), "{error:?}");
        let message = error.to_string();
        assert_eq!(message, down().to_string());
    }
    assert_eq!(committed(&groups), ids(&[]));
    groups.store().gate.add_permits(3);
    let again = (1..=3).map(|id| deliver(&groups, id));
    let again = futures_util::future::join_all(again.collect::<Vec<_>>()).await;
    assert!(again.iter().all(Result::is_ok), "{again:?}");
    let transactions = groups.store().transactions.load(Ordering::Relaxed);
    assert_eq!(transactions, 2 + 2, "one of one, one of two");
}

/// The others of its group are retried.
#[tokio::test]
async fn only_the_claim_that_ended_the_transaction_fails() {
    let groups = grown().await;
    let tasks = (1..=4).map(|id| {
        let groups = Arc::clone(&groups);
        async move {
            let Claimed::Fresh(mut claim) = groups.claim(key(id)).await? else {
                panic!("{id} is new");
            };
            let handed_out = claim.transaction().expect("there");
            let mut handed_out = handed_out
                .downcast::<HandedOut<Open>>()
                .expect("of the store");
            handed_out.is_over |= id == 2;
            drop(handed_out);
            claim.complete(Vec::new()).await.map(drop)
        }
    });
    let outcomes = together(&groups, tasks.collect()).await;
    for (at, outcome) in outcomes.iter().enumerate() {
        let is_told = matches!(outcome, Err(InboxError::Transaction { .. }));
        let is_innocent = matches!(outcome, Err(InboxError::TryAgain(_)));
        assert!(if at == 1 { is_told } else { is_innocent }, "{outcomes:?}");
    }
    assert_eq!(committed(&groups), ids(&[]));
}

#[tokio::test]
async fn a_shared_refusal_fails_no_claim_until_it_is_alone() {
    let groups = grown().await;
    let refuses = &groups.store().refuses_to_commit;
    refuses.store(true, Ordering::Relaxed);
    let tasks = (1..=3).map(|id| {
        let groups = Arc::clone(&groups);
        async move { deliver(&groups, id).await }
    });
    for outcome in together(&groups, tasks.collect()).await {
        let error = outcome.expect_err("not committed");
        assert!(matches!(error, InboxError::TryAgain(_)), "{error:?}");
    }
    groups
        .store()
        .refuses_to_commit
        .store(true, Ordering::Relaxed);
    groups.store().gate.add_permits(1);
    let alone = deliver(&groups, 1).await.expect_err("refused");
    assert!(matches!(alone, InboxError::Other(_)), "{alone:?}");
}

#[tokio::test]
async fn a_collision_ends_the_group_and_is_retried_last() {
    let groups = grown().await;
    let collided = Arc::new(AtomicBool::new(false));
    let tasks = (1..=6).map(|id| {
        let (groups, collided) = (Arc::clone(&groups), Arc::clone(&collided));
        async move {
            let claim = fresh(&groups, id).await;
            if id == 3 && !collided.swap(true, Ordering::Relaxed) {
                assert!(claim.fail(&Deadlock).await.expect("given back"));
                groups.store().gate.add_permits(2);
                return deliver(&groups, id).await;
            }
            claim.complete(Vec::new()).await.map(drop)
        }
    });
    let outcomes = together(&groups, tasks.collect()).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(committed(&groups), ids(&[1, 2, 3, 4, 5, 6]));
    let transactions = groups.store().transactions.load(Ordering::Relaxed);
    assert_eq!(transactions, 1 + 3, "1 and 2; 4 to 6; 3 alone");
}

#[tokio::test]
async fn a_failure_without_collision_is_undone_and_the_group_continues() {
    let groups = grown().await;
    let tasks = (1..=4).map(|id| {
        let groups = Arc::clone(&groups);
        async move {
            let claim = fresh(&groups, id).await;
            if id == 2 {
                assert!(!claim.fail(&std::fmt::Error).await.expect("given back"));
                return Ok(());
            }
            claim.complete(Vec::new()).await.map(drop)
        }
    });
    let outcomes = together(&groups, tasks.collect()).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(committed(&groups), ids(&[1, 3, 4]));
    assert_eq!(groups.store().transactions.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn batches_that_collide_leave_one_transaction_at_a_time() {
    let groups = Groups::new(Fake::default(), 4, GROUP_MAX);
    for expected in [Level::Parallel, Level::Exclusive, Level::Single] {
        let batch = groups.claim_batch(&[key(1), key(2)]).await;
        let claim = batch.expect("claimed").claim.expect("fresh");
        assert!(claim.fail(&Deadlock).await.expect("given back"));
        let level = groups.store().levels.lock().unwrap().pop();
        assert_eq!(level, Some(expected));
    }
}

#[tokio::test]
async fn a_claim_without_a_waiting_caller_is_skipped() {
    let groups = grown().await;
    let tasks = (1..=3).map(|id| {
        let groups = Arc::clone(&groups);
        async move {
            let delivery = deliver(&groups, id);
            if id == 2 {
                let _ = futures_util::poll!(std::pin::pin!(delivery));
            } else {
                delivery.await.expect("committed");
            }
        }
    });
    together(&groups, tasks.collect()).await;
    assert_eq!(committed(&groups), ids(&[1, 3]));
}

#[tokio::test]
async fn a_transaction_kept_by_a_handler_commits_nothing_of_it() {
    let groups = grown().await;
    let (keep, kept) = oneshot::channel();
    let keep = Mutex::new(Some(keep));
    let tasks: Vec<BoxFuture<'static, Result<(), InboxError>>> = vec![
        {
            let groups = Arc::clone(&groups);
            let keep = keep.lock().unwrap().take().expect("once");
            Box::pin(async move {
                let mut claim = fresh(&groups, 1).await;
                assert!(keep.send(claim.transaction()).is_ok());
                claim.complete(Vec::new()).await.map(drop)
            })
        },
        {
            let groups = Arc::clone(&groups);
            Box::pin(async move { deliver(&groups, 2).await })
        },
        Box::pin(async move {
            let kept = kept.await.expect("sent");
            tokio::task::yield_now().await;
            drop(kept);
            Ok(())
        }),
    ];
    let outcomes = together(&groups, tasks).await;
    let error = outcomes[0].as_ref().expect_err("the handler kept it");
    assert!(error.to_string().contains("still holds it"), "{error}");
    assert!(outcomes[1].is_ok());
    assert_eq!(committed(&groups), ids(&[2]));
}

#[tokio::test]
async fn a_batch_uses_one_of_the_open_transactions() {
    let groups = Groups::new(Fake::default(), 1, GROUP_MAX);
    let batch = groups.claim_batch(&[key(1), key(2)]).await;
    let batch = batch.expect("claimed");
    let mut other = std::pin::pin!(groups.claim(key(3)));
    assert!(futures_util::poll!(&mut other).is_pending());
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    let transactions = || groups.store().transactions.load(Ordering::Relaxed);
    assert_eq!(transactions(), 1, "the other waits");
    drop(batch);
    assert!(matches!(other.await, Ok(Claimed::Fresh(_))));
    assert_eq!(transactions(), 2);
}

#[tokio::test]
async fn a_group_keeps_the_contract() {
    conformance::check(
        Arc::new(FakeInbox(Groups::new(Fake::default(), 3, GROUP_MAX))),
        None,
    )
    .await;
}

/// Tests the contract of claims, without that of transactions.
struct FakeInbox(Arc<Groups<Fake>>);

struct Plain(Box<dyn Claim>);

impl crate::inbox::Inbox for FakeInbox {
    fn claim<'a>(&'a self, key: &'a InboxKey) -> BoxFuture<'a, Result<Claimed, InboxError>> {
        Box::pin(async move {
            Ok(match self.0.claim(key.clone()).await? {
                Claimed::Fresh(claim) => Claimed::Fresh(Box::new(Plain(claim))),
                duplicate => duplicate,
            })
        })
    }

    fn sent(&self, _: &InboxKey) {}
}

impl Claim for Plain {
    fn transaction(&mut self) -> Option<Box<dyn Any + Send>> {
        None
    }

    fn complete(self: Box<Self>, published: Vec<OutgoingRecord>) -> BoxFuture<'static, Completed> {
        self.0.complete(published)
    }

    fn abandon(self: Box<Self>) -> BoxFuture<'static, Result<(), InboxError>> {
        self.0.abandon()
    }
}
