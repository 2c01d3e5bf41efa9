//! `GET /events`: server-sent events.
//!
//! A task per client moves frames from the subscription to the body, so that a client that stops
//! reading frees its subscription in time, whatever the connection does.

use super::super::frame::Frame;
use super::super::streams::Streams;
use super::super::subscription::Subscription;
use super::encoding::{write_event, write_retry};
use super::request::{self, Origin};
use crate::access::Principal;
use crate::http::Problem;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::FutureExt;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::mpsc;

/// When a client reconnects after a break.
const RETRY: Duration = Duration::from_secs(2);
/// The bytes from which a chunk is sent without waiting for more that is ready.
const CHUNK_BYTES: usize = 16 << 10;
/// Proxies that compress hold a stream back until they have enough of it; this forbids it.
const NOT_KEPT_NOR_CHANGED: &str = "no-store, no-transform";
/// Tells nginx not to buffer the answer.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Answers `GET /events`.
pub(super) async fn events(
    State(streams): State<Streams>,
    Extension(principal): Extension<Principal>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let origin = Origin::of(&uri, &headers, &streams.settings().allowed_origins);
    let opened = open(&streams, &principal, &uri, &headers).await;
    let mut response = match opened {
        Ok(subscription) => {
            let slow_after = streams.settings().slow_client_timeout;
            respond(body(subscription, slow_after))
        }
        Err(problem) => problem.into_response(),
    };
    origin.allow(response.headers_mut());
    response
}

async fn open(
    streams: &Streams,
    principal: &Principal,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Subscription, Problem> {
    let (filter, start) = request::read(uri, headers)?;
    let subscription = streams.subscribe(principal, filter, start).await?;
    request::check_cursor(&subscription.cursor())?;
    Ok(subscription)
}

fn respond(body: Body) -> Response {
    let mut response = Response::new(body);
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, NOT_KEPT_NOR_CHANGED),
        (ACCEL_BUFFERING, "no"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The text after the last chunk, for a client that was too slow to leave room for it.
type LastWords = Arc<Mutex<Option<Bytes>>>;

fn body(subscription: Subscription, slow_after: Duration) -> Body {
    let (sender, mut chunks) = mpsc::channel(1);
    let last_words = LastWords::default();
    tokio::spawn(Box::pin(pump(
        subscription,
        sender,
        slow_after,
        Arc::clone(&last_words),
    )));
    Body::from_stream(futures_util::stream::poll_fn(move |cx| {
        let chunk = match chunks.poll_recv(cx) {
            Poll::Ready(None) => Poll::Ready(
                last_words
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take(),
            ),
            chunk => chunk,
        };
        chunk.map(|chunk: Option<Bytes>| chunk.map(Ok::<_, Infallible>))
    }))
}

/// Sends the frames in chunks, until the last frame, or until the client is gone or too slow.
async fn pump(
    mut subscription: Subscription,
    sender: mpsc::Sender<Bytes>,
    slow_after: Duration,
    last_words: LastWords,
) {
    let mut chunk = Vec::new();
    write_retry(&mut chunk, RETRY);
    loop {
        let frame = tokio::select! {
            frame = subscription.next() => frame,
            () = sender.closed() => return,
        };
        let mut next = frame;
        let mut is_over = next.is_none();
        while let Some(frame) = next {
            write(&mut chunk, &frame);
            is_over = frame.is_last();
            if is_over || chunk.len() >= CHUNK_BYTES {
                break;
            }
            next = subscription.next().now_or_never().flatten();
        }
        let bytes = Bytes::from(std::mem::take(&mut chunk));
        match sender.send_timeout(bytes, slow_after).await {
            Ok(()) if is_over => return,
            Ok(()) => {}
            Err(mpsc::error::SendTimeoutError::Closed(_)) => return,
            Err(mpsc::error::SendTimeoutError::Timeout(bytes)) => {
                let mut rest = bytes.to_vec();
                if !is_over {
                    write(&mut rest, &subscription.cut_slow());
                }
                let mut last_words = last_words.lock().unwrap_or_else(PoisonError::into_inner);
                *last_words = Some(rest.into());
                return;
            }
        }
    }
}

fn write(chunk: &mut Vec<u8>, frame: &Frame) {
    write_event(chunk, frame);
    if matches!(frame, Frame::Reconnect { .. }) {
        // The clients of this gateway do not all come back at the same moment.
        let millis = 200 + u64::from(rand::random::<u16>()) % 3_000;
        write_retry(chunk, Duration::from_millis(millis));
    }
}
