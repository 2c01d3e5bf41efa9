//! Subscriptions as response streams.
//!
//! A task per call moves the frames of a subscription to the response, so that a client that stops
//! reading frees its subscription in time, whatever the connection does. One element waits between
//! them; HTTP/2's flow control stops the response from taking it.

use super::call::{Call, deadline_exceeded};
use crate::http::{Problem, ProblemKind};
use crate::stream::{Filter, Frame, StreamStart, Streams, Subscription};
use futures_util::Stream;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::time::{Instant, timeout_at};
use tonic::{Response, Status};

/// The stream of a response.
pub(super) type Elements<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send + 'static>>;

/// What a frame is for the client.
#[derive(Debug)]
pub(super) enum Step<T> {
    /// An element; the stream continues.
    Next(T),
    /// The end: a last element, if there is one, then the status of the problem.
    Last(Option<T>, Problem),
}

/// The elements after the last one that was sent, for a client that was too slow to take them.
type LastWords<T> = Arc<Mutex<VecDeque<Result<T, Status>>>>;

/// Subscribes the caller, and answers with the frames, mapped by `step`, up to the deadline of the
/// call.
pub(super) async fn watch<T: Send + 'static>(
    streams: &Streams,
    call: &Call,
    filter: Filter,
    start: StreamStart,
    step: fn(Frame) -> Step<T>,
) -> Result<Response<Elements<T>>, Status> {
    let subscription = streams.subscribe(&call.principal, filter, start).await?;
    let deadline = call.context.deadline;
    Ok(Response::new(elements(subscription, deadline, step)))
}

/// The frames of a subscription, mapped by `step`, up to the deadline.
fn elements<T: Send + 'static>(
    subscription: Subscription,
    deadline: Option<Instant>,
    step: fn(Frame) -> Step<T>,
) -> Elements<T> {
    let (sender, mut receiver) = mpsc::channel(1);
    let last_words: LastWords<T> = Arc::default();
    let pump = Pump {
        subscription,
        deadline,
        step,
        sender,
        last_words: Arc::clone(&last_words),
    };
    tokio::spawn(Box::pin(pump.run()));
    Box::pin(futures_util::stream::poll_fn(move |cx| {
        let element = receiver.poll_recv(cx);
        if matches!(element, Poll::Ready(None)) {
            let mut last_words = last_words.lock().unwrap_or_else(PoisonError::into_inner);
            return Poll::Ready(last_words.pop_front());
        }
        element
    }))
}

struct Pump<T> {
    subscription: Subscription,
    deadline: Option<Instant>,
    step: fn(Frame) -> Step<T>,
    sender: mpsc::Sender<Result<T, Status>>,
    last_words: LastWords<T>,
}

impl<T: Send + 'static> Pump<T> {
    /// Sends elements, until the last frame, or until the client is gone or too slow.
    async fn run(mut self) {
        loop {
            let frame = tokio::select! {
                frame = next(&mut self.subscription, self.deadline) => frame,
                () = self.sender.closed() => return,
            };
            let mut elements = VecDeque::new();
            let is_over = match frame {
                Ok(Some(frame)) => self.push(&mut elements, frame),
                Ok(None) => return,
                Err(problem) => {
                    elements.push_back(Err(Status::from(problem)));
                    true
                }
            };
            if !self.send(elements, is_over).await || is_over {
                return;
            }
        }
    }

    /// Adds the elements of a frame. Returns whether the stream ends with them.
    fn push(&self, elements: &mut VecDeque<Result<T, Status>>, frame: Frame) -> bool {
        match (self.step)(frame) {
            Step::Next(element) => {
                elements.push_back(Ok(element));
                false
            }
            Step::Last(element, problem) => {
                elements.extend(element.map(Ok));
                elements.push_back(Err(Status::from(problem)));
                true
            }
        }
    }

    /// Returns whether the client took all of them in time.
    async fn send(&mut self, mut elements: VecDeque<Result<T, Status>>, is_over: bool) -> bool {
        while let Some(element) = elements.pop_front() {
            let slow_after = self.subscription.slow_after();
            match self.sender.send_timeout(element, slow_after).await {
                Ok(()) => {}
                Err(SendTimeoutError::Closed(_)) => return false,
                Err(SendTimeoutError::Timeout(element)) => {
                    elements.push_front(element);
                    if !is_over {
                        let slow = self.subscription.cut_slow();
                        self.push(&mut elements, slow);
                    }
                    let last_words = &self.last_words;
                    *last_words.lock().unwrap_or_else(PoisonError::into_inner) = elements;
                    return false;
                }
            }
        }
        true
    }
}

async fn next(
    subscription: &mut Subscription,
    deadline: Option<Instant>,
) -> Result<Option<Frame>, Problem> {
    let Some(deadline) = deadline else {
        return Ok(subscription.next().await);
    };
    let next = timeout_at(deadline, subscription.next()).await;
    next.map_err(|_| deadline_exceeded())
}

/// How a stream ends whose client is too slow.
pub(super) fn too_slow() -> Problem {
    let detail = "the client reads too slowly; call again with the last cursor";
    Problem::new(ProblemKind::Unavailable, detail)
}

/// How a stream ends when the gateway stops, or the caller's token expires.
pub(super) fn reconnect() -> Problem {
    let detail = "this gateway stops, or the token expired; call again with the last cursor";
    Problem::new(ProblemKind::Unavailable, detail)
}
