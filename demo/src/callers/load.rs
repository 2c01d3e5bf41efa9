//! Customers that order over HTTP: posts simulated orders and cancellations to the gateways, and
//! records each outcome in a journal, of the same form as that of `orders simulate`.
//!
//! Requests of one order are sent one after the other, each when the previous one has its answer:
//! nothing else defines their order. So each order belongs to a lane, and a lane waits for answers.

use anyhow::Context;
use evenkeel::event::EventType;
use evenkeel_gateway::client::{Client, ClientError, Posted};
use jiff::Timestamp;
use shop_producers::simulate::content::{Content, Customers, Happening};
use shop_producers::simulate::journal::{Fate, Journal, SentEvent};
use shop_schemas::{OrderCancelled, OrderPlaced};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// Requests under way at the same time.
const LANES: usize = 64;
/// Requests that wait in a lane. Above that the customers wait.
const LANE_REQUESTS_MAX: usize = 4;
/// How long a request is repeated. Much longer than a gateway is down under chaos.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Refusals, and requests without an answer, that are named.
const NAMED_MAX: usize = 5;
/// The source in journal lines of events that were not accepted: only an answer has it.
const NO_SOURCE: &str = "unknown";

/// How the requests ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Requests {
    /// Number of requests that were answered with 202.
    pub(crate) answered: u64,
    /// Number of attempts beyond the first of a request.
    pub(crate) retried: u64,
    /// Number of requests that were refused for good.
    pub(crate) refused: u64,
    /// Number of requests without a final answer in time.
    pub(crate) unknown: u64,
    /// Some of the refusals.
    refusals: Vec<String>,
    /// Some of the reasons why there was no final answer.
    silences: Vec<String>,
}

impl Requests {
    fn count(&mut self, answer: &Result<Posted, ClientError>) -> Fate {
        let (fate, attempts) = match answer {
            Ok(posted) => (Fate::Acknowledged, posted.attempts),
            Err(ClientError::Refused { .. }) => (Fate::Failed, 1),
            Err(ClientError::NoAnswer { attempts, .. }) => (Fate::Unknown, *attempts),
            Err(_) => (Fate::Unknown, 1),
        };
        self.retried += u64::from(attempts.saturating_sub(1));
        match fate {
            Fate::Acknowledged => self.answered += 1,
            Fate::Failed => self.refused += 1,
            Fate::Unknown => self.unknown += 1,
        }
        let named = match fate {
            Fate::Failed => &mut self.refusals,
            _ => &mut self.silences,
        };
        if let Err(error) = answer
            && named.len() < NAMED_MAX
        {
            named.push(error.to_string());
        }
        fate
    }

    /// Refusals: no request of the load is wrong.
    pub(crate) fn faults(&self) -> Vec<String> {
        let line = |refusal: &String| format!("a gateway refused a request: {refusal}");
        self.refusals.iter().map(line).collect()
    }

    /// Requests without an answer: their callers do not know whether they had an effect.
    pub(crate) fn remarks(&self) -> Vec<String> {
        let line = |silence: &String| format!("a request over HTTP is unanswered: {silence}");
        self.silences.iter().map(line).collect()
    }

    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.retried += other.retried;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.refusals.extend(other.refusals);
        self.refusals.truncate(NAMED_MAX);
        self.silences.extend(other.silences);
        self.silences.truncate(NAMED_MAX);
    }
}

/// A running load.
pub(crate) struct HttpLoad {
    rate: Arc<AtomicU32>,
    task: JoinHandle<anyhow::Result<Requests>>,
}

impl HttpLoad {
    pub(super) fn start(
        client: Client,
        content: Content,
        rate: u32,
        length: Duration,
        journal: &Path,
    ) -> anyhow::Result<Self> {
        let opened = Journal::append_to(journal);
        let opened = opened.with_context(|| format!("cannot write {}", journal.display()))?;
        let poster = Arc::new(Poster {
            client,
            run_id: content.run_id.clone(),
            journal: Mutex::new(opened),
        });
        let rate = Arc::new(AtomicU32::new(rate));
        let task = tokio::spawn(run(poster, content, Arc::clone(&rate), length));
        Ok(Self { rate, task })
    }

    /// Changes the rate. 0 pauses the load.
    pub(crate) fn set_rate(&self, rate: u32) {
        self.rate.store(rate, Ordering::Relaxed);
    }

    /// Whether every request has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits until every request has ended.
    ///
    /// # Errors
    /// If the journal could not be written.
    pub(crate) async fn finish(self) -> anyhow::Result<Requests> {
        self.task.await.context("the load over HTTP panicked")?
    }
}

/// A request, with its number in the run.
type Request = (u64, Happening);

async fn run(
    poster: Arc<Poster>,
    content: Content,
    rate: Arc<AtomicU32>,
    length: Duration,
) -> anyhow::Result<Requests> {
    let mut tasks = JoinSet::new();
    let mut lanes = Vec::with_capacity(LANES);
    for _ in 0..LANES {
        let (lane, requests) = mpsc::channel(LANE_REQUESTS_MAX);
        lanes.push(lane);
        tasks.spawn(post_in_turn(Arc::clone(&poster), requests));
    }
    let mut customers = Customers::new(content);
    let mut due = Instant::now();
    let end = due + length;
    let mut number = 0;
    while due < end && Instant::now() < end {
        sleep_until(due).await;
        let rate = rate.load(Ordering::Relaxed);
        if rate == 0 {
            due += Duration::from_secs(1);
            continue;
        }
        due += Duration::from_secs(1) / rate;
        let happening = customers.next(Timestamp::now());
        let lane = &lanes[lane_of(order_of(&happening), LANES)];
        if lane.send((number, happening)).await.is_err() {
            // Its journal cannot be written, as the task says below.
            break;
        }
        number += 1;
    }
    drop(lanes);
    let mut requests = Requests::default();
    while let Some(lane) = tasks.join_next().await {
        requests.add(lane.context("a lane of requests panicked")??);
    }
    Ok(requests)
}

/// Posts the requests of a lane. A cancellation is left out if its order was not accepted: services
/// do not know it.
async fn post_in_turn(
    poster: Arc<Poster>,
    mut requests: mpsc::Receiver<Request>,
) -> anyhow::Result<Requests> {
    let mut counts = Requests::default();
    let mut not_placed: HashSet<String> = HashSet::new();
    while let Some((number, happening)) = requests.recv().await {
        let order_id = order_of(&happening).to_owned();
        if not_placed.contains(&order_id) {
            continue;
        }
        let answer = poster.post(number, &happening).await;
        let fate = counts.count(&answer);
        poster.record(number, &happening, answer.ok(), fate)?;
        if fate != Fate::Acknowledged {
            not_placed.insert(order_id);
        }
    }
    Ok(counts)
}

fn order_of(happening: &Happening) -> &str {
    match happening {
        Happening::Placed(order) => &order.order_id,
        Happening::Cancelled(order) => &order.order_id,
    }
}

fn lane_of(order_id: &str, lanes: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    order_id.hash(&mut hasher);
    (hasher.finish() % lanes as u64) as usize
}

/// What all lanes share.
struct Poster {
    client: Client,
    run_id: String,
    journal: Mutex<Journal>,
}

impl Poster {
    fn idempotency_key(&self, number: u64) -> String {
        format!("{}-{number}", self.run_id)
    }

    async fn post(&self, number: u64, happening: &Happening) -> Result<Posted, ClientError> {
        let key = self.idempotency_key(number);
        match happening {
            Happening::Placed(order) => {
                let client = &self.client;
                client.post("/orders", order, &key, ANSWER_WITHIN).await
            }
            Happening::Cancelled(OrderCancelled { order_id, reason }) => {
                let path = format!("/orders/{order_id}/cancellation");
                let body = serde_json::json!({ "reason": reason });
                let client = &self.client;
                client.post(&path, &body, &key, ANSWER_WITHIN).await
            }
        }
    }

    /// Writes the outcome. An event that was not accepted has the key of its request as its id.
    fn record(
        &self,
        number: u64,
        happening: &Happening,
        posted: Option<Posted>,
        fate: Fate,
    ) -> anyhow::Result<()> {
        let (ty, topic, seq) = match happening {
            Happening::Placed(_) => (OrderPlaced::TYPE, OrderPlaced::TOPIC, 0),
            Happening::Cancelled(_) => (OrderCancelled::TYPE, OrderCancelled::TOPIC, 1),
        };
        let (event_id, source) = match posted {
            Some(posted) => (posted.id, posted.source),
            None => (self.idempotency_key(number), NO_SOURCE.to_owned()),
        };
        let event = SentEvent {
            event_id,
            source,
            ty,
            key: order_of(happening).to_owned(),
            topic,
            seq,
        };
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let written = journal.write(&event, fate, None);
        written.context("cannot write the journal of the load over HTTP")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn posted(attempts: u32) -> Posted {
        let answer = r#"{"id":"e","source":"/s","type":"t","traceId":"","worker":"w"}"#;
        let mut posted: Posted = serde_json::from_str(answer).expect("an answer");
        posted.attempts = attempts;
        posted
    }

    #[test]
    fn only_an_answer_of_202_is_an_acknowledgement() {
        let refused = ClientError::Refused {
            status: 422,
            problem: "why".to_owned(),
        };
        let no_answer = ClientError::NoAnswer {
            seconds: 60,
            attempts: 7,
            last: "503".to_owned(),
        };
        let mut requests = Requests::default();
        for (answer, expected) in [
            (Ok(posted(3)), Fate::Acknowledged),
            (Ok(posted(1)), Fate::Acknowledged),
            (Err(refused), Fate::Failed),
            (Err(no_answer), Fate::Unknown),
        ] {
            assert_eq!(requests.count(&answer), expected, "{answer:?}");
        }
        let mut sum = Requests::default();
        sum.add(requests);
        let counts = (sum.answered, sum.retried, sum.refused, sum.unknown);
        assert_eq!(counts, (2, 8, 1, 1));
        let (faults, remarks) = (sum.faults(), sum.remarks());
        assert_eq!((faults.len(), remarks.len()), (1, 1));
        assert!(faults[0].contains("422"), "{faults:?}");
        assert!(remarks[0].contains("503"), "{remarks:?}");
    }

    #[test]
    fn events_of_an_order_share_a_lane_and_orders_use_all_lanes() {
        let used: HashSet<usize> = (0..1_000)
            .map(|number| lane_of(&format!("run-7-{number:07}"), LANES))
            .collect();
        assert_eq!(used.len(), LANES);
        assert_eq!(lane_of("run-7-1", LANES), lane_of("run-7-1", LANES));
    }
}
