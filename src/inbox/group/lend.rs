//! A transaction on its way from the group to a handler and back.
//!
//! Owns who has it. Knows neither store nor tables: what is lent (`O`) is whatever the store calls an open transaction.

use super::Cause;
use crate::event::OutgoingRecord;
use crate::inbox::InboxError;
use futures_util::task::AtomicWaker;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// How a transaction came back.
pub(super) enum Returned<O> {
    /// The handler succeeded and published this; the answer is awaited.
    Complete(O, Vec<OutgoingRecord>, oneshot::Sender<Completed>),
    /// The handler failed, or nobody waits for it any more: what it wrote is to be undone.
    Abandoned(O),
    /// The same, for a handler that failed because another transaction was in the way.
    Collided(O, Cause),
}

/// What a completion is answered with: what is left to publish.
pub(super) type Completed = Result<Vec<OutgoingRecord>, InboxError>;

/// Lends a transaction; it comes back through the receiver, whatever becomes of who has it.
pub(super) fn lend<O>(open: O) -> (Loan<O>, oneshot::Receiver<Returned<O>>) {
    let (back, returned) = oneshot::channel();
    let place = Place {
        at: At::Home(open),
        back: Some(back),
    };
    let loan = Loan {
        place: Arc::new(Mutex::new(place)),
        recall: Recall::default(),
    };
    (loan, returned)
}

struct Place<O> {
    at: At<O>,
    back: Option<oneshot::Sender<Returned<O>>>,
}

enum At<O> {
    /// With the claim.
    Home(O),
    /// With the handler.
    Lent,
    /// The claim has ended: what the handler lets go of now is undone.
    Ended,
}

impl<O> Place<O> {
    fn give_back(&mut self, returned: Returned<O>) {
        if let Some(back) = self.back.take() {
            // Nobody is there to take it only when the runtime ends: the transaction is dropped, which undoes it.
            let _ = back.send(returned);
        }
    }
}

fn lock<O>(place: &Mutex<Place<O>>) -> MutexGuard<'_, Place<O>> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks for a transaction back whose handler waits for a store that does not answer.
#[derive(Clone, Default)]
pub(super) struct Recall(Arc<Recalled>);

#[derive(Default)]
struct Recalled {
    why: OnceLock<InboxError>,
    claim: AtomicWaker,
}

impl Recall {
    /// Whoever has the claim is to give it back, for this reason.
    pub(super) fn now(&self, why: InboxError) {
        // The first reason is as good as any.
        let _ = self.0.why.set(why);
        self.0.claim.wake();
    }
}

/// The claim's side. Dropping it abandons the claim.
pub(super) struct Loan<O> {
    place: Arc<Mutex<Place<O>>>,
    recall: Recall,
}

impl<O> Loan<O> {
    /// Hands the transaction to the handler, once at a time.
    pub(super) fn to_handler(&self) -> Option<Lent<O>> {
        let mut place = lock(&self.place);
        match std::mem::replace(&mut place.at, At::Lent) {
            At::Home(open) => Some(Lent {
                open: Some(open),
                place: Arc::clone(&self.place),
            }),
            other => {
                place.at = other;
                None
            }
        }
    }

    /// By which the transaction can be recalled.
    pub(super) fn recall(&self) -> Recall {
        self.recall.clone()
    }

    /// Ready when the transaction is recalled: the claim is to be dropped, and its handler before it.
    pub(super) fn poll_recalled(&self, cx: &mut Context<'_>) -> Poll<InboxError> {
        let recalled = &*self.recall.0;
        recalled.claim.register(cx.waker());
        match recalled.why.get() {
            Some(why) => Poll::Ready(InboxError::Unavailable(why.to_string().into())),
            None => Poll::Pending,
        }
    }

    /// Gives the transaction back as completed and waits for the commit. An error where the handler still has it.
    pub(super) async fn complete(self, published: Vec<OutgoingRecord>) -> Completed {
        let open = self.end()?;
        let (answer, completed) = oneshot::channel();
        lock(&self.place).give_back(Returned::Complete(open, published, answer));
        completed.await.unwrap_or_else(|_| Err(super::closing()))
    }

    /// Takes the transaction, which does not come back. An error where the handler still has it.
    pub(super) fn take(self) -> Result<O, InboxError> {
        self.end()
    }

    /// Gives the transaction back for a handler that failed, and says whether another transaction was in its way, as `cause`
    /// finds.
    pub(super) fn fail(self, cause: impl FnOnce(&O) -> Option<Cause>) -> bool {
        let Ok(open) = self.end() else {
            return false;
        };
        let cause = cause(&open);
        lock(&self.place).give_back(match cause {
            Some(cause) => Returned::Collided(open, cause),
            None => Returned::Abandoned(open),
        });
        cause.is_some()
    }

    fn end(&self) -> Result<O, InboxError> {
        match std::mem::replace(&mut lock(&self.place).at, At::Ended) {
            At::Home(open) => Ok(open),
            At::Lent | At::Ended => Err(InboxError::Transaction {
                reason: "the handler still holds it, in a task that outlives the handler or in a value it kept: \
                         drop it before the handler returns; nothing was committed"
                    .to_owned(),
            }),
        }
    }
}

impl<O> Drop for Loan<O> {
    fn drop(&mut self) {
        let mut place = lock(&self.place);
        if let At::Home(open) = std::mem::replace(&mut place.at, At::Ended) {
            place.give_back(Returned::Abandoned(open));
        }
    }
}

/// The handler's side: the transaction until it is dropped, which hands it back to the claim.
pub(in crate::inbox) struct Lent<O> {
    /// Present until it is dropped.
    open: Option<O>,
    place: Arc<Mutex<Place<O>>>,
}

const PRESENT: &str = "a lent transaction is there until it is dropped";

impl<O> std::ops::Deref for Lent<O> {
    type Target = O;

    fn deref(&self) -> &O {
        self.open.as_ref().expect(PRESENT)
    }
}

impl<O> std::ops::DerefMut for Lent<O> {
    fn deref_mut(&mut self) -> &mut O {
        self.open.as_mut().expect(PRESENT)
    }
}

impl<O> Drop for Lent<O> {
    fn drop(&mut self) {
        let Some(open) = self.open.take() else {
            return;
        };
        let mut place = lock(&self.place);
        match place.at {
            At::Lent => place.at = At::Home(open),
            At::Home(_) | At::Ended => place.give_back(Returned::Abandoned(open)),
        }
    }
}
