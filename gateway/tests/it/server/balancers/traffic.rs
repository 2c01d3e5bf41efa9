//! Callers that place orders, and a stream that is read, through a balancer.
//!
//! Knows its URL. Does not know which gateways run.

use super::processes::WITHIN;
use evenkeel::testing::eventually;
use evenkeel_gateway::client::{Client, EventStream, Streamed};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

pub(super) const PLACED: &str = "shop.order-placed.v1";
const CANCELLED: &str = "shop.order-cancelled.v1";

/// Callers that place and cancel orders at the same time.
const CALLERS: usize = 8;
/// Pause of a caller between two orders.
const CALLER_PAUSE: Duration = Duration::from_millis(30);

/// An order that was accepted.
pub(super) struct AcceptedOrder {
    pub(super) order_id: String,
    /// The ids of its events: it was placed, then cancelled.
    pub(super) events: [String; 2],
}

/// How many requests each gateway has answered.
#[derive(Clone, Default)]
struct Answers(Arc<Mutex<BTreeMap<String, usize>>>);

impl Answers {
    fn count(&self, worker: String) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(worker).or_default() += 1;
    }

    fn of(&self, worker: &str) -> usize {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(worker).copied().unwrap_or_default()
    }
}

/// Callers that place orders, each of which is cancelled at once.
pub(super) struct Load {
    stop: CancellationToken,
    answers: Answers,
    callers: Vec<JoinHandle<Vec<AcceptedOrder>>>,
}

impl Load {
    /// Orders whose ids begin with `prefix`.
    pub(super) fn start(client: &Client, prefix: &str) -> Self {
        let (stop, answers) = (CancellationToken::new(), Answers::default());
        let callers = (0..CALLERS).map(|caller| {
            let orders = format!("{prefix}-{caller}");
            tokio::spawn(call(client.clone(), orders, answers.clone(), stop.clone()))
        });
        let callers = callers.collect();
        Self {
            stop,
            answers,
            callers,
        }
    }

    /// Waits until this gateway has answered so many more requests.
    pub(super) async fn answered_by(&self, gateway: &str, more: usize) {
        let enough = self.answers.of(gateway) + more;
        let what = format!("{gateway} answers {more} more requests");
        eventually(&what, WITHIN, || async {
            let failed = self.callers.iter().any(JoinHandle::is_finished);
            assert!(!failed, "a request failed");
            (self.answers.of(gateway) >= enough).then_some(())
        })
        .await;
    }

    /// Stops the callers between two orders. Returns every order.
    pub(super) async fn end(self) -> Vec<AcceptedOrder> {
        self.stop.cancel();
        let mut accepted = Vec::new();
        for caller in self.callers {
            accepted.extend(caller.await.expect("every request is accepted"));
        }
        accepted
    }
}

/// Places and cancels orders, one after the other, until `stop`.
async fn call(
    client: Client,
    orders: String,
    answers: Answers,
    stop: CancellationToken,
) -> Vec<AcceptedOrder> {
    let mut accepted = Vec::new();
    while !stop.is_cancelled() {
        let order_id = format!("{orders}-{}", accepted.len());
        let order = json!({
            "order_id": order_id,
            "customer_id": "c-1",
            "lines": [{"article": "kettle", "quantity": 1, "price_cents": 4900}],
        });
        let key = format!("place-{order_id}");
        let placed = client.post("/orders", &order, &key, WITHIN).await;
        let placed = placed.expect("the order is accepted");
        answers.count(placed.worker);

        let reason = json!({"reason": "a test"});
        let path = format!("/orders/{order_id}/cancellation");
        let key = format!("cancel-{order_id}");
        let cancelled = client.post(&path, &reason, &key, WITHIN).await;
        let cancelled = cancelled.expect("the cancellation is accepted");
        answers.count(cancelled.worker);

        let events = [placed.id, cancelled.id];
        accepted.push(AcceptedOrder { order_id, events });
        sleep(CALLER_PAUSE).await;
    }
    accepted
}

/// The ids of events by order, in the order of their arrival.
pub(super) type EventIds = BTreeMap<String, Vec<String>>;

fn total(ids: &EventIds) -> usize {
    ids.values().map(Vec::len).sum()
}

/// A stream that is read while gateways come and go.
pub(super) struct Watch {
    seen: Arc<Mutex<EventIds>>,
    reading: JoinHandle<()>,
}

impl Watch {
    /// Opens a stream of all orders from now on, and collects those whose ids begin with `prefix`.
    pub(super) async fn start(client: &Client, prefix: &str) -> Self {
        let mut stream = client.events(&[PLACED, CANCELLED], None, None);
        let begin = async {
            while stream.cursor().is_none() {
                // The first frame has a cursor and no event: `next` waits for the one after it.
                let next = timeout(Duration::from_secs(3), stream.next()).await;
                assert!(next.is_err(), "nothing is published yet: {next:?}");
            }
        };
        timeout(WITHIN, begin).await.expect("the stream begins");
        let seen: Arc<Mutex<EventIds>> = Arc::default();
        let reading = tokio::spawn(read(stream, prefix.to_owned(), Arc::clone(&seen)));
        Self { seen, reading }
    }

    fn seen(&self) -> EventIds {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }

    /// Waits until it has had as many events as these.
    pub(super) async fn has_as_many_as(&self, expected: &EventIds) {
        eventually("the stream has every event", WITHIN, || async {
            assert!(!self.reading.is_finished(), "the stream failed");
            (total(&self.seen()) >= total(expected)).then_some(())
        })
        .await;
    }

    /// Ends it. Returns everything that it has had.
    pub(super) fn end(self) -> EventIds {
        self.reading.abort();
        self.seen()
    }
}

/// Reads the stream until the task is aborted.
async fn read(mut stream: EventStream, prefix: String, seen: Arc<Mutex<EventIds>>) {
    loop {
        let data = match stream.next().await {
            Ok(Streamed::Event { data, .. }) => data,
            other => panic!("{other:?}"),
        };
        let event: Value = serde_json::from_str(&data).expect("a CloudEvent");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let (order_id, id) = (text(&event["data"]["order_id"]), text(&event["id"]));
        if order_id.starts_with(&prefix) {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.entry(order_id).or_default().push(id);
        }
    }
}
