//! The route `GET /events/{name}`, where the name is the id of the event.

use super::answer::EventStatus;
use super::event_id::StatusQuery;
use super::reader::StatusReader;
use crate::access::Principal;
use crate::http::{Problem, ProblemKind, RequestContext, is_utf8_query};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, Uri, header};
use axum::routing::get;
use axum::{Extension, Json, Router};

/// The route. It expects the extensions [`Principal`] and [`RequestContext`].
///
/// The query has the members of [`StatusQuery`]: `source`, `type` and `since`. The answer is an
/// [`EventStatus`].
pub fn router(reader: StatusReader) -> Router {
    Router::new()
        .route("/events/{name}", get(event))
        .with_state(reader)
}

async fn event(
    State(reader): State<StatusReader>,
    Extension(principal): Extension<Principal>,
    Extension(context): Extension<RequestContext>,
    id: Result<Path<String>, PathRejection>,
    uri: Uri,
    query: Result<Query<StatusQuery>, QueryRejection>,
) -> Result<([(HeaderName, &'static str); 1], Json<EventStatus>), Problem> {
    let Path(id) = id.map_err(|_| malformed("the id must be percent-encoded UTF-8"))?;
    if !is_utf8_query(uri.query()) {
        return Err(malformed("the query must be percent-encoded UTF-8"));
    }
    let Query(query) = query.map_err(|_| {
        malformed("the query may have source, type, and since as a time in RFC 3339")
    })?;
    let status = reader.event_for(&principal, &context, &id, &query).await?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(status)))
}

fn malformed(detail: &'static str) -> Problem {
    Problem::new(ProblemKind::Malformed, detail)
}
