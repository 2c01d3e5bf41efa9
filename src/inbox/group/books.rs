//! Who in a group is owed an answer, and what each is told when it ends.

use super::lend::{Completed, Loan};
use crate::event::OutgoingRecord;
use crate::inbox::{InboxError, InboxKey};
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use tokio::sync::oneshot;

/// What a claim is answered with.
pub(super) type Answer<O> = Result<Turn<O>, InboxError>;

pub(super) enum Turn<O> {
    Fresh(Loan<O>),
    Duplicate(Vec<OutgoingRecord>),
}

/// Who asked for a delivery, with its key.
pub(super) type Asker<O> = (InboxKey, oneshot::Sender<Answer<O>>);

/// Who is told of a completion, with what there is to publish then.
pub(super) type Completion = (oneshot::Sender<Completed>, Vec<OutgoingRecord>);

/// Who in a group is owed an answer.
pub(super) struct Books<O> {
    /// Those that had no turn yet, in reverse order.
    pub(super) waiting: Vec<oneshot::Sender<Answer<O>>>,
    /// Those that are done once the transaction is committed.
    completed: Vec<Completion>,
    /// The same, of the turn that was taken last, with the place of its key: whether what it wrote can be kept is not known yet.
    pub(super) last: Option<(usize, Completion)>,
}

impl<O> Books<O> {
    /// For those who wait, in their order.
    pub(super) fn new(mut waiting: Vec<oneshot::Sender<Answer<O>>>) -> Self {
        waiting.reverse();
        Self {
            waiting,
            completed: Vec::new(),
            last: None,
        }
    }

    /// Whether nothing is to be committed.
    pub(super) fn is_empty(&self) -> bool {
        self.completed.is_empty() && self.last.is_none()
    }

    pub(super) fn last_is_kept(&mut self) {
        self.completed
            .extend(self.last.take().map(|(_, completion)| completion));
    }

    pub(super) fn committed(&mut self) {
        for (answer, unsent) in self.completed.drain(..) {
            // A handler's deadline may have passed meanwhile: its event comes again, and is a duplicate.
            let _ = answer.send(Ok(unsent));
        }
    }

    /// Nothing of it is committed. Who is known to be to blame is told why: the one that had the transaction last, or one that was
    /// alone. The others are to be tried again.
    pub(super) fn lost(&mut self, error: InboxError) {
        let last = self.last.take();
        let (error, own) = match (error, last) {
            (error @ InboxError::Transaction { .. }, Some((_, (answer, _)))) => {
                let neighbours = InboxError::TryAgain(error.to_string().into());
                (neighbours, Some((answer, error)))
            }
            (error, last) => {
                self.completed
                    .extend(last.map(|(_, completion)| completion));
                (error, None)
            }
        };
        if let Some((answer, error)) = own {
            let _ = answer.send(Err(error));
        }
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
        for asker in self.waiting.drain(..) {
            let _ = asker.send(Err(shared(&error)));
        }
    }
}

/// What every member of a group is told: an error of the same kind.
fn shared(error: &Arc<InboxError>) -> InboxError {
    let same = || Box::new(Shared(Arc::clone(error)));
    match **error {
        InboxError::NotWritable(_) => InboxError::NotWritable(same()),
        InboxError::TryAgain(_) => InboxError::TryAgain(same()),
        InboxError::Other(_) => InboxError::Other(same()),
        _ => InboxError::Unavailable(same()),
    }
}

/// An error that several claims are told of.
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
