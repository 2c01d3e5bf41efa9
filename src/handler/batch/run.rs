//! How batches run: one at a time for each handler, in a task of its own.
//!
//! Owns who is owed an answer. What is published leaves from the delivery that is answered, after the commit.

use super::claims::{self, Answered, Claims};
use super::queue::{Limits, Next, Queue, Waiting};
use super::{BatchOutcome, BatchSettings, Delivered};
use crate::durations::bounded;
use crate::event::OutgoingRecord;
use crate::handler::context::ContextSource;
use crate::handler::deadline::{limited, outside};
use crate::handler::extract::BatchFunction;
use crate::handler::recognition;
use crate::handler::router::routes::{is_success, store_error};
use crate::handler::{DeadReason, HandlerError, Outcome, Stage, panics};
use crate::inbox::{BoxFuture, InboxError, InboxKey};
use futures_util::FutureExt;
use futures_util::future::{Either, join_all, select};
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

type Handle<T> =
    dyn Fn(Vec<Delivered<T>>, ContextSource<'_>) -> BoxFuture<'static, BatchOutcome> + Send + Sync;

/// The deliveries of one batch handler.
pub(in crate::handler) struct Batcher<T> {
    handle: Box<Handle<T>>,
    /// Whether it is one transaction's.
    names_transaction: bool,
    settings: BatchSettings,
    queue: Mutex<Queue<Member<T>>>,
    /// Tells a batch that waits for others of one that came.
    came: Notify,
}

/// A delivery, and who waits for its answer.
struct Member<T> {
    delivered: Delivered<T>,
    asker: Asker,
}

/// Who waits for what becomes of a delivery. Where the batch's task panics outside of the handler's call, in the drop of an event
/// perhaps, all of them are told so.
struct Asker(Option<oneshot::Sender<Answer>>);

impl Asker {
    /// Whether nobody waits any more.
    fn is_gone(&self) -> bool {
        self.0.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Waits until nobody waits any more.
    async fn gone(&mut self) {
        if let Some(asker) = &mut self.0 {
            asker.closed().await;
        }
    }

    /// A delivery that nobody waits for any more comes again.
    fn answer(mut self, answered: impl Into<Answer>) {
        if let Some(asker) = self.0.take() {
            let _ = asker.send(answered.into());
        }
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        if let Some(asker) = self.0.take()
            && std::thread::panicking()
        {
            let error = HandlerError::transient("the batch panicked outside of its handler");
            let _ = asker.send(Outcome::Retry(error.at(Stage::Panic)).into());
        }
    }
}

/// What becomes of a delivery: its outcome once this is published.
pub(in crate::handler) struct Answer {
    pub(in crate::handler) outcome: Outcome,
    pub(in crate::handler) unsent: Vec<OutgoingRecord>,
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            unsent: Vec::new(),
        }
    }
}

impl<T: Send + 'static> Batcher<T> {
    pub(in crate::handler) fn new<Args, F: BatchFunction<T, Args>>(
        settings: BatchSettings,
        function: F,
    ) -> Arc<Self> {
        Arc::new(Self {
            handle: Box::new(move |events, source| Box::pin(function.call(events, &source))),
            names_transaction: F::needs().names_transaction(),
            settings,
            queue: Mutex::new(Queue::new()),
            came: Notify::new(),
        })
    }

    /// Hands a delivery to the next batch, and waits for what becomes of it. Whoever waits no longer is in no batch that has not
    /// begun, and is not answered by one that has.
    pub(in crate::handler) async fn deliver(self: Arc<Self>, delivered: Delivered<T>) -> Answer {
        let Delivered { event, context } = &delivered;
        let attributes = &event.attributes;
        let key = context
            .inbox()
            .map(|_| context.inbox_key(attributes.source.clone(), attributes.id.clone()));
        let (asker, answered) = oneshot::channel();
        self.lock().push(Waiting {
            key,
            attempt: context.attempt(),
            since: Instant::now(),
            asker: Member {
                delivered,
                asker: Asker(Some(asker)),
            },
        });
        self.came.notify_one();
        self.start();
        // Without an answer the runtime ends.
        outside(answered).await.unwrap_or_else(|_| {
            Outcome::Retry(HandlerError::outage("the runtime of the batch is ending")).into()
        })
    }

    fn start(self: &Arc<Self>) {
        if self.lock().start() {
            tokio::spawn(Running(Arc::clone(self)).run());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<Member<T>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A batch. When it is dropped, the next may start.
struct Running<T: Send + 'static>(Arc<Batcher<T>>);

impl<T: Send + 'static> Drop for Running<T> {
    fn drop(&mut self) {
        self.0.lock().ended();
        // When the runtime ends there is none to run the next.
        if tokio::runtime::Handle::try_current().is_ok() {
            self.0.start();
        }
    }
}

impl<T: Send + 'static> Running<T> {
    async fn run(self) {
        let members = self.take().await;
        let Some((_, first)) = members.first() else {
            return;
        };
        let inbox = first.delivered.context.inbox().cloned();
        let (mut keys, mut events, mut askers) = (Vec::new(), Vec::new(), Vec::new());
        for (key, member) in members {
            keys.push(key);
            events.push(member.delivered);
            askers.push(member.asker);
        }
        match claims::claim(inbox.as_deref(), keys, self.0.names_transaction).await {
            Ok(answered) => self.handle(answered, events, askers).await,
            Err(error) => fail(store_error(error).into(), askers),
        }
    }

    /// The members of this batch, once they need not wait for more.
    async fn take(&self) -> Vec<(Option<InboxKey>, Member<T>)> {
        let Batcher { settings, came, .. } = &*self.0;
        loop {
            let until = {
                let mut queue = self.0.lock();
                let inbox = queue.first().map(|first| &first.delivered.context);
                let inbox = inbox.and_then(|context| context.inbox());
                let limits = Limits {
                    records_max: claims::together_max(inbox.map(|i| &**i), settings.records_max),
                    wait_max: bounded(settings.wait_max),
                };
                match queue.next(limits, Instant::now(), |member| member.asker.is_gone()) {
                    Next::Batch(members) => return members,
                    Next::Nothing => return Vec::new(),
                    Next::At(until) => until,
                }
            };
            // Either way what waits is looked at again.
            let _ = tokio::time::timeout_at(until, came.notified()).await;
        }
    }

    /// Answers the duplicates, and has the others handled.
    async fn handle(&self, answered: Answered, events: Vec<Delivered<T>>, askers: Vec<Asker>) {
        let (mut fresh, mut waiting) = (Vec::new(), Vec::new());
        for ((known, event), asker) in answered.known.into_iter().zip(events).zip(askers) {
            match known {
                None => {
                    fresh.push(event);
                    waiting.push(asker);
                }
                Some(Err(InboxError::Reused)) => asker.answer(recognition::reused(&event.context)),
                Some(unsent) => {
                    recognition::suppressed(&event.context);
                    asker.answer(duplicate(unsent));
                }
            }
        }
        if !fresh.is_empty() {
            self.settle(answered.claims, fresh, waiting).await;
        }
    }

    /// Calls the handler, completes what succeeded, and answers.
    async fn settle(&self, mut claims: Claims, events: Vec<Delivered<T>>, mut askers: Vec<Asker>) {
        let contexts: Vec<_> = events.iter().map(|event| event.context.clone()).collect();
        let offered = claims.transaction();
        let offered = offered.map(|transaction| contexts[0].offer_transaction(transaction));
        let called = async {
            let source = ContextSource::of(&contexts[0]);
            let handled = (self.0.handle)(events, source);
            match contexts[0].handler_timeout() {
                None => handled.await,
                Some(limit) => match limited(handled, limit).await {
                    Ok(outcome) => outcome,
                    Err(error) => BatchOutcome::Failed(error.into()),
                },
            }
        };
        let called = unless_nobody_waits(called, &mut askers);
        let ended = match unless_recalled(called, &mut claims).await {
            Ok(ended) => ended,
            Err(error) => return fail(store_error(error).into(), askers),
        };
        drop(offered);
        let outcomes = match ended.map(|ended| outcomes(ended, askers.len())) {
            Some(Ok(outcomes)) => outcomes,
            Some(Err(Failure::Error(error))) => {
                let error = match claims.fail(error.cause()).await {
                    true => error.collided(),
                    false => error,
                };
                return fail(error.into(), askers);
            }
            Some(Err(failure)) => {
                claims.abandon().await;
                return fail(failure, askers);
            }
            None => return claims.abandon().await,
        };
        let published = outcomes.iter().zip(&contexts);
        let published = published
            .map(|(outcome, context)| is_success(outcome).then(|| context.take_staged()))
            .collect();
        match claims.complete(published).await {
            Ok(completed) => {
                let mut completed = completed.into_iter();
                for ((asker, outcome), context) in askers.into_iter().zip(outcomes).zip(&contexts) {
                    match is_success(&outcome).then(|| completed.next()).flatten() {
                        Some(Ok(unsent)) => {
                            recognition::completed(context);
                            asker.answer(Answer { outcome, unsent });
                        }
                        Some(Err(error)) => asker.answer(Outcome::Retry(store_error(error))),
                        None => asker.answer(outcome),
                    }
                }
            }
            Err(error) => {
                let (succeeded, failed): (Vec<_>, Vec<_>) = askers
                    .into_iter()
                    .zip(outcomes)
                    .partition(|(_, outcome)| is_success(outcome));
                for (asker, outcome) in failed {
                    asker.answer(outcome);
                }
                let askers = succeeded.into_iter().map(|(asker, _)| asker).collect();
                fail(store_error(error).into(), askers);
            }
        }
    }
}

/// What failed a batch as a whole.
enum Failure {
    Error(HandlerError),
    Panic(DeadReason),
}

impl From<HandlerError> for Failure {
    fn from(error: HandlerError) -> Self {
        Self::Error(error)
    }
}

/// How the handler ended; it is dropped where its store has stopped answering.
async fn unless_recalled<T>(
    called: impl Future<Output = T>,
    claims: &mut Claims,
) -> Result<T, InboxError> {
    let mut called = pin!(called);
    poll_fn(|cx| match called.as_mut().poll(cx) {
        Poll::Ready(ended) => Poll::Ready(Ok(ended)),
        Poll::Pending => claims.poll_recalled(cx).map(Err),
    })
    .await
}

/// How the handler ended; nothing where it was given up, as every delivery had been.
async fn unless_nobody_waits(
    called: impl Future<Output = BatchOutcome>,
    askers: &mut [Asker],
) -> Option<Result<BatchOutcome, DeadReason>> {
    let handled = pin!(AssertUnwindSafe(called).catch_unwind());
    let given_up = join_all(askers.iter_mut().map(Asker::gone));
    match select(handled, given_up).await {
        Either::Left((handled, _)) => {
            Some(handled.map_err(|panic| panics::told("the handler", panic)))
        }
        Either::Right(_) => None,
    }
}

/// The outcome of each of `count` events, or what failed them all.
fn outcomes(
    ended: Result<BatchOutcome, DeadReason>,
    count: usize,
) -> Result<Vec<Outcome>, Failure> {
    match ended {
        Ok(BatchOutcome::Done) => Ok((0..count).map(|_| Outcome::Done).collect()),
        Ok(BatchOutcome::Each(outcomes)) if outcomes.len() == count => Ok(outcomes),
        Ok(BatchOutcome::Each(outcomes)) => Err(Failure::Error(HandlerError::permanent(format!(
            "the batch handler returned {} outcomes for {count} events: return one for each, in their order",
            outcomes.len()
        )))),
        Ok(BatchOutcome::Failed(error)) => Err(Failure::Error(error)),
        Err(reason) => Err(Failure::Panic(reason)),
    }
}

fn duplicate(unsent: Result<Vec<OutgoingRecord>, InboxError>) -> Answer {
    match unsent {
        Ok(unsent) => Answer {
            outcome: Outcome::Duplicate,
            unsent,
        },
        Err(error) => Outcome::Retry(store_error(error)).into(),
    }
}

/// Tells all of them of what failed them together. What failed one alone is its own.
fn fail(failure: Failure, mut askers: Vec<Asker>) {
    if askers.len() == 1
        && let Some(alone) = askers.pop()
    {
        return alone.answer(match failure {
            Failure::Error(error) => Outcome::Retry(error),
            Failure::Panic(reason) => Outcome::Dead(reason),
        });
    }
    let error = match failure {
        Failure::Error(error) => error,
        Failure::Panic(reason) => HandlerError::transient(reason.message).at(Stage::Panic),
    };
    for asker in askers {
        asker.answer(Outcome::Retry(error.shared()));
    }
}
