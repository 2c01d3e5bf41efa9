//! All that surrounds every route, as one function.
//!
//! One, because each layer of a router costs a request several allocations, and a copy of all
//! layers below it. Parts that need not wait are plain functions before and after the handler: each
//! future around another one is a copy of it.

use super::answers;
use super::body_limits::{BodyLimits, LimitedBody, limit_body};
use super::cross_site::{CrossSite, check_site};
use super::observe::{Caller, Observation};
use super::paths;
use super::request_metrics::RequestMetrics;
use crate::http::{AnswerHeaders, RequestContext, Worker};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tracing::Instrument;

/// What the parts of [`surround`] need.
#[derive(Debug)]
pub(in crate::server) struct Surroundings {
    /// The scheme of the connections, for spans.
    pub(in crate::server) scheme: &'static str,
    /// This gateway.
    pub(in crate::server) worker: Worker,
    /// The sites whose pages may use the gateway.
    pub(in crate::server) cross_site: CrossSite,
    /// The bounds of bodies.
    pub(in crate::server) body: BodyLimits,
    /// The metrics of requests.
    pub(in crate::server) metrics: RequestMetrics,
}

/// What is known of a request before its handler.
#[derive(Debug)]
pub(in crate::server) struct Known {
    /// Its context.
    pub(in crate::server) context: RequestContext,
    /// The place for the name of its caller.
    pub(in crate::server) caller: Caller,
}

/// The middleware of a route: [`surround`] with the context and the place of the caller in the
/// request's extensions.
pub(in crate::server) async fn surround_route(
    State(surroundings): State<Arc<Surroundings>>,
    request: Request,
    next: Next,
) -> Response {
    let handle = move |request: Request<LimitedBody>, known: Known| {
        let mut request = request.map(LimitedBody::into_body);
        let extensions = request.extensions_mut();
        extensions.insert(known.context);
        extensions.insert(known.caller);
        // `limit_body` bounds bodies instead.
        DefaultBodyLimit::disable().apply(&mut request);
        next.run(request)
    };
    surround(&surroundings, request, handle).await
}

/// Answers a request, with all that surrounds its handler.
pub(in crate::server) async fn surround<F>(
    surroundings: &Surroundings,
    request: Request,
    handle: impl FnOnce(Request<LimitedBody>, Known) -> F,
) -> Response
where
    F: Future<Output = Response>,
{
    let observed = Observation::begin(surroundings.scheme, &request);
    let span = &observed.span;
    // In the span, whose trace the context continues.
    let of_request = || RequestContext::of(request.headers(), &surroundings.worker);
    let (context, refused) = span.in_scope(of_request);
    let answer_headers = AnswerHeaders::new(&context, &surroundings.worker);
    let mut response = if let Some(problem) = refused {
        problem.into_response()
    } else {
        let caller = observed.caller.clone();
        let known = Known { context, caller };
        let answered = checked(surroundings, request, |request| handle(request, known));
        let caught = AssertUnwindSafe(answered).catch_unwind();
        let mut response = match caught.instrument(span.clone()).await {
            Ok(response) => response,
            Err(_) => {
                span.in_scope(|| answers::of_panic(observed.route(), answer_headers.trace_id()))
            }
        };
        answers::secure(response.headers_mut());
        response
    };
    answer_headers.add_to(response.headers_mut());
    observed.end(&response, &surroundings.metrics);
    response
}

/// Answers a request if its path, its site and its body are allowed.
async fn checked<F>(
    surroundings: &Surroundings,
    request: Request,
    handle: impl FnOnce(Request<LimitedBody>) -> F,
) -> Response
where
    F: Future<Output = Response>,
{
    if let Some(problem) = paths::refusal(request.uri()) {
        return problem.into_response();
    }
    let body = surroundings.body;
    let limited = |request| limit_body(body, request, handle);
    check_site(surroundings.cross_site.clone(), request, limited).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::{Body, Bytes};
    use axum::http::StatusCode;
    use axum::middleware::from_fn_with_state;
    use axum::routing::post;
    use tower::ServiceExt;

    async fn take(_: Bytes) -> StatusCode {
        StatusCode::OK
    }

    async fn fail() -> StatusCode {
        panic!("as told")
    }

    #[tokio::test]
    async fn every_answer_has_the_headers_of_all_parts() {
        let surroundings = Arc::new(Surroundings {
            scheme: "http",
            worker: Worker::new("gateway-1".into()),
            cross_site: CrossSite::default(),
            body: BodyLimits::default(),
            metrics: RequestMetrics::default(),
        });
        let router: Router = Router::new()
            .route("/take", post(take))
            .route("/fail", post(fail))
            .layer(from_fn_with_state(surroundings, surround_route));
        for (path, bytes, expected) in [
            // More than the bound of axum.
            ("/take", 3 << 20, 200),
            ("/take", 5 << 20, 413),
            ("/fail", 0, 500),
        ] {
            let request = axum::http::Request::post(path).header("host", "localhost");
            let request = request.body(Body::from(vec![0; bytes]));
            let request = request.expect("a request");
            let answer = router.clone().oneshot(request).await;
            let answer = answer.expect("it is infallible");
            assert_eq!(answer.status(), expected, "{path} {bytes}");
            for name in ["trace-id", "worker", "x-content-type-options"] {
                assert!(answer.headers().contains_key(name), "{path} {name}");
            }
        }
    }
}
