//! The callers of a group that wait for an answer, and the answers they receive when it ends.
//!
//! Each caller is answered exactly once. The completion of the last turn is kept apart, because
//! only the next call of the store shows whether its writes can be kept.

use super::transaction_handoff::{Completed, Handoff};
use crate::event::OutgoingRecord;
use crate::inbox::{InboxError, InboxKey};
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use tokio::sync::oneshot;

/// The answer to a claim.
pub(super) type Answer<O> = Result<GroupClaimed<O>, InboxError>;

/// The result of a claim: the transaction for a fresh delivery, or the unsent events of a
/// duplicate.
pub(super) enum GroupClaimed<O> {
    Fresh(Handoff<O>),
    Duplicate(Vec<OutgoingRecord>),
}

/// The caller that claims a delivery, with the delivery's key.
pub(super) type Waiter<O> = (InboxKey, oneshot::Sender<Answer<O>>);

/// The caller of a completion, with the events to publish afterwards.
type PendingCompletion = (oneshot::Sender<Completed>, Vec<OutgoingRecord>);

/// The callers of a group that wait for an answer.
pub(super) struct PendingAnswers<O> {
    /// Callers whose claims had no turn yet, in reverse order.
    pub(super) waiting: Vec<oneshot::Sender<Answer<O>>>,
    /// Completions to be answered once the transaction is committed.
    completed: Vec<PendingCompletion>,
    /// The completion of the last turn, with the index of its key: whether its writes can be kept
    /// is not known yet.
    pub(super) last: Option<(usize, PendingCompletion)>,
}

impl<O> PendingAnswers<O> {
    /// For the waiting callers, in their order.
    pub(super) fn new(mut waiting: Vec<oneshot::Sender<Answer<O>>>) -> Self {
        waiting.reverse();
        Self {
            waiting,
            completed: Vec::new(),
            last: None,
        }
    }

    /// Whether there is nothing to commit.
    pub(super) fn is_empty(&self) -> bool {
        self.completed.is_empty() && self.last.is_none()
    }

    /// The store kept the writes of the last turn: it fails only with the whole transaction.
    pub(super) fn confirm_last(&mut self) {
        self.completed
            .extend(self.last.take().map(|(_, completion)| completion));
    }

    /// Answers all completions: the transaction is durable.
    pub(super) fn committed(&mut self) {
        for (answer, unsent) in self.completed.drain(..) {
            // The handler's deadline may have passed: its event is redelivered and is a duplicate.
            let _ = answer.send(Ok(unsent));
        }
    }

    /// The transaction is lost. The claim that caused it receives the error, if it is known: the
    /// one of the last turn, or the only one. The others are to be tried again.
    pub(super) fn fail_all(&mut self, error: InboxError) {
        let last = self.last.take();
        let error = match error {
            error @ InboxError::Transaction { .. } => {
                let neighbours = InboxError::TryAgain(error.to_string().into());
                // Without one, the handler of the last turn failed and has its own error.
                if let Some((_, (answer, _))) = last {
                    let _ = answer.send(Err(error));
                }
                neighbours
            }
            error => {
                let last = last.map(|(_, completion)| completion);
                self.completed.extend(last);
                error
            }
        };
        let error = match error {
            InboxError::Other(error) if self.completed.len() + self.waiting.len() > 1 => {
                InboxError::TryAgain(error)
            }
            error => error,
        };
        let error = Arc::new(error);
        for (answer, _) in self.completed.drain(..) {
            let _ = answer.send(Err(shared(&error)));
        }
        for waiter in self.waiting.drain(..) {
            let _ = waiter.send(Err(shared(&error)));
        }
    }
}

/// The error for every member of a group, of the same kind as `error`. Kinds that only one member
/// can have caused become unavailable for the others.
fn shared(error: &Arc<InboxError>) -> InboxError {
    let same = || Box::new(Shared(Arc::clone(error)));
    match **error {
        InboxError::NotWritable(_) => InboxError::NotWritable(same()),
        InboxError::TryAgain(_) => InboxError::TryAgain(same()),
        InboxError::Other(_) => InboxError::Other(same()),
        _ => InboxError::Unavailable(same()),
    }
}

/// An error that several claims share.
#[derive(Debug)]
struct Shared(Arc<InboxError>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.source() {
            Some(source) => fmt::Display::fmt(source, f),
            None => fmt::Display::fmt(&self.0, f),
        }
    }
}

impl Error for Shared {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source().and_then(Error::source)
    }
}
