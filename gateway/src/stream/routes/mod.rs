//! Streams over HTTP: server-sent events on `GET /events`, WebSocket on `/ws`.
//!
//! | file | content |
//! |---|---|
//! | `request.rs` | query, `Last-Event-ID`, origins |
//! | `encoding.rs` | frames as text of server-sent events, and as JSON |
//! | `sse.rs`, `websocket.rs` | one protocol each |

mod encoding;
mod request;
mod sse;
mod websocket;

use super::streams::Streams;
use axum::Router;
use axum::routing::{any, get};

/// The routes `GET /events` and `/ws`. They expect an `Extension` with the
/// [`Principal`](crate::access::Principal) of the caller.
///
/// | parameter | times | meaning |
/// |---|---|---|
/// | `type` | 1 or more | the event types |
/// | `key` | 0 or 1 | only events of this record key |
/// | `from` | 0 or 1 | `now` (default), `earliest`, or a cursor |
///
/// The header `Last-Event-ID` of `GET /events` counts before `from`: a browser repeats the URL when
/// it reconnects. A stream whose cursors have more than 12 KiB is refused with 501, as no header
/// has room for them.
pub fn router(streams: Streams) -> Router {
    Router::new()
        .route("/events", get(sse::events))
        .route("/ws", any(websocket::upgrade))
        .with_state(streams)
}
