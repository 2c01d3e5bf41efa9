//! The middleware of routes that post: reads the body, then asks [`Admission`].
//!
//! The rate of the caller is checked first, by the head alone. The body comes before the other
//! checks, so that a caller that sends slowly holds neither a place of the concurrency limit nor
//! the latency that the limit follows. Uploads have a bound of their own.

use super::controller::{Admission, Outcome, Permit};
use super::refusal::timed_out;
use crate::access::Principal;
use crate::http::{Problem, ProblemKind, RequestContext};
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{Extensions, HeaderMap};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::error::Error;
use tokio::time::{Instant, timeout_at};

/// The headers with a key of the request, in the order of preference.
const KEY_HEADERS: [&str; 2] = ["idempotency-key", "ce-id"];

/// Reads the body of a request, then serves the request if [`Admission`] admits it, and refuses it
/// otherwise. The handler gets the whole body. Expects a [`Principal`] and a [`RequestContext`] in
/// the request's extensions.
///
/// A body beyond [`body_bytes_max`](super::AdmissionSettings::body_bytes_max) is refused with 413,
/// unread if it declares its length, one beyond
/// [`body_time_max`](super::AdmissionSettings::body_time_max) with 408, and one that comes while
/// [`uploads_max`](super::AdmissionSettings::uploads_max) others are on their way with 503, or with
/// 429 if the caller has its share of them. Nothing was accepted then.
///
/// The request is given up at [`Admission::deadline`]; the answer is then a 504, after which it is
/// not known whether the events were accepted. Requests that only read (`GET`, `HEAD`, `OPTIONS`)
/// pass.
///
/// ```
/// use axum::{Router, middleware, routing::post};
/// use evenkeel_gateway::admission::{Admission, AdmissionSettings, admit};
/// use evenkeel_gateway::store::Backlog;
///
/// let admission = Admission::new(AdmissionSettings::outbox(), Backlog::default);
/// let router: Router = Router::new()
///     .route("/events", post(|| async {}))
///     .layer(middleware::from_fn_with_state(admission, admit));
/// ```
pub async fn admit(State(admission): State<Admission>, request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let request = match upload(&admission, request).await {
        Ok(request) => request,
        Err(problem) => return problem.into_response(),
    };
    let decided = try_admit(&admission, &request);
    match decided {
        Ok((permit, deadline)) => serve(permit, deadline, request, next).await,
        Err(problem) => problem.into_response(),
    }
}

/// The request with its whole body, if its caller keeps its rate.
async fn upload(admission: &Admission, request: Request) -> Result<Request, Problem> {
    let (parts, body) = request.into_parts();
    let (principal, context) = caller(&parts.extensions)?;
    admission.try_rate(principal)?;
    let bytes_max = admission.settings().body_bytes_max;
    let read = read_upload(admission, principal, context.deadline, body, bytes_max).await?;
    Ok(Request::from_parts(parts, read))
}

/// The whole body, at most `bytes_max` long. A body that declares more is not read. `deadline` is
/// that of the caller, if it set one.
///
/// # Errors
/// A problem whose detail says that nothing was accepted: the body is too large, too slow, or broke
/// off, or there is no place for it.
pub(crate) async fn read_upload(
    admission: &Admission,
    principal: &Principal,
    deadline: Option<Instant>,
    body: Body,
    bytes_max: usize,
) -> Result<Body, Problem> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    if body.is_end_stream() {
        return Ok(body);
    }
    let _place = admission.try_upload(principal)?;
    let latest = Instant::now() + admission.settings().body_time_max;
    let ends = deadline.map_or(latest, |deadline| deadline.min(latest));
    match timeout_at(ends, read_all(body, bytes_max)).await {
        Ok(Ok(bytes)) => Ok(Body::from(bytes)),
        Ok(Err(error)) if is_limit(&*error) => Err(too_large()),
        Ok(Err(_)) => {
            let detail = "the body broke off; nothing was accepted";
            Err(Problem::new(ProblemKind::Malformed, detail))
        }
        Err(_) if ends < latest => {
            let detail = "the deadline passed before the body had arrived; nothing was accepted";
            Err(Problem::new(ProblemKind::DeadlineExceeded, detail))
        }
        Err(_) => {
            let detail = "the body did not arrive in time; nothing was accepted";
            Err(Problem::new(ProblemKind::SlowBody, detail))
        }
    }
}

/// The body in one buffer: chunks of a byte each, kept apart, would take forty times the room.
async fn read_all(body: Body, bytes_max: usize) -> Result<Bytes, axum::BoxError> {
    let (mut body, mut all) = (Limited::new(body, bytes_max), BytesMut::new());
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            all.extend_from_slice(&data);
        }
    }
    Ok(all.freeze())
}

/// Without the bound: that of the route is usually lower.
fn too_large() -> Problem {
    let detail = "the body is larger than a post may be; nothing was accepted";
    Problem::new(ProblemKind::TooLarge, detail)
}

/// Whether the bound of this file was reached.
fn is_limit(error: &(dyn Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    causes.any(|cause| cause.is::<LengthLimitError>())
}

/// The caller and the context, which middleware adds.
fn caller(extensions: &Extensions) -> Result<(&Principal, &RequestContext), Problem> {
    extensions.get().zip(extensions.get()).ok_or_else(|| {
        let detail = "the gateway's routes are assembled without a caller or a context";
        Problem::new(ProblemKind::Internal, detail)
    })
}

fn try_admit(admission: &Admission, request: &Request) -> Result<(Permit, Instant), Problem> {
    let (principal, context) = caller(request.extensions())?;
    let key = retry_key(request.headers());
    let permit = admission.try_permit(principal, context, key)?;
    Ok((permit, admission.deadline(context)))
}

async fn serve(permit: Permit, deadline: Instant, request: Request, next: Next) -> Response {
    let (outcome, response) = match timeout_at(deadline, next.run(request)).await {
        Ok(response) => (Outcome::of_status(response.status()), response),
        Err(_) => (Outcome::TimedOut, timed_out().into_response()),
    };
    permit.finish(outcome);
    response
}

/// The key by which a refused request is known when it comes back.
pub(crate) fn retry_key(headers: &HeaderMap) -> Option<&str> {
    KEY_HEADERS
        .iter()
        .find_map(|name| headers.get(*name)?.to_str().ok())
}
