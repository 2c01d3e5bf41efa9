//! Subscriptions as response streams.
//!
//! A subscription buffers a bounded number of frames. HTTP/2's flow control stops this stream from
//! taking them when the client does not read; the subscription then ends with
//! [`Frame::Slow`]. Nothing is buffered here.

use super::call::deadline_exceeded;
use crate::http::{Problem, ProblemKind};
use crate::stream::{Frame, Subscription};
use futures_util::Stream;
use std::pin::Pin;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

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

/// Where a stream is.
enum State {
    Open(Box<Subscription>),
    Ending(Problem),
    Ended,
}

/// The frames of a subscription, mapped by `step`, up to the deadline.
pub(super) fn elements<T: Send + 'static>(
    subscription: Subscription,
    deadline: Option<Instant>,
    step: fn(Frame) -> Step<T>,
) -> Elements<T> {
    let open = State::Open(Box::new(subscription));
    Box::pin(futures_util::stream::unfold(
        open,
        move |state| async move {
            let mut subscription = match state {
                State::Open(subscription) => subscription,
                State::Ending(problem) => return Some((Err(Status::from(problem)), State::Ended)),
                State::Ended => return None,
            };
            let frame = match next(&mut subscription, deadline).await {
                Ok(frame) => frame?,
                Err(problem) => return Some((Err(Status::from(problem)), State::Ended)),
            };
            Some(match step(frame) {
                Step::Next(element) => (Ok(element), State::Open(subscription)),
                Step::Last(Some(element), problem) => (Ok(element), State::Ending(problem)),
                Step::Last(None, problem) => (Err(Status::from(problem)), State::Ended),
            })
        },
    ))
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

/// How a stream ends when the gateway stops.
pub(super) fn reconnect() -> Problem {
    let detail = "this gateway stops; call again with the last cursor";
    Problem::new(ProblemKind::Unavailable, detail)
}
