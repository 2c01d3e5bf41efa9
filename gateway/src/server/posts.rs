//! The routes that post events, each with all that surrounds it as one future.
//!
//! Middlewares of a router would do the same for each request with a copy of the route, and with
//! futures of their own on the heap. A team's own routes, which are as rare as the team, have them.

use super::middleware::{Known, LimitedBody, Surroundings, surround};
use crate::access::Authenticator;
use crate::admission::{Admission, Admitted, outcome_of, timed_out_response};
use crate::http::{Problem, ProblemKind};
use crate::post::{self, Posting};
use axum::Router;
use axum::extract::{FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post_service};
use std::convert::Infallible;
use std::sync::Arc;
use tower::service_fn;

/// What posts need.
pub(super) struct Posts {
    pub(super) surroundings: Arc<Surroundings>,
    pub(super) authenticator: Authenticator,
    pub(super) admission: Admission,
    pub(super) posting: Posting,
}

/// Where a request has the type of its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TypeIn {
    Event,
    Path,
}

impl Posts {
    /// The routes of [`post::router`](crate::post::router), authenticated, admitted and surrounded.
    pub(super) fn into_router(self) -> Router {
        let posts = Arc::new(self);
        Router::new()
            .route("/events", posts.route(TypeIn::Event))
            // The same name as in the route that reads `/events/{name}`: the routers merge.
            .route("/events/{name}", posts.route(TypeIn::Path))
    }

    fn route(self: &Arc<Self>, type_in: TypeIn) -> MethodRouter {
        let posts = Arc::clone(self);
        post_service(service_fn(move |request: Request| {
            let posts = Arc::clone(&posts);
            async move { Ok::<Response, Infallible>(posts.answer(request, type_in).await) }
        }))
    }

    async fn answer(&self, request: Request, type_in: TypeIn) -> Response {
        let handle = |request: Request<LimitedBody>, known: Known| async move {
            match self.admit(request, known, type_in).await {
                Ok(response) => response,
                Err(problem) => problem.into_response(),
            }
        };
        surround(&self.surroundings, request, handle).await
    }

    /// Finds the caller, admits the request, and posts its events.
    async fn admit(
        &self,
        mut request: Request<LimitedBody>,
        known: Known,
        type_in: TypeIn,
    ) -> Result<Response, Problem> {
        let Known { context, caller } = known;
        let principal = self.authenticator.identify(&mut request)?;
        caller.set(&principal.name);
        let (mut parts, body) = request.into_parts();
        let (admission, caller) = (&self.admission, (&principal, &context));
        let bytes_max = admission.body_bytes_max();
        let read = Admitted::read(admission, caller, &parts.headers, body, bytes_max).await;
        let (admitted, body) = read?;
        let post = async {
            let name = match type_in {
                TypeIn::Event => None,
                TypeIn::Path => Some(type_in_path(&mut parts).await?),
            };
            post::answer_read(&self.posting, name.as_deref(), caller, parts, body).await
        };
        let answer = async {
            match post.await {
                Ok(answer) => answer.into_response(),
                Err(problem) => problem.into_response(),
            }
        };
        Ok(admitted.serve(answer, outcome_of, timed_out_response).await)
    }
}

/// The event type in the path.
async fn type_in_path(parts: &mut Parts) -> Result<String, Problem> {
    let name = Path::<String>::from_request_parts(parts, &()).await;
    let malformed = |_| Problem::new(ProblemKind::Malformed, "the path is not UTF-8");
    name.map(|Path(name)| name).map_err(malformed)
}
