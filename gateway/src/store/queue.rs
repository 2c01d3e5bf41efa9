//! The queue before a writer, and the groups that a writer takes from it.
//!
//! Owns the bounds of waiting requests, their grouping and their deadlines. Knows no database.
//!
//! # Deadlines
//! A request is taken when its transaction has begun, once. Until then its caller may withdraw it
//! at its deadline, and knows that nothing was accepted. After that the caller learns either the
//! result or, at its deadline, that the result is unknown.

use super::error::AcceptError;
use super::plan::Outcome;
use super::port::AcceptRequest;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

/// Bounds the requests of one transaction.
const GROUP_REQUESTS_MAX: usize = 256;

/// Bounds the bytes of one transaction; the request that reaches it is still part of it.
const GROUP_BYTES_MAX: usize = 4 << 20;

/// What a request and an event are charged beside their bytes.
const OVERHEAD_BYTES: usize = 256;

/// The topic and the key of a record: what a store orders, and locks.
pub(super) type RecordKey = (String, Option<Vec<u8>>);

/// The sending half: bounded in requests and bytes.
#[derive(Debug)]
pub(super) struct Queue {
    requests: mpsc::Sender<Pending>,
    room: Arc<Room>,
}

/// The bytes of waiting requests, shared by the queues of a store.
#[derive(Debug)]
pub(super) struct Room {
    permits: Arc<Semaphore>,
    bytes_max: u32,
}

impl Room {
    /// Room for this many bytes, at least 1 and at most 4 GiB.
    pub(super) fn new(bytes_max: usize) -> Self {
        let bytes_max = u32::try_from(bytes_max).unwrap_or(u32::MAX).max(1);
        Self {
            permits: Arc::new(Semaphore::new(bytes_max as usize)),
            bytes_max,
        }
    }
}

/// The receiving half, of one writer.
#[derive(Debug)]
pub(super) struct Waiting {
    requests: mpsc::Receiver<Pending>,
}

/// A request in the queue.
#[derive(Debug)]
struct Pending {
    request: AcceptRequest,
    reply: oneshot::Sender<Outcome>,
    /// Set by the first of: the writer takes the request, its caller withdraws it.
    is_taken: Arc<AtomicBool>,
    /// Whether the writer has taken it.
    is_claimed: bool,
    bytes: usize,
    /// Its room, until it is answered.
    _room: OwnedSemaphorePermit,
}

impl Pending {
    /// Takes the request. `None` if nobody waits for it any more, or its deadline has passed.
    fn claim(mut self, now: Instant) -> Option<Self> {
        if self.is_claimed {
            return Some(self);
        }
        if self
            .request
            .deadline
            .is_some_and(|deadline| deadline <= now)
        {
            self.answer(Err(AcceptError::DeadlineExceeded));
            return None;
        }
        if self.reply.is_closed() || self.is_taken.swap(true, Ordering::AcqRel) {
            return None;
        }
        self.is_claimed = true;
        Some(self)
    }

    /// Answers the caller; one that is gone needs no answer.
    fn answer(self, outcome: Outcome) {
        let _ = self.reply.send(outcome);
    }
}

impl Queue {
    /// A queue of at most `requests_max` requests, whose bytes count in `room`.
    pub(super) fn new(requests_max: usize, room: Arc<Room>) -> (Self, Waiting) {
        let (sender, receiver) = mpsc::channel(requests_max.max(1));
        let queue = Self {
            requests: sender,
            room,
        };
        (queue, Waiting { requests: receiver })
    }

    /// Queues a request and waits for its answer, at most until its deadline. Requests are written
    /// in the order of the first polls. Dropping the future withdraws a request that is not taken.
    pub(super) async fn submit(&self, request: AcceptRequest) -> Outcome {
        let deadline = request.deadline;
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(AcceptError::DeadlineExceeded);
        }
        let bytes = size(&request);
        let charge = u32::try_from(bytes)
            .unwrap_or(u32::MAX)
            .min(self.room.bytes_max);
        let permits = Arc::clone(&self.room.permits);
        let Ok(room) = permits.try_acquire_many_owned(charge) else {
            return Err(AcceptError::Full { retry_after: None });
        };
        let (reply, mut answer) = oneshot::channel();
        let is_taken = Arc::new(AtomicBool::new(false));
        let pending = Pending {
            request,
            reply,
            is_taken: Arc::clone(&is_taken),
            is_claimed: false,
            bytes,
            _room: room,
        };
        match self.requests.try_send(pending) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(AcceptError::Full { retry_after: None }),
            Err(TrySendError::Closed(_)) => {
                return Err(AcceptError::Unavailable {
                    doing: "queueing the events",
                    source: "the writer of the store has ended".into(),
                });
            }
        }
        let Some(deadline) = deadline else {
            return answer.await.unwrap_or_else(|_| Err(lost()));
        };
        match timeout_at(deadline, &mut answer).await {
            Ok(answered) => answered.unwrap_or_else(|_| Err(lost())),
            Err(_) if !is_taken.swap(true, Ordering::AcqRel) => Err(AcceptError::DeadlineExceeded),
            Err(_) => answer.try_recv().unwrap_or_else(|_| {
                let source = "the deadline passed while the events were written".into();
                Err(AcceptError::Unknown { source })
            }),
        }
    }
}

/// The writer dropped the request without an answer, which only a panic does.
fn lost() -> AcceptError {
    AcceptError::Unknown {
        source: "the writer of the store failed".into(),
    }
}

/// The bytes that a request is charged: about what it takes in memory.
pub(super) fn size(request: &AcceptRequest) -> usize {
    let of_events = request.events.iter().map(|event| {
        let record = &event.record;
        let headers = record
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len));
        let texts = [&event.source, &event.id, &event.ty, &record.topic];
        let parts = [&record.key, &record.value];
        OVERHEAD_BYTES
            + headers.sum::<usize>()
            + texts.iter().map(|text| text.len()).sum::<usize>()
            + parts
                .into_iter()
                .flatten()
                .map(|part| part.len())
                .sum::<usize>()
    });
    let of_events: usize = of_events.sum();
    let headers = request.answer.headers.iter();
    let headers: usize = headers.map(|(name, value)| name.len() + value.len()).sum();
    OVERHEAD_BYTES + of_events + headers + request.answer.body.len()
}

impl Waiting {
    /// The next group: waits for a request, then takes what waits behind it, within the bounds.
    /// `None` once the store is dropped and the queue is empty.
    pub(super) async fn next_group(&mut self) -> Option<Group> {
        let first = self.requests.recv().await?;
        let mut bytes = first.bytes;
        let mut pending = vec![first];
        while pending.len() < GROUP_REQUESTS_MAX && bytes < GROUP_BYTES_MAX {
            let Ok(next) = self.requests.try_recv() else {
                break;
            };
            bytes += next.bytes;
            pending.push(next);
        }
        Some(Group { pending })
    }
}

/// Requests that are written in one transaction.
#[derive(Debug)]
pub(super) struct Group {
    pending: Vec<Pending>,
}

impl Group {
    /// Takes the requests, and removes those that nobody waits for or whose deadline has passed.
    /// Another call changes nothing.
    pub(super) fn claim(&mut self) {
        let now = Instant::now();
        let pending = std::mem::take(&mut self.pending);
        self.pending = pending
            .into_iter()
            .filter_map(|one| one.claim(now))
            .collect();
    }

    /// Whether no request is left.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// The requests, in order.
    pub(super) fn requests(&self) -> impl Iterator<Item = &AcceptRequest> {
        self.pending.iter().map(|pending| &pending.request)
    }

    /// Whether no caller waits for an answer any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.pending.iter().all(|one| one.reply.is_closed())
    }

    /// The topic and the key of each record.
    pub(super) fn record_keys(&self) -> impl Iterator<Item = RecordKey> {
        let events = self.requests().flat_map(|request| &request.events);
        events.map(|event| {
            let key = event.record.key.as_deref().map(<[u8]>::to_vec);
            (event.record.topic.clone(), key)
        })
    }

    /// How many requests are left.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Answers each request.
    pub(super) fn answer(self, outcomes: Vec<Outcome>) {
        debug_assert_eq!(
            self.pending.len(),
            outcomes.len(),
            "an answer to each request"
        );
        for (pending, outcome) in self.pending.into_iter().zip(outcomes) {
            pending.answer(outcome);
        }
    }

    /// Answers each request with an error.
    pub(super) fn fail(self, error: impl Fn() -> AcceptError) {
        for pending in self.pending {
            pending.answer(Err(error()));
        }
    }

    /// Each request as a group of its own.
    pub(super) fn one_by_one(self) -> impl Iterator<Item = Self> + Send {
        self.pending.into_iter().map(|pending| Self {
            pending: vec![pending],
        })
    }
}
