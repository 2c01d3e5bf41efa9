//! Reads orders from the orderboard's instances over HTTP.
//!
//! An instance that failed is left out for a time that grows with each failure in a row, so that a
//! dead one costs the callers nothing. If all are left out, the one whose time ends first is tried.
//! An instance that refuses a request has not failed.

use crate::http::{Problem, ProblemKind, percent_encoded};
use reqwest::StatusCode;
use reqwest::header::{ETAG, IF_NONE_MATCH};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long an instance may take to answer, in addition to the time that it is asked to wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a connection to an instance may take.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a query may take, in addition to its wait: two instances that do not answer, or some
/// more that refuse or drop connections.
const QUERY_TIMEOUT: Duration = Duration::from_secs(4);
/// How long an instance is left out after its first failure. Doubled by each further one.
const LEFT_OUT_FIRST: Duration = Duration::from_millis(500);
/// The longest time that an instance is left out.
const LEFT_OUT_MAX: Duration = Duration::from_secs(10);

/// An order as the read model has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OrderView {
    /// Id of the order.
    pub order_id: String,
    /// Its state, such as `placed` or `shipped`.
    pub state: String,
    /// What is known of it, sorted by the events' time.
    pub facts: Vec<OrderFact>,
    /// Its version, the entity tag: it grows with each fact.
    #[serde(skip)]
    pub version: String,
}

/// A fact of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OrderFact {
    /// Name of the fact.
    pub fact: String,
    /// Time of its event, RFC 3339.
    pub at: String,
    /// Details.
    pub detail: String,
}

/// The answer to a query.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OrderAnswer {
    /// The order.
    Found(OrderView),
    /// The order has no newer version than the one that the caller knows.
    Unchanged {
        /// That version, as in [`OrderView::version`].
        version: String,
    },
    /// No event about such an order was handled yet.
    Unknown,
}

/// Asks the orderboard. Clones share the state of its instances.
#[derive(Debug, Clone)]
pub struct OrderReader {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    client: reqwest::Client,
    instances: Vec<Instance>,
    next: AtomicUsize,
}

#[derive(Debug)]
struct Instance {
    url: String,
    failures: Mutex<Failures>,
}

#[derive(Debug, Default)]
struct Failures {
    in_a_row: u32,
    left_out_until: Option<Instant>,
}

impl OrderReader {
    /// Asks these instances, such as `http://127.0.0.1:8090`, in turn.
    pub fn new(urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let instances = urls.into_iter().map(|url| Instance {
            url: url.into().trim_end_matches('/').to_owned(),
            failures: Mutex::default(),
        });
        let shared = Shared {
            client: client(),
            instances: instances.collect(),
            next: AtomicUsize::new(0),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Whether there is no instance to ask.
    pub fn is_empty(&self) -> bool {
        self.shared.instances.is_empty()
    }

    /// Reads an order. With `wait`, the answer comes as soon as the order exists, or has a newer
    /// version than `known_version`, at the latest after that time. `known_version` may be a list
    /// of versions, or `*`: the one that there is now. An instance that does not
    /// answer within 2 s more is left for the next one; the whole takes at most the wait and 4 s.
    ///
    /// # Errors
    /// If no instance is configured or answers.
    pub async fn order(
        &self,
        order_id: &str,
        wait: Option<Duration>,
        known_version: Option<&str>,
    ) -> Result<OrderAnswer, Problem> {
        let wait = wait.unwrap_or(Duration::ZERO);
        let waited = Instant::now() + wait;
        let deadline = waited + QUERY_TIMEOUT;
        // Each instance at most once, one at least.
        for instance in self.in_turn() {
            let now = Instant::now();
            let wait = waited.saturating_duration_since(now);
            let within = (wait + ANSWER_TIMEOUT).min(deadline.saturating_duration_since(now));
            let asked = Query {
                order_id,
                wait,
                within,
                known_version,
            };
            match self.ask(instance, asked).await {
                Ok(answer) => {
                    instance.succeeded();
                    return Ok(answer);
                }
                Err(error) => {
                    let error = error.without_url();
                    tracing::debug!(url = %instance.url, %error, "the orderboard did not answer");
                    let status = error.status();
                    let is_refusal = status.is_some_and(|status| status.is_client_error());
                    if !is_refusal {
                        instance.failed(Instant::now());
                    }
                }
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        Err(match self.is_empty() {
            true => Problem::new(
                ProblemKind::Unsupported,
                "this gateway reads no orders; start it with --orderboard URL",
            ),
            false => Problem::new(
                ProblemKind::Unavailable,
                "no instance of the orderboard answers; the order itself is not affected",
            )
            .with_retry_after(Duration::from_secs(1)),
        })
    }

    /// The instances that are not left out, from the next one on. If all are, the one whose time
    /// ends first.
    fn in_turn(&self) -> Vec<&Instance> {
        let instances = &self.shared.instances;
        if instances.is_empty() {
            return Vec::new();
        }
        let first = self.shared.next.fetch_add(1, Ordering::Relaxed) % instances.len();
        let (before, from) = instances.split_at(first);
        let now = Instant::now();
        let turn = from.iter().chain(before);
        let usable: Vec<&Instance> = turn.filter(|instance| instance.is_usable(now)).collect();
        if usable.is_empty() {
            let soonest = instances
                .iter()
                .min_by_key(|instance| instance.left_out_until());
            return soonest.into_iter().collect();
        }
        usable
    }

    async fn ask(
        &self,
        instance: &Instance,
        query: Query<'_>,
    ) -> Result<OrderAnswer, reqwest::Error> {
        let Query {
            order_id,
            wait,
            within,
            known_version,
        } = query;
        let url = format!("{}/orders/{}", instance.url, percent_encoded(order_id));
        let mut request = self.shared.client.get(url).timeout(within);
        if !wait.is_zero() {
            request = request.query(&[("wait", wait.as_secs_f64())]);
        }
        if let Some(version) = known_version {
            request = request.header(IF_NONE_MATCH, version);
        }
        let response = request.send().await?;
        let version = response
            .headers()
            .get(ETAG)
            .and_then(|tag| tag.to_str().ok());
        let version = version.unwrap_or_default().to_owned();
        match response.status() {
            StatusCode::NOT_FOUND => return Ok(OrderAnswer::Unknown),
            StatusCode::NOT_MODIFIED => return Ok(OrderAnswer::Unchanged { version }),
            _ => {}
        }
        let response = response.error_for_status()?;
        let mut order: OrderView = response.json().await?;
        order.version = version;
        Ok(OrderAnswer::Found(order))
    }
}

/// A query of one instance.
struct Query<'a> {
    order_id: &'a str,
    /// How long the instance waits for the order, or for a newer version.
    wait: Duration,
    /// How long the instance may take, its wait included.
    within: Duration,
    known_version: Option<&'a str>,
}

fn client() -> reqwest::Client {
    let client = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT);
    client
        .build()
        .expect("a client without certificates of its own can be built")
}

impl Instance {
    fn lock(&self) -> std::sync::MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left_out_until(&self) -> Option<Instant> {
        self.lock().left_out_until
    }

    fn is_usable(&self, now: Instant) -> bool {
        self.left_out_until().is_none_or(|until| until <= now)
    }

    fn succeeded(&self) {
        *self.lock() = Failures::default();
    }

    fn failed(&self, now: Instant) {
        let mut failures = self.lock();
        let doubled = LEFT_OUT_FIRST * 2_u32.saturating_pow(failures.in_a_row.min(8));
        failures.in_a_row = failures.in_a_row.saturating_add(1);
        failures.left_out_until = Some(now + doubled.min(LEFT_OUT_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;

    async fn orderboard() -> String {
        let order = async || {
            let order = serde_json::json!({"order_id": "o-1", "state": "placed", "facts": []});
            ([(axum::http::header::ETAG, "\"1\"")], axum::Json(order))
        };
        let refused = async || axum::http::StatusCode::BAD_REQUEST;
        let router = axum::Router::new()
            .route("/orders/o-1", get(order))
            .route("/orders/refused", get(refused));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}/")
    }

    /// An address at which nothing listens.
    async fn nobody() -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let address = listener.expect("a port").local_addr().expect("an address");
        format!("http://{address}")
    }

    #[tokio::test]
    async fn a_dead_instance_is_left_out() {
        let reader = OrderReader::new([nobody().await, orderboard().await]);
        for _ in 0..4 {
            let answer = reader.order("o-1", None, None).await.expect("an answer");
            let OrderAnswer::Found(order) = answer else {
                panic!("found: {answer:?}");
            };
            assert_eq!(
                (order.state.as_str(), order.version.as_str()),
                ("placed", "\"1\"")
            );
        }
        let failures = reader.shared.instances[0].lock().in_a_row;
        assert_eq!(failures, 1, "asked once, then left out");
        let unknown = reader.order("o-2", None, None).await;
        assert_eq!(unknown, Ok(OrderAnswer::Unknown));
    }

    #[tokio::test]
    async fn the_next_instance_is_asked_if_one_hangs() {
        // Connections wait in its backlog.
        let hangs = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let hangs = hangs.expect("a port");
        let url = format!("http://{}", hangs.local_addr().expect("an address"));
        let reader = OrderReader::new([url, orderboard().await]);
        let answer = reader.order("o-1", None, None).await;
        assert!(matches!(answer, Ok(OrderAnswer::Found(_))), "{answer:?}");
        assert_eq!(reader.shared.instances[0].lock().in_a_row, 1);
    }

    #[tokio::test]
    async fn an_instance_that_refuses_a_request_has_not_failed() {
        let reader = OrderReader::new([orderboard().await]);
        let problem = reader.order("refused", None, None).await;
        let problem = problem.expect_err("it is refused");
        assert_eq!(problem.kind, ProblemKind::Unavailable);
        assert_eq!(reader.shared.instances[0].lock().in_a_row, 0);
    }

    #[tokio::test]
    async fn without_an_instance_that_answers_the_problem_says_so() {
        let reader = OrderReader::new([nobody().await]);
        let problem = reader.order("o-1", None, None).await.expect_err("nobody");
        assert_eq!(problem.kind, ProblemKind::Unavailable);
        let none = OrderReader::new(Vec::<String>::new());
        let problem = none.order("o-1", None, None).await.expect_err("none");
        assert_eq!(problem.kind, ProblemKind::Unsupported);
    }

    #[test]
    fn an_order_id_cannot_leave_its_path_segment() {
        assert_eq!(percent_encoded("o-1"), "o-1");
        assert_eq!(percent_encoded("../admin?x=1#y"), "..%2Fadmin%3Fx%3D1%23y");
    }
}
