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
    let bytes_max = admission.body_bytes_max();
    match AdmittedRequest::read(&admission, request, bytes_max).await {
        Ok(admitted) => admitted.serve(next, outcome_of, timed_out_response).await,
        Err(problem) => problem.into_response(),
    }
}

/// A request with its whole body, which has its place.
pub(crate) struct AdmittedRequest {
    request: Request,
    admitted: Admitted,
}

impl AdmittedRequest {
    /// Admits a request, see [`Admitted::read`]. Expects what [`admit`] expects.
    ///
    /// # Errors
    /// Those of [`admit`].
    pub(crate) async fn read(
        admission: &Admission,
        request: Request,
        bytes_max: usize,
    ) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let caller = caller(&parts.extensions)?;
        let read = Admitted::read(admission, caller, &parts.headers, body, bytes_max).await;
        let (admitted, body) = read?;
        Ok(Self {
            admitted,
            request: Request::from_parts(parts, Body::from(body)),
        })
    }

    /// Serves it, see [`Admitted::serve`].
    pub(crate) async fn serve(
        self,
        next: Next,
        outcome: fn(&Response) -> Outcome,
        timed_out: fn() -> Response,
    ) -> Response {
        let served = next.run(self.request);
        self.admitted.serve(served, outcome, timed_out).await
    }
}

/// The place of a request whose body was read.
pub(crate) struct Admitted {
    permit: Permit,
    deadline: Instant,
}

impl Admitted {
    /// Admits a request of this caller: the caller's rate by the head, then the body, at most
    /// `bytes_max` long, then the load. Returns the body, too.
    ///
    /// # Errors
    /// Those of [`admit`].
    pub(crate) async fn read<B>(
        admission: &Admission,
        (principal, context): (&Principal, &RequestContext),
        headers: &HeaderMap,
        body: B,
        bytes_max: usize,
    ) -> Result<(Self, Bytes), Problem>
    where
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: Into<axum::BoxError>,
    {
        admission.try_rate(principal)?;
        let body = read_upload(admission, principal, context.deadline, body, bytes_max).await?;
        let permit = admission.try_permit(principal, context, retry_key(headers))?;
        let deadline = admission.deadline(context);
        Ok((Self { permit, deadline }, body))
    }

    /// Awaits the answer until the deadline. The limit learns from its outcome.
    pub(crate) async fn serve(
        self,
        answer: impl Future<Output = Response>,
        outcome: fn(&Response) -> Outcome,
        timed_out: fn() -> Response,
    ) -> Response {
        let (outcome, response) = match timeout_at(self.deadline, answer).await {
            Ok(response) => (outcome(&response), response),
            Err(_) => (Outcome::TimedOut, timed_out()),
        };
        self.permit.finish(outcome);
        response
    }
}

/// The whole body, at most `bytes_max` long. A body that declares more is not read. `deadline` is
/// that of the caller, if it set one.
///
/// # Errors
/// A problem whose detail says that nothing was accepted: the body is too large, too slow, or broke
/// off, or there is no place for it.
async fn read_upload<B>(
    admission: &Admission,
    principal: &Principal,
    deadline: Option<Instant>,
    body: B,
    bytes_max: usize,
) -> Result<Bytes, Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let _place = admission.try_upload(principal)?;
    let latest = Instant::now() + admission.settings().body_time_max;
    let ends = deadline.map_or(latest, |deadline| deadline.min(latest));
    match timeout_at(ends, read_all(body, bytes_max)).await {
        Ok(Ok(bytes)) => Ok(bytes),
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

/// The body in one buffer: chunks of a byte each, kept apart, would take forty times the room. One
/// that is a single chunk is not copied.
async fn read_all<B>(body: B, bytes_max: usize) -> Result<Bytes, axum::BoxError>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    let mut body = Limited::new(body, bytes_max);
    let (mut first, mut all) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        if first.is_empty() && all.is_empty() {
            first = data;
            continue;
        }
        all.extend_from_slice(&std::mem::take(&mut first));
        all.extend_from_slice(&data);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// The outcome of a post over HTTP.
pub(crate) fn outcome_of(response: &Response) -> Outcome {
    Outcome::of_status(response.status())
}

/// The answer to a post over HTTP that was given up.
pub(crate) fn timed_out_response() -> Response {
    timed_out().into_response()
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

/// The key by which a refused request is known when it comes back.
fn retry_key(headers: &HeaderMap) -> Option<&str> {
    KEY_HEADERS
        .iter()
        .find_map(|name| headers.get(*name)?.to_str().ok())
}
