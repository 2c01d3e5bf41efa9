//! Runs batches: one at a time for each handler, in a task of its own.
//!
//! Owns the callers that wait for an answer. Published events are sent by the delivery that is
//! answered, after the commit.
//!
//! A batch runs in a spawned task and not in the future of one of its deliveries, so that no
//! delivery's cancellation ends the others. Every caller receives exactly one answer, also if the
//! task panics: [`Caller`] answers in its drop. The next batch starts in the drop of
//! [`RunningBatch`], also after a panic.

use super::claims::{self, ClaimedDeliveries, Claims};
use super::queue::{Limits, NextStep, Queue, Waiting};
use super::{BatchOutcome, BatchSettings, Delivered};
use crate::durations::bounded;
use crate::event::OutgoingRecord;
use crate::failure::panics;
use crate::handler::context::ContextSource;
use crate::handler::deadline::{outside_handler_time, with_time_limit};
use crate::handler::error::store_error;
use crate::handler::extract::BatchFunction;
use crate::handler::{Context, DeadReason, HandlerError, Outcome, Stage, dedup};
use crate::inbox::{BoxFuture, InboxError, InboxKey};
use crate::telemetry::batch_span;
use futures_util::FutureExt;
use futures_util::future::{Either, join_all, select};
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tracing::{Instrument, Span};

type Handle<T> =
    dyn Fn(Vec<Delivered<T>>, ContextSource<'_>) -> BoxFuture<'static, BatchOutcome> + Send + Sync;

/// The deliveries of one batch handler.
pub(in crate::handler) struct Batcher<T> {
    handle: Box<Handle<T>>,
    /// Whether the handler names the store's transaction.
    names_transaction: bool,
    settings: BatchSettings,
    queue: Mutex<Queue<Member<T>>>,
    /// Wakes a batch that waits for further deliveries when one has arrived.
    arrived: Notify,
}

/// A delivery, and the caller that waits for its answer.
struct Member<T> {
    delivered: Delivered<T>,
    caller: Caller,
}

/// The caller that waits for the answer to a delivery. If the batch's task panics outside of the
/// handler's call, for example in the drop of an event, all callers receive an answer for it.
struct Caller(Option<oneshot::Sender<Answer>>);

impl Caller {
    /// Whether the caller no longer waits.
    fn is_gone(&self) -> bool {
        self.0.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Waits until the caller no longer waits.
    async fn stopped_waiting(&mut self) {
        if let Some(caller) = &mut self.0 {
            caller.closed().await;
        }
    }

    /// Answers the caller. A delivery whose caller no longer waits is redelivered.
    fn answer(mut self, answered: impl Into<Answer>) {
        if let Some(caller) = self.0.take() {
            let _ = caller.send(answered.into());
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if let Some(caller) = self.0.take()
            && std::thread::panicking()
        {
            let error = HandlerError::transient("the batch panicked outside of its handler");
            let _ = caller.send(Outcome::Retry(error.at(Stage::Panic)).into());
        }
    }
}

/// The answer for a delivery: its outcome, once its events are published.
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
            arrived: Notify::new(),
        })
    }

    /// Adds a delivery to the next batch and waits for its answer. If the caller stops waiting, the
    /// delivery is left out of any batch that has not begun, and a batch that has begun does not
    /// answer it.
    pub(in crate::handler) async fn deliver(self: Arc<Self>, delivered: Delivered<T>) -> Answer {
        let Delivered { event, context } = &delivered;
        context.note_span();
        let attributes = &event.attributes;
        let key = context
            .inbox()
            .map(|_| context.inbox_key(attributes.source.clone(), attributes.id.clone()));
        let (caller, answered) = oneshot::channel();
        self.lock().push(Waiting {
            key,
            attempt: context.attempt(),
            since: Instant::now(),
            member: Member {
                delivered,
                caller: Caller(Some(caller)),
            },
        });
        self.arrived.notify_one();
        self.start();
        // No answer arrives when the runtime shuts down.
        outside_handler_time(answered).await.unwrap_or_else(|_| {
            Outcome::Retry(HandlerError::outage("the runtime of the batch is ending")).into()
        })
    }

    /// Spawns the task of a batch, unless one runs already or no delivery waits.
    fn start(self: &Arc<Self>) {
        if self.lock().start() {
            tokio::spawn(RunningBatch(Arc::clone(self)).run());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<Member<T>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running batch. When it is dropped, the next one may start.
struct RunningBatch<T: Send + 'static>(Arc<Batcher<T>>);

impl<T: Send + 'static> Drop for RunningBatch<T> {
    fn drop(&mut self) {
        self.0.lock().ended();
        // During shutdown no runtime is left to run the next batch.
        if tokio::runtime::Handle::try_current().is_ok() {
            self.0.start();
        }
    }
}

impl<T: Send + 'static> RunningBatch<T> {
    /// One batch: take the deliveries, claim them, call the handler, commit, answer. A store that
    /// cannot claim fails all of them.
    async fn run(self) {
        let members = self.take().await;
        let Some((_, first)) = members.first() else {
            return;
        };
        let inbox = first.delivered.context.inbox().cloned();
        let (mut keys, mut events, mut callers) = (Vec::new(), Vec::new(), Vec::new());
        for (key, member) in members {
            keys.push(key);
            events.push(member.delivered);
            callers.push(member.caller);
        }
        match claims::claim(inbox.as_deref(), keys, self.0.names_transaction).await {
            Ok(answered) => self.handle(answered, events, callers).await,
            Err(error) => fail(store_error(error).into(), callers),
        }
    }

    /// The members of this batch, when it need not wait for further deliveries.
    async fn take(&self) -> Vec<(Option<InboxKey>, Member<T>)> {
        let Batcher {
            settings, arrived, ..
        } = &*self.0;
        loop {
            let until = {
                let mut queue = self.0.lock();
                let inbox = queue.first().map(|first| &first.delivered.context);
                let inbox = inbox.and_then(|context| context.inbox());
                let limits = Limits {
                    records_max: claims::batch_size_max(inbox.map(|i| &**i), settings.records_max),
                    wait_max: bounded(settings.wait_max),
                };
                match queue.next(limits, Instant::now(), |member| member.caller.is_gone()) {
                    NextStep::Batch(members) => return members,
                    NextStep::Nothing => return Vec::new(),
                    NextStep::At(until) => until,
                }
            };
            // On a notification as on a timeout the queue is checked again.
            let _ = tokio::time::timeout_at(until, arrived.notified()).await;
        }
    }

    /// Answers the duplicates, and runs the handler for the others.
    async fn handle(
        &self,
        answered: ClaimedDeliveries,
        events: Vec<Delivered<T>>,
        callers: Vec<Caller>,
    ) {
        let (mut fresh, mut waiting) = (Vec::new(), Vec::new());
        for ((known, event), caller) in answered.known.into_iter().zip(events).zip(callers) {
            match known {
                None => {
                    fresh.push(event);
                    waiting.push(caller);
                }
                Some(Err(InboxError::Reused)) => caller.answer(dedup::reused(&event.context)),
                Some(unsent) => {
                    dedup::suppressed(&event.context);
                    caller.answer(duplicate(unsent));
                }
            }
        }
        if !fresh.is_empty() {
            self.settle(answered.claims, fresh, waiting).await;
        }
    }

    /// Calls the handler, completes the deliveries that succeeded, and answers all callers.
    ///
    /// All events share the context of the first one as far as the handler's arguments are
    /// concerned: the transaction and the state are those of the batch. Events published through
    /// another context belong to its own event.
    async fn settle(
        &self,
        mut claims: Claims,
        events: Vec<Delivered<T>>,
        mut callers: Vec<Caller>,
    ) {
        let contexts: Vec<_> = events.iter().map(|event| event.context.clone()).collect();
        let offered = claims.transaction();
        let offered = offered.map(|transaction| contexts[0].offer_transaction(transaction));
        let called = async {
            let source = ContextSource::of(&contexts[0]);
            let handled = (self.0.handle)(events, source);
            match contexts[0].handler_timeout() {
                None => handled.await,
                Some(limit) => match with_time_limit(handled, limit).await {
                    Ok(outcome) => outcome,
                    Err(error) => BatchOutcome::Failed(error.into()),
                },
            }
        };
        let called = called.instrument(span_of(&contexts));
        let called = unless_cancelled(called, &mut callers);
        let ended = match unless_recalled(called, &mut claims).await {
            Ok(ended) => ended,
            Err(error) => return fail(store_error(error).into(), callers),
        };
        drop(offered);
        let outcomes = match ended.map(|ended| outcomes(ended, callers.len())) {
            Some(Ok(outcomes)) => outcomes,
            Some(Err(Failure::Error(error))) => {
                let error = match claims.fail(error.cause()).await {
                    true => error.collided(),
                    false => error,
                };
                return fail(error.into(), callers);
            }
            Some(Err(failure)) => {
                claims.abandon().await;
                return fail(failure, callers);
            }
            None => return claims.abandon().await,
        };
        let published = outcomes.iter().zip(&contexts);
        let published = published
            .map(|(outcome, context)| outcome.is_success().then(|| context.take_staged()))
            .collect();
        match claims.complete(published).await {
            Ok(completed) => {
                let mut completed = completed.into_iter();
                for ((caller, outcome), context) in callers.into_iter().zip(outcomes).zip(&contexts)
                {
                    match outcome.is_success().then(|| completed.next()).flatten() {
                        Some(Ok(unsent)) => {
                            dedup::completed(context);
                            caller.answer(Answer { outcome, unsent });
                        }
                        Some(Err(error)) => caller.answer(Outcome::Retry(store_error(error))),
                        None => caller.answer(outcome),
                    }
                }
            }
            Err(error) => {
                let (succeeded, failed): (Vec<_>, Vec<_>) = callers
                    .into_iter()
                    .zip(outcomes)
                    .partition(|(_, outcome)| outcome.is_success());
                for (caller, outcome) in failed {
                    caller.answer(outcome);
                }
                let callers = succeeded.into_iter().map(|(caller, _)| caller).collect();
                fail(store_error(error).into(), callers);
            }
        }
    }
}

/// The span of a batch, linked to its deliveries.
fn span_of(contexts: &[Context]) -> Span {
    let first = &contexts[0];
    let traces = contexts.iter().filter_map(|context| {
        let trace = context.span_trace().or_else(|| context.trace());
        trace.cloned()
    });
    batch_span(first.topic(), first.group(), contexts.len(), traces)
}

/// The failure of a whole batch.
enum Failure {
    Error(HandlerError),
    Panic(DeadReason),
}

impl From<HandlerError> for Failure {
    fn from(error: HandlerError) -> Self {
        Self::Error(error)
    }
}

/// Returns how the handler ended; drops the handler if its store stopped answering. The handler is
/// polled first, so that an answer that is ready wins.
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

/// Returns how the handler ended, or `None` if it was cancelled because all its deliveries were
/// cancelled.
async fn unless_cancelled(
    called: impl Future<Output = BatchOutcome>,
    callers: &mut [Caller],
) -> Option<Result<BatchOutcome, DeadReason>> {
    let handled = pin!(AssertUnwindSafe(called).catch_unwind());
    let cancelled = join_all(callers.iter_mut().map(Caller::stopped_waiting));
    match select(handled, cancelled).await {
        Either::Left((handled, _)) => {
            Some(handled.map_err(|panic| panics::reason_of("the handler", panic)))
        }
        Either::Right(_) => None,
    }
}

/// The outcome of each of `count` events, or the failure of the whole batch.
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

/// The answer for an event that was handled before: its stored events are published again, with the
/// same ids, because the process that published them may have ended before the acknowledgement.
fn duplicate(unsent: Result<Vec<OutgoingRecord>, InboxError>) -> Answer {
    match unsent {
        Ok(unsent) => Answer {
            outcome: Outcome::Duplicate,
            unsent,
        },
        Err(error) => Outcome::Retry(store_error(error)).into(),
    }
}

/// Answers all callers with the failure of the batch. A failure of a single event is that event's
/// own.
fn fail(failure: Failure, mut callers: Vec<Caller>) {
    if callers.len() == 1
        && let Some(alone) = callers.pop()
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
    for caller in callers {
        caller.answer(Outcome::Retry(error.shared()));
    }
}
