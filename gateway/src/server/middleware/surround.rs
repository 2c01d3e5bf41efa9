//! All that surrounds every route, as one middleware.
//!
//! One, because each layer of a router costs a request several allocations, and a copy of all
//! layers below it.

use super::answers::{catch_panics, secure_headers};
use super::body_limits::{BodyLimits, limit_body};
use super::cross_site::{CrossSite, check_site};
use super::observe::observe;
use super::paths::check_path;
use crate::http::with_context;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use std::sync::Arc;

/// What the parts of [`surround`] need.
#[derive(Debug, Clone)]
pub(in crate::server) struct Surroundings {
    /// The scheme of the connections, for spans.
    pub(in crate::server) scheme: &'static str,
    /// The name of this gateway.
    pub(in crate::server) worker: Arc<str>,
    /// The sites whose pages may use the gateway.
    pub(in crate::server) cross_site: CrossSite,
    /// The bounds of bodies.
    pub(in crate::server) body: BodyLimits,
}

/// The middleware of every route.
pub(in crate::server) async fn surround(
    State(surroundings): State<Surroundings>,
    request: Request,
    next: Next,
) -> Response {
    let Surroundings {
        scheme,
        worker,
        cross_site,
        body,
    } = surroundings;
    // From the inside to the outside.
    let run = move |mut request: Request| {
        // `limit_body` bounds bodies instead.
        DefaultBodyLimit::disable().apply(&mut request);
        next.run(request)
    };
    let limited = move |request: Request| limit_body(body, request, run);
    let from_allowed_site = move |request: Request| check_site(cross_site, request, limited);
    let with_clear_path = move |request: Request| check_path(request, from_allowed_site);
    let caught = move |request: Request| catch_panics(request, with_clear_path);
    let secured = move |request: Request| secure_headers(request, caught);
    let in_context = move |request: Request| with_context(worker, request, secured);
    observe(scheme, request, in_context).await
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
        let surroundings = Surroundings {
            scheme: "http",
            worker: "gateway-1".into(),
            cross_site: CrossSite::default(),
            body: BodyLimits::default(),
        };
        let router: Router = Router::new()
            .route("/take", post(take))
            .route("/fail", post(fail))
            .layer(from_fn_with_state(surroundings, surround));
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
