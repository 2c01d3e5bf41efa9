//! The routes `POST /events` and `POST /events/{type}`.

use super::answer::{AnswerForm, HttpAnswer};
use super::binding::{self, Mode};
use super::data_request::caller;
use super::idempotency::IdempotencyKey;
use super::posting::Posting;
use crate::access::Principal;
use crate::http::{Problem, ProblemKind, RequestContext};
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::routing::post;

/// The routes `POST /events` and `POST /events/{type}`. Expects the caller and the context in the
/// request's extensions: a [`Principal`](crate::access::Principal) and a
/// [`RequestContext`](crate::http::RequestContext).
///
/// Both answer 202 when the events are durable, with a [`PostAnswer`](super::PostAnswer), and
/// otherwise with a [`Problem`]. They read the body themselves, so a body limit of axum has no
/// effect; see [`PostLimits`](super::PostLimits).
pub fn router(posting: Posting) -> Router {
    Router::new()
        .route("/events", post(post_events))
        // The same name as in the route that reads `/events/{name}`: routers with both can merge.
        .route("/events/{name}", post(post_data))
        .with_state(posting)
}

async fn post_events(
    State(posting): State<Posting>,
    request: Request,
) -> Result<HttpAnswer, Problem> {
    answer(&posting, None, request).await
}

async fn post_data(
    State(posting): State<Posting>,
    name: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<HttpAnswer, Problem> {
    let malformed = |_| Problem::new(ProblemKind::Malformed, "the path is not UTF-8");
    let Path(name) = name.map_err(malformed)?;
    answer(&posting, Some(&name), request).await
}

/// Answers a request. `name` is the event type in the path.
async fn answer(
    posting: &Posting,
    name: Option<&str>,
    request: Request,
) -> Result<HttpAnswer, Problem> {
    let (mut parts, body) = request.into_parts();
    let extensions = std::mem::take(&mut parts.extensions);
    let caller = caller(&extensions)?;
    let mode = binding::mode(&parts.headers, name.is_some())?;
    let limits = posting.limits();
    let body = binding::read_body(&parts.headers, body, limits, caller.1.deadline).await?;
    accept(posting, (mode, name), caller, parts, body).await
}

/// Answers a request of this caller whose body was read, as the routes of [`router`] do. `name` is
/// the event type in the path.
///
/// # Errors
/// Those of the routes.
pub(crate) async fn answer_read(
    posting: &Posting,
    name: Option<&str>,
    caller: (&Principal, &RequestContext),
    parts: Parts,
    body: Bytes,
) -> Result<HttpAnswer, Problem> {
    let mode = binding::mode(&parts.headers, name.is_some())?;
    binding::check_length(&parts.headers, posting.limits())?;
    if body.len() > posting.limits().body_bytes_max {
        return Err(binding::too_large(posting.limits()));
    }
    accept(posting, (mode, name), caller, parts, body).await
}

/// Accepts the events of a request.
async fn accept(
    posting: &Posting,
    (mode, name): (Mode, Option<&str>),
    (principal, context): (&Principal, &RequestContext),
    parts: Parts,
    body: Bytes,
) -> Result<HttpAnswer, Problem> {
    let content_type = parts.headers.get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let idempotency = IdempotencyKey::of_request(
        &parts.headers,
        &parts.method,
        parts.uri.path(),
        content_type.unwrap_or_default(),
        &body,
    )?;
    let text = binding::body_text(&body)?;
    let events = match mode {
        Mode::Batch => binding::batch(text, posting.limits().batch_max)?,
        Mode::Structured => vec![binding::structured(text)?],
        Mode::Data => vec![binding::binary(&parts.headers, name, text)?],
    };
    // The events are copies. The head is a part of the connection's read buffer, which has at least
    // 8 KiB, and of which the connection makes another one while the store works.
    drop((body, parts));
    let form = match mode {
        Mode::Batch => AnswerForm::List,
        Mode::Structured | Mode::Data => AnswerForm::One,
    };
    posting
        .accept_over_http(form, (principal, context), events, idempotency)
        .await
}
