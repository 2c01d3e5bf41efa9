//! Hands a transaction from its group to a handler and back.
//!
//! Owns the current holder. Knows neither store nor tables: the transaction (`O`) is whatever type
//! the store uses.
//!
//! The transaction is in one of three places: with the claim, with the handler, or returned to the
//! group. Claim and handler may be dropped in any order, and from any thread. One lock guards the
//! place, so exactly one of them returns the transaction, once. The lock is never held over an
//! await.

use super::Cause;
use crate::event::OutgoingRecord;
use crate::inbox::InboxError;
use futures_util::task::AtomicWaker;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// How a transaction returned.
pub(super) enum Returned<O> {
    /// The handler succeeded and published these events; the caller waits for the answer.
    Complete(O, Vec<OutgoingRecord>, oneshot::Sender<Completed>),
    /// The handler failed, or nobody waits for it any more: its writes are to be undone.
    Abandoned(O),
    /// The handler failed because another transaction was in the way: its writes are to be undone.
    Collided(O, Cause),
}

/// The answer to a completion: the events left to publish.
pub(super) type Completed = Result<Vec<OutgoingRecord>, InboxError>;

/// Hands out a transaction. It returns through the receiver in every case, also when its holder is
/// dropped.
pub(super) fn hand_off<O>(open: O) -> (Handoff<O>, oneshot::Receiver<Returned<O>>) {
    let (back, returned) = oneshot::channel();
    let place = HandoffPlace {
        at: PlaceState::Home(open),
        back: Some(back),
    };
    let shared = Arc::new(SharedHandoff {
        place: Mutex::new(place),
        recall: RecallState::default(),
    });
    (Handoff { shared }, returned)
}

/// What the group, the claim and the handler share of a handed-out transaction.
struct SharedHandoff<O> {
    place: Mutex<HandoffPlace<O>>,
    recall: RecallState,
}

impl<O> SharedHandoff<O> {
    fn lock(&self) -> MutexGuard<'_, HandoffPlace<O>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of the transaction.
struct HandoffPlace<O> {
    at: PlaceState<O>,
    back: Option<oneshot::Sender<Returned<O>>>,
}

enum PlaceState<O> {
    /// With the claim.
    Home(O),
    /// With the handler.
    HandedOut,
    /// The claim has ended: a transaction that the handler drops now is undone.
    Ended,
}

impl<O> HandoffPlace<O> {
    /// Returns the transaction to the group. Only the first call has an effect.
    fn send_back(&mut self, returned: Returned<O>) {
        if let Some(back) = self.back.take() {
            // The receiver is gone only when the runtime shuts down: the transaction is dropped,
            // which undoes it.
            let _ = back.send(returned);
        }
    }
}

/// Recalls a transaction whose handler waits for a store that does not answer.
///
/// The handler cannot be interrupted by its own statement, which may never end. The claim's waker
/// is woken instead, and the router drops the handler, which drops the connection with it.
pub(super) struct Recall<O>(Arc<SharedHandoff<O>>);

#[derive(Default)]
struct RecallState {
    /// Why the transaction is recalled; set once.
    why: OnceLock<InboxError>,
    /// The task that polls the claim beside its handler.
    claim: AtomicWaker,
}

impl<O> Recall<O> {
    /// Requests the holder of the claim to drop it, for this reason.
    pub(super) fn now(&self, why: InboxError) {
        let recall = &self.0.recall;
        // The first reason is kept.
        let _ = recall.why.set(why);
        recall.claim.wake();
    }
}

/// The claim's side. Dropping it abandons the claim.
pub(super) struct Handoff<O> {
    shared: Arc<SharedHandoff<O>>,
}

impl<O> Handoff<O> {
    /// Hands the transaction to the handler, if the handler does not have it yet.
    pub(super) fn to_handler(&self) -> Option<HandedOut<O>> {
        let mut place = self.shared.lock();
        match std::mem::replace(&mut place.at, PlaceState::HandedOut) {
            PlaceState::Home(open) => Some(HandedOut {
                open: Some(open),
                shared: Arc::clone(&self.shared),
            }),
            other => {
                place.at = other;
                None
            }
        }
    }

    /// Returns the handle that recalls the transaction.
    pub(super) fn recall(&self) -> Recall<O> {
        Recall(Arc::clone(&self.shared))
    }

    /// Ready when the transaction is recalled: drop the handler, then the claim.
    pub(super) fn poll_recalled(&self, cx: &mut Context<'_>) -> Poll<InboxError> {
        let recalled = &self.shared.recall;
        recalled.claim.register(cx.waker());
        match recalled.why.get() {
            Some(why) => Poll::Ready(unavailable(why)),
            None => Poll::Pending,
        }
    }

    /// Returns the transaction as completed and waits for the commit. An error if the handler still
    /// has it.
    pub(super) async fn complete(self, published: Vec<OutgoingRecord>) -> Completed {
        let open = self.end()?;
        let (answer, completed) = oneshot::channel();
        self.shared
            .lock()
            .send_back(Returned::Complete(open, published, answer));
        completed.await.unwrap_or_else(|_| Err(shutting_down()))
    }

    /// Takes the transaction for good. An error if the handler still has it.
    pub(super) fn take(self) -> Result<O, InboxError> {
        self.end()
    }

    /// Returns the transaction of a failed handler. Returns whether another transaction was in its
    /// way, as found by `cause`.
    pub(super) fn fail(self, cause: impl FnOnce(&O) -> Option<Cause>) -> bool {
        let Ok(open) = self.end() else {
            return false;
        };
        let cause = cause(&open);
        self.shared.lock().send_back(match cause {
            Some(cause) => Returned::Collided(open, cause),
            None => Returned::Abandoned(open),
        });
        cause.is_some()
    }

    /// Ends the claim and takes its transaction.
    ///
    /// # Errors
    /// [`InboxError::Transaction`] if the handler did not return it.
    fn end(&self) -> Result<O, InboxError> {
        match std::mem::replace(&mut self.shared.lock().at, PlaceState::Ended) {
            PlaceState::Home(open) => Ok(open),
            PlaceState::HandedOut | PlaceState::Ended => Err(InboxError::Transaction {
                reason: "the handler still holds it, in a task that outlives the handler or in a \
                         value it kept: drop it before the handler returns; nothing was committed"
                    .to_owned(),
            }),
        }
    }
}

impl<O> Drop for Handoff<O> {
    fn drop(&mut self) {
        let mut place = self.shared.lock();
        if let PlaceState::Home(open) = std::mem::replace(&mut place.at, PlaceState::Ended) {
            place.send_back(Returned::Abandoned(open));
        }
    }
}

/// The handler's side: the transaction until it is dropped, which returns it to the claim.
pub(in crate::inbox) struct HandedOut<O> {
    /// Present until it is dropped.
    open: Option<O>,
    shared: Arc<SharedHandoff<O>>,
}

/// The message of a panic that cannot occur: only `drop` takes the transaction.
const PRESENT: &str = "a handed-out transaction is present until it is dropped";

impl<O> std::ops::Deref for HandedOut<O> {
    type Target = O;

    fn deref(&self) -> &O {
        self.open.as_ref().expect(PRESENT)
    }
}

impl<O> std::ops::DerefMut for HandedOut<O> {
    fn deref_mut(&mut self) -> &mut O {
        self.open.as_mut().expect(PRESENT)
    }
}

impl<O> Drop for HandedOut<O> {
    fn drop(&mut self) {
        let Some(open) = self.open.take() else {
            return;
        };
        let mut place = self.shared.lock();
        match place.at {
            PlaceState::HandedOut => place.at = PlaceState::Home(open),
            PlaceState::Home(_) | PlaceState::Ended => place.send_back(Returned::Abandoned(open)),
        }
    }
}

/// The same outage for another caller. An error that only wraps another one is left out, so that
/// the text names its kind once.
pub(super) fn unavailable(error: &InboxError) -> InboxError {
    let reason = match error.source() {
        Some(source) => source.to_string(),
        None => error.to_string(),
    };
    InboxError::Unavailable(reason.into())
}

/// The error of a claim that gets no answer because the process is shutting down.
pub(super) fn shutting_down() -> InboxError {
    InboxError::Unavailable("the runtime is shutting down".into())
}
