//! Answers queries of single orders over HTTP, for the gateway: `GET /orders/{id}`.
//!
//! Owns the address and its answers. Reads the cache, else the store, as the command `show` does,
//! and never writes.
//!
//! | request | answer |
//! |---|---|
//! | `GET /orders/o-1` | 200 with the order, `ETag: "2"`; 404 if no event about it was handled |
//! | … `?wait=2` | as soon as the order exists, 404 after 2 seconds |
//! | … `?wait=2`, `If-None-Match: "2"` | as soon as it has more than 2 facts, 304 after 2 seconds |
//!
//! The tag is the number of the order's facts: facts are only added, so a larger number is a newer
//! state, whichever instance answers. Of several tags in `If-None-Match` the newest counts, and `*`
//! is the state at the time of the request. A 304 repeats the tag that the caller knows.

use super::cache::Cache;
use super::queries::{self, Order};
use anyhow::{Context, Result};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

/// The longest wait for a newer state. A longer one is shortened.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// How long a waiting request waits between two readings.
const READ_INTERVAL: Duration = Duration::from_millis(50);
/// The most requests that read at the same time. Others wait their turn.
const READS_MAX: usize = 16;

/// What the answers are read from.
pub(super) struct OrderQueries {
    store: PathBuf,
    cache: Option<Cache>,
    reads: Semaphore,
}

impl OrderQueries {
    pub(super) fn new(store: PathBuf, cache: Option<Cache>) -> Self {
        let reads = Semaphore::new(READS_MAX);
        Self {
            store,
            cache,
            reads,
        }
    }

    async fn order(&self, order_id: &str) -> Result<Option<Order>> {
        let _turn = self.reads.acquire().await?;
        if let Some(cache) = &self.cache {
            match cache.order(order_id).await {
                Ok(None) => {}
                Ok(order) => return Ok(order),
                Err(error) => tracing::debug!("the cache does not answer: {error:#}"),
            }
        }
        let mut store = queries::open(&self.store).await?;
        queries::order(&mut store, order_id).await
    }
}

/// Binds `address` and answers queries until the runtime ends.
///
/// # Errors
/// If the address cannot be bound.
pub(super) async fn start(address: SocketAddr, queries: OrderQueries) -> Result<SocketAddr> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
    let address = listener.local_addr()?;
    tracing::info!(%address, "answering queries of orders");
    let router = router(queries);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

fn router(queries: OrderQueries) -> Router {
    Router::new()
        .route("/orders/{id}", get(order))
        .with_state(Arc::new(queries))
}

#[derive(Deserialize)]
struct Wait {
    /// Seconds.
    wait: Option<f64>,
}

async fn order(
    State(queries): State<Arc<OrderQueries>>,
    Path(order_id): Path<String>,
    Query(Wait { wait }): Query<Wait>,
    headers: HeaderMap,
) -> Response {
    let wait = Duration::try_from_secs_f64(wait.unwrap_or(0.0)).unwrap_or(WAIT_MAX);
    let deadline = Instant::now() + wait.min(WAIT_MAX);
    let mut known = None;
    loop {
        let order = match queries.order(&order_id).await {
            Ok(order) => order,
            Err(error) => {
                tracing::warn!("cannot read an order: {error:#}");
                return StatusCode::SERVICE_UNAVAILABLE.into_response();
            }
        };
        let version = order.as_ref().map(|order| order.facts.len());
        let known = *known.get_or_insert_with(|| known_version(&headers, version));
        if version > known {
            return order.map_or(StatusCode::NOT_FOUND.into_response(), answer);
        }
        if Instant::now() >= deadline {
            return match known.filter(|_| order.is_some()) {
                Some(known) => tagged(StatusCode::NOT_MODIFIED.into_response(), known),
                None => StatusCode::NOT_FOUND.into_response(),
            };
        }
        sleep_until(deadline.min(Instant::now() + READ_INTERVAL)).await;
    }
}

fn answer(order: Order) -> Response {
    let version = order.facts.len();
    tagged(Json(order).into_response(), version)
}

fn tagged(mut response: Response, version: usize) -> Response {
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{version}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// The newest version in `If-None-Match`, if there is one of ours. `*` is the `current` one.
fn known_version(headers: &HeaderMap, current: Option<usize>) -> Option<usize> {
    let values = headers.get_all(header::IF_NONE_MATCH).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    let tags = values.flat_map(|value| value.split(',')).map(str::trim);
    let versions = tags.filter_map(|tag| match tag {
        "*" => current,
        tag => version_in(tag),
    });
    versions.max()
}

/// The version in an entity tag. Its quotes may be missing: shells remove them.
fn version_in(tag: &str) -> Option<usize> {
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    let quoted = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    quoted.unwrap_or(tag).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::{SCHEMA, Telling, learn};
    use super::*;
    use crate::effect_journal;
    use crate::testing::effect;
    use axum::body::Body;
    use axum::http::Request;
    use shop_schemas::{OrderCancelled, PaymentDeclined};
    use sqlx::ConnectOptions;
    use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
    use tower::ServiceExt;

    async fn store(path: &std::path::Path) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(path);
        let options = options.create_if_missing(true);
        let mut store = options.connect().await.expect("a store");
        for schema in [effect_journal::SCHEMA, SCHEMA] {
            let made = sqlx::raw_sql(schema).execute(&mut store).await;
            made.expect("its tables");
        }
        store
    }

    async fn add(store: &mut SqliteConnection, event: &impl Telling) {
        let fact = event.new_fact(effect("e-1"), jiff::Timestamp::now());
        let learnt = learn(store, &[fact]).await;
        learnt.expect("a fact is stored");
    }

    async fn cancel(store: &mut SqliteConnection, order_id: &str) {
        let event = OrderCancelled {
            order_id: order_id.to_owned(),
            reason: "changed my mind".to_owned(),
        };
        add(store, &event).await;
    }

    async fn ask(router: &Router, path: &str, tag: Option<&str>) -> Response {
        let mut request = Request::get(path);
        if let Some(tag) = tag {
            request = request.header(header::IF_NONE_MATCH, tag);
        }
        let request = request.body(Body::empty()).expect("a request");
        router.clone().oneshot(request).await.expect("an answer")
    }

    #[tokio::test]
    async fn an_order_is_answered_with_its_version() {
        let directory = tempfile::tempdir().expect("a temporary folder");
        let path = directory.path().join("orderboard.db");
        let mut store = store(&path).await;
        let router = router(OrderQueries::new(path, None));
        let missing = ask(&router, "/orders/o-1?wait=0.1", None).await;
        assert_eq!(missing.status(), StatusCode::NOT_FOUND);
        cancel(&mut store, "o-1").await;
        let found = ask(&router, "/orders/o-1", None).await;
        assert_eq!(found.status(), StatusCode::OK);
        assert_eq!(found.headers()[header::ETAG], "\"1\"");
        let same = ask(&router, "/orders/o-1?wait=0.1", Some("\"1\"")).await;
        assert_eq!(same.status(), StatusCode::NOT_MODIFIED);
        let newer = ask(&router, "/orders/o-1", Some("\"0\"")).await;
        assert_eq!(newer.status(), StatusCode::OK);
    }

    #[test]
    fn the_newest_known_version_counts() {
        for (tags, expected) in [
            (&["\"2\""][..], Some(2)),
            (&[], None),
            (&["W/\"2\""], Some(2)),
            (&["2"], Some(2)),
            (&["\"1\", \"3\",W/\"2\""], Some(3)),
            (&["\"1\"", "\"3\""], Some(3)),
            (&["*"], Some(7)),
            (&["\"of another\", \"2\""], Some(2)),
            (&["\"a,3\""], None),
            (&[""], None),
        ] {
            let mut headers = HeaderMap::new();
            for &value in tags {
                let value = HeaderValue::from_static(value);
                headers.append(header::IF_NONE_MATCH, value);
            }
            assert_eq!(known_version(&headers, Some(7)), expected, "{tags:?}");
        }
    }

    #[tokio::test]
    async fn a_waiting_query_is_answered_when_the_order_is_newer_than_known() {
        let directory = tempfile::tempdir().expect("a temporary folder");
        let path = directory.path().join("orderboard.db");
        let mut store = store(&path).await;
        let router = router(OrderQueries::new(path, None));
        for (order_id, tags) in [("o-1", "\"0\", \"1\""), ("o-2", "*")] {
            cancel(&mut store, order_id).await;
            let path = format!("/orders/{order_id}");
            let same = ask(&router, &format!("{path}?wait=0.1"), Some(tags)).await;
            assert_eq!(same.status(), StatusCode::NOT_MODIFIED, "{tags}");
            assert_eq!(same.headers()[header::ETAG], "\"1\"", "{tags}");
            let path = format!("{path}?wait=20");
            let waiting = ask(&router, &path, Some(tags));
            let declined = PaymentDeclined {
                order_id: order_id.to_owned(),
                amount_cents: 100,
                reason: "no money".to_owned(),
            };
            let grows = async {
                // The request has read the order by then.
                tokio::time::sleep(Duration::from_secs(1)).await;
                add(&mut store, &declined).await;
            };
            let (answered, ()) = tokio::join!(waiting, grows);
            assert_eq!(answered.status(), StatusCode::OK, "{tags}");
            assert_eq!(answered.headers()[header::ETAG], "\"2\"", "{tags}");
        }
    }

    #[tokio::test]
    async fn a_waiting_query_is_answered_when_the_order_appears() {
        let directory = tempfile::tempdir().expect("a temporary folder");
        let path = directory.path().join("orderboard.db");
        let mut store = store(&path).await;
        let router = router(OrderQueries::new(path, None));
        let waiting = ask(&router, "/orders/o-2?wait=20", None);
        let appears = async {
            tokio::time::sleep(READ_INTERVAL * 2).await;
            cancel(&mut store, "o-2").await;
        };
        let (answered, ()) = tokio::join!(waiting, appears);
        assert_eq!(answered.status(), StatusCode::OK);
    }
}
