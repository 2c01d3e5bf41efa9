//! The middleware of routes that post.

use super::controller::{Admission, Outcome, Permit};
use super::refusal::timed_out;
use crate::access::Principal;
use crate::http::{Problem, ProblemKind, RequestContext};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

/// The headers with a key of the request, in the order of preference.
const KEY_HEADERS: [&str; 2] = ["idempotency-key", "ce-id"];

/// Serves a request if [`Admission`] admits it, and refuses it otherwise without reading its body.
/// Expects a [`Principal`] and a [`RequestContext`] in the request's extensions.
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
    let decided = try_admit(&admission, &request);
    match decided {
        Ok((permit, deadline)) => serve(permit, deadline, request, next).await,
        Err(problem) => problem.into_response(),
    }
}

fn try_admit(admission: &Admission, request: &Request) -> Result<(Permit, Instant), Problem> {
    let extensions = request.extensions();
    let principal = extensions.get::<Principal>();
    let (Some(principal), Some(context)) = (principal, extensions.get::<RequestContext>()) else {
        let detail = "the gateway's routes are assembled without a caller or a context";
        return Err(Problem::new(ProblemKind::Internal, detail));
    };
    let key = retry_key(request.headers());
    let permit = admission.try_admit_keyed(principal, context, key)?;
    Ok((permit, admission.deadline(context)))
}

async fn serve(permit: Permit, deadline: Instant, request: Request, next: Next) -> Response {
    let clock = permit.body_clock();
    let timed = |body: Body| Body::new(body.inspect_frame(move |_| clock.part_arrived()));
    let request = request.map(timed);
    let (outcome, response) = match timeout_at(deadline, next.run(request)).await {
        Ok(response) => (Outcome::of_status(response.status()), response),
        Err(_) => (Outcome::TimedOut, timed_out().into_response()),
    };
    permit.finish(outcome);
    response
}

fn retry_key(headers: &HeaderMap) -> Option<&str> {
    KEY_HEADERS
        .iter()
        .find_map(|name| headers.get(*name)?.to_str().ok())
}
