//! Assembles the routes of the gateway, and what surrounds them.
//!
//! Owns which routes have which middlewares, and the routes that belong to no part: the description
//! of the interface, the explanations of problems, and what answers for routes that do not exist.

use super::middleware::{
    BodyLimits, CrossSite, RequestMetrics, Surroundings, identify, identify_and_admit,
    surround_route,
};
use super::posts::Posts;
use super::problems;
use crate::access::Authenticator;
use crate::admission::Admission;
use crate::http::{Problem, ProblemKind, Worker};
use crate::post::Posting;
use crate::status::{self, StatusReader};
use crate::stream::{self, Streams};
use axum::Router;
use axum::http::header;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::sync::Arc;

/// The interface over HTTP, OpenAPI 3.
const OPENAPI: &str = include_str!("../../../schemas/openapi/gateway.json");

/// The parts whose routes the gateway serves.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use]
pub struct Parts {
    /// Posts events.
    pub posting: Posting,
    /// Streams events.
    pub streams: Streams,
    /// Tells what became of an event.
    pub status: StatusReader,
    /// Refuses posts under overload.
    pub admission: Admission,
    /// Finds the caller.
    pub authenticator: Authenticator,
    /// The name of this gateway.
    pub worker: Arc<str>,
    /// The services of gRPC. Default none.
    pub grpc: Router,
    /// A team's own routes that post. Default none.
    pub own_posts: Router,
    /// A team's own routes that read. Default none.
    pub own_reads: Router,
}

impl Parts {
    /// The parts of a gateway without routes of its own.
    pub fn new(
        posting: Posting,
        streams: Streams,
        status: StatusReader,
        admission: Admission,
        authenticator: Authenticator,
        worker: Arc<str>,
    ) -> Self {
        Self {
            posting,
            streams,
            status,
            admission,
            authenticator,
            worker,
            grpc: Router::new(),
            own_posts: Router::new(),
            own_reads: Router::new(),
        }
    }

    /// Adds the services of gRPC. They authenticate and admit by themselves, as their refusals have
    /// another form. The router must have no fallback.
    pub fn with_grpc(mut self, grpc: Router) -> Self {
        self.grpc = grpc;
        self
    }

    /// Adds routes of a team's own: those that post, which are admitted by load, and those that
    /// read. Both get the caller and the request's context in the request's extensions.
    pub fn with_own_routes(mut self, posts: Router, reads: Router) -> Self {
        self.own_posts = posts;
        self.own_reads = reads;
        self
    }
}

/// Settings of what surrounds the routes. [`RouterSettings::default`] has the defaults.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
#[must_use]
pub struct RouterSettings {
    /// Bounds of bodies.
    pub body: BodyLimits,
    /// The origins (`https://shop.example`) of other sites whose pages may use the gateway. Default
    /// none.
    pub allowed_origins: Vec<String>,
    /// Whether only requests to names of this machine are served. For a gateway without
    /// authentication. Default false.
    pub local_only: bool,
    /// Whether the connections are TLS, for the attribute `url.scheme` of spans. Default false.
    pub tls: bool,
}

impl RouterSettings {
    /// Sets the bounds of bodies.
    pub fn with_body(mut self, body: BodyLimits) -> Self {
        self.body = body;
        self
    }

    /// Sets the origins of other sites whose pages may use the gateway.
    pub fn with_allowed_origins(mut self, origins: Vec<String>) -> Self {
        self.allowed_origins = origins;
        self
    }

    /// Sets whether only requests to names of this machine are served.
    pub fn with_local_only(mut self, local_only: bool) -> Self {
        self.local_only = local_only;
        self
    }

    /// Sets whether the connections are TLS.
    pub fn with_tls(mut self, tls: bool) -> Self {
        self.tls = tls;
        self
    }
}

/// The router of the gateway. A layer that is added later is outside of those before.
///
/// # Panics
/// If a team's own route is one of the gateway's.
pub fn router(parts: Parts, settings: RouterSettings) -> Router {
    let surroundings = Arc::new(Surroundings {
        scheme: if settings.tls { "https" } else { "http" },
        worker: Worker::new(parts.worker),
        cross_site: CrossSite {
            allowed_origins: settings.allowed_origins.into(),
            local_only: settings.local_only,
        },
        body: settings.body,
        metrics: RequestMetrics::default(),
    });
    let posts = Posts {
        surroundings: Arc::clone(&surroundings),
        authenticator: parts.authenticator.clone(),
        admission: parts.admission.clone(),
        posting: parts.posting,
    };
    let admitting = (parts.authenticator.clone(), parts.admission);
    let own_posts = parts
        .own_posts
        .layer(from_fn_with_state(admitting, identify_and_admit));
    let reads = stream::router(parts.streams)
        .merge(status::router(parts.status))
        .merge(parts.own_reads)
        .layer(from_fn_with_state(parts.authenticator, identify));
    let others = own_posts
        .merge(reads)
        .merge(parts.grpc)
        .route("/openapi.json", get(openapi))
        .route("/problems/{name}", get(problems::explain))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn_with_state(surroundings, surround_route));
    // The paths of posts are those of reads, too, which have answers for other methods.
    posts.into_router().merge(others)
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

async fn no_route() -> Problem {
    Problem::new(
        ProblemKind::NotFound,
        "there is no such route; see /openapi.json",
    )
}

async fn no_method() -> Problem {
    let detail = "the route has no such method; the header Allow names those that it has";
    Problem::new(ProblemKind::MethodNotAllowed, detail)
}
