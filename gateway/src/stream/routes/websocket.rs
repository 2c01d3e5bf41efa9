//! `/ws`: WebSocket messages of JSON.
//!
//! The server only sends. A client may ping and close; any other message, or a frame that breaks
//! the protocol, ends the connection with the close code 1003.
//!
//! A browser lets any page open a WebSocket to any host, with the cookies of that host. So a page
//! of another origin is refused, unless it is allowed.

use super::super::frame::Frame;
use super::super::streams::Streams;
use super::super::subscription::Subscription;
use super::encoding::write_message;
use super::request::{self, Origin};
use crate::access::Principal;
use crate::http::{Problem, ProblemKind};
use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseCode, CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, Version, header};
use axum::response::{IntoResponse, Response};
use std::time::Duration;
use tokio::time::timeout;

/// The most bytes of a message of the client.
const MESSAGE_BYTES_MAX: usize = 4 << 10;
/// The bytes of each of a connection's buffers.
const BUFFER_BYTES: usize = 4 << 10;
/// How long the end of a connection may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// The client sent something that is not for it to send.
const UNSUPPORTED_DATA: CloseCode = 1003;
/// The client is too slow.
const POLICY_VIOLATION: CloseCode = 1008;
/// The stream cannot continue.
const INTERNAL_ERROR: CloseCode = 1011;
/// The gateway stops.
const SERVICE_RESTART: CloseCode = 1012;

/// Answers `/ws`.
pub(super) async fn upgrade(
    State(streams): State<Streams>,
    Extension(principal): Extension<Principal>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    version: Version,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return refused(&rejection, version),
    };
    let opened = open(&streams, &principal, &uri, &headers).await;
    let subscription = match opened {
        Ok(subscription) => subscription,
        Err(problem) => return problem.into_response(),
    };
    let slow_after = streams.settings().slow_client_timeout;
    upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .on_upgrade(move |socket| Box::pin(run(socket, subscription, slow_after)))
}

async fn open(
    streams: &Streams,
    principal: &Principal,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Subscription, Problem> {
    let origin = Origin::of(uri, headers, &streams.settings().allowed_origins);
    if origin == Origin::Foreign {
        let detail = "a page of this origin may not open a stream";
        return Err(Problem::new(ProblemKind::Forbidden, detail));
    }
    let (filter, start) = request::read(uri, headers)?;
    let subscription = streams.subscribe(principal, filter, start).await?;
    request::check_cursor(&subscription.cursor())?;
    Ok(subscription)
}

/// The answer to a request that begins no WebSocket. Names the method and the version of WebSocket
/// that do (RFC 6455, 4.4).
fn refused(rejection: &WebSocketUpgradeRejection, version: Version) -> Response {
    let (kind, detail) = match rejection.status() {
        _ if version > Version::HTTP_11 => {
            let detail = "a WebSocket begins with a request of HTTP/1.1";
            (ProblemKind::Malformed, detail.to_owned())
        }
        StatusCode::METHOD_NOT_ALLOWED => (ProblemKind::MethodNotAllowed, rejection.body_text()),
        _ => (ProblemKind::Malformed, rejection.body_text()),
    };
    let mut response = Problem::new(kind, detail).into_response();
    let headers = response.headers_mut();
    if kind == ProblemKind::MethodNotAllowed {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET"));
    }
    let understood = HeaderValue::from_static("13");
    headers.insert(header::SEC_WEBSOCKET_VERSION, understood);
    response
}

/// Sends the frames, until one side ends.
async fn run(mut socket: WebSocket, mut subscription: Subscription, slow_after: Duration) {
    let code = loop {
        tokio::select! {
            frame = subscription.next() => {
                let Some(frame) = frame else { return };
                match timeout(slow_after, send(&mut socket, &frame)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return,
                    Err(_) if frame.is_last() => return,
                    Err(_) => {
                        let last = subscription.cut_slow();
                        let _ = timeout(CLOSE_WITHIN, send(&mut socket, &last)).await;
                        break POLICY_VIOLATION;
                    }
                }
                match frame {
                    Frame::Slow { .. } => break POLICY_VIOLATION,
                    Frame::Reconnect { .. } => break SERVICE_RESTART,
                    Frame::Failed { .. } => break INTERNAL_ERROR,
                    Frame::Event { .. } | Frame::Heartbeat { .. } | Frame::Gap { .. } => {}
                }
            }
            message = socket.recv() => match message {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_))) => {
                    // Sends the answer.
                    let _ = timeout(CLOSE_WITHIN, socket.recv()).await;
                    return;
                }
                // An error is a message that is too long, or a frame against the protocol. On a
                // connection that failed, the close fails, too.
                Some(Ok(Message::Text(_) | Message::Binary(_)) | Err(_)) => break UNSUPPORTED_DATA,
                None => return,
            },
        }
    };
    // The place of the client is free from here on.
    drop(subscription);
    let close = CloseFrame {
        code,
        reason: Utf8Bytes::from_static(""),
    };
    let _ = timeout(CLOSE_WITHIN, socket.send(Message::Close(Some(close)))).await;
}

async fn send(socket: &mut WebSocket, frame: &Frame) -> Result<(), axum::Error> {
    let mut text = Vec::new();
    write_message(&mut text, frame);
    let text = Utf8Bytes::try_from(text).map_err(axum::Error::new)?;
    socket.send(Message::Text(text)).await
}
