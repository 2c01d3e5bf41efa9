//! The routes of orders.

use super::lag::ReadModelLag;
use super::new_order::{cancellation, placement};
use super::order_reader::{OrderAnswer, OrderReader};
use crate::access::Principal;
use crate::http::{Problem, ProblemKind, RequestContext};
use crate::post::{DataRequest, PostAnswer, Posting};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use evenkeel_program::duration::parse_duration;
use serde::Deserialize;
use std::time::Duration;
use tokio::time::timeout_at;

/// The header with the lag of the read model, in seconds.
const LAG_HEADER: HeaderName = HeaderName::from_static("read-model-lag");
/// The longest wait for a newer state.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// What a wait leaves of the request's deadline for the answer.
const ANSWER_MARGIN: Duration = Duration::from_millis(200);

#[derive(Clone)]
struct Orders {
    posting: Posting,
    reader: OrderReader,
    lag: ReadModelLag,
}

/// The routes of orders: those that post, and those that read, apart, because only the first are
/// admitted by load. Both expect the caller and the request's context in the request's extensions.
pub fn router(posting: Posting, reader: OrderReader, lag: ReadModelLag) -> (Router, Router) {
    let orders = Orders {
        posting,
        reader,
        lag,
    };
    let posts = Router::new()
        .route("/orders", post(place))
        .route("/orders/{id}/cancellation", post(cancel))
        .with_state(orders.clone());
    let reads = Router::new()
        .route("/orders/{id}", get(read))
        .with_state(orders);
    (posts, reads)
}

async fn place(State(orders): State<Orders>, request: Request) -> Result<PostAnswer, Problem> {
    let request = DataRequest::read(request, orders.posting.limits()).await?;
    let event = placement(request.data, request.event_id, jiff::Timestamp::now())?;
    let (principal, context) = (&request.principal, &request.context);
    let posting = &orders.posting;
    posting
        .accept(principal, context, vec![event], request.idempotency)
        .await
}

async fn cancel(
    State(orders): State<Orders>,
    order_id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<PostAnswer, Problem> {
    let order_id = readable(order_id)?;
    let request = DataRequest::read(request, orders.posting.limits()).await?;
    let event = cancellation(&order_id, request.data, request.event_id)?;
    let (principal, context) = (&request.principal, &request.context);
    let posting = &orders.posting;
    posting
        .accept(principal, context, vec![event], request.idempotency)
        .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wait {
    wait: Option<String>,
}

async fn read(
    State(orders): State<Orders>,
    Extension(principal): Extension<Principal>,
    Extension(context): Extension<RequestContext>,
    order_id: Result<Path<String>, PathRejection>,
    query: Result<Query<Wait>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let order_id = readable(order_id)?;
    let Query(Wait { wait }) = query.map_err(|_| {
        let detail = "the query has at most one parameter, wait, such as ?wait=2s";
        Problem::new(ProblemKind::Malformed, detail)
    })?;
    if !principal.rights.status {
        let detail = "this caller may not read orders; its token needs the right `status`";
        return Err(Problem::new(ProblemKind::Forbidden, detail));
    }
    let mut wait = wait.as_deref().map(parse_wait).transpose()?;
    if let (Some(wait), Some(left)) = (&mut wait, context.time_left()) {
        *wait = (*wait).min(left.saturating_sub(ANSWER_MARGIN));
    }
    let known = known_tags(&headers);
    let reading = orders.reader.order(&order_id, wait, known.as_deref());
    let answer = match context.deadline {
        Some(deadline) => {
            let answer = timeout_at(deadline, reading).await;
            answer.map_err(|_| {
                let detail = "the deadline passed before the orderboard answered";
                Problem::new(ProblemKind::DeadlineExceeded, detail)
            })??
        }
        None => reading.await?,
    };
    let mut response = match answer {
        OrderAnswer::Found(order) => {
            let tag = order.version.clone();
            tagged(Json(order).into_response(), &tag)
        }
        OrderAnswer::Unchanged { version } => {
            tagged(StatusCode::NOT_MODIFIED.into_response(), &version)
        }
        OrderAnswer::Unknown => {
            let detail = "no event about this order was handled yet; if it was just placed, ask \
                          again with ?wait=2s";
            Problem::new(ProblemKind::NotFound, detail).into_response()
        }
    };
    if let Some(lag) = orders.lag.current() {
        let seconds = format!("{:.3}", lag.as_secs_f64());
        if let Ok(seconds) = HeaderValue::from_str(&seconds) {
            response.headers_mut().insert(LAG_HEADER, seconds);
        }
    }
    Ok(response)
}

/// All tags in `If-None-Match`, which may be divided into several headers.
fn known_tags(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(header::IF_NONE_MATCH).iter();
    let tags: Vec<&str> = values.filter_map(|tags| tags.to_str().ok()).collect();
    (!tags.is_empty()).then(|| tags.join(", "))
}

/// Adds the tag of the order's version, to a 304 too: some clients forget a tag that the answer
/// does not repeat (RFC 9110, 15.4.5).
fn tagged(mut response: Response, tag: &str) -> Response {
    let tag = Some(tag).filter(|tag| !tag.is_empty());
    if let Some(Ok(tag)) = tag.map(HeaderValue::from_str) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// The id in a path, which may be any bytes once it is decoded.
fn readable(order_id: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    let Path(order_id) =
        order_id.map_err(|_| Problem::new(ProblemKind::Malformed, "the order id is not UTF-8"))?;
    Ok(order_id)
}

fn parse_wait(text: &str) -> Result<Duration, Problem> {
    let wait = parse_duration(text).map_err(|reason| {
        Problem::new(
            ProblemKind::Malformed,
            format!("the query's wait: {reason}"),
        )
    })?;
    Ok(wait.min(WAIT_MAX))
}
