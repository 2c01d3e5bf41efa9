//! `gateway`: orders posted over 64 connections, each of which awaits an answer before it sends its
//! next request. An answer means that the order is durable.
//!
//! - `axum`: a plain route, which parses the order and publishes it
//! - `evenkeel`: a gateway that waits for the brokers like the plain route. In addition it
//!   validates the order by its schema, makes a CloudEvent of it, and limits the concurrency.
//! - `evenkeel-sqlite`: a gateway with an outbox, which also publishes it meanwhile
//!
//! A client that is refused comes back with the same order at the time that it was told.

use super::servers::{self, Durability, Load, Loaded, Target, check_topic};
use crate::measure::run::quantile;
use crate::measure::usage::resident_max_mib;
use crate::order_event::OrderEvent;
use crate::spec::{Aim, Bound, Contestant, Data, Figure, Plan, Spec, Turn};
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// The load of a closed loop.
pub(super) const CLOSED_LOOP: Load = Load {
    clients: 64,
    per_second: None,
    warm_up: Duration::from_secs(3),
    counted: Duration::from_secs(10),
};
/// The different orders that are posted.
const ORDERS: u64 = 1_024;
/// The end of the head of an answer.
const HEAD_END: &[u8] = b"\r\n\r\n";
/// Counts of all answers, as the clients pass them to the server.
const ACCEPTED: &str = "accepted";
const REQUESTS: &str = "requests";

pub(crate) fn plan() -> Plan {
    let contestant = |name| Contestant { name, data: None };
    Plan {
        title: "posts over 64 connections, answered when durable".to_owned(),
        unit: "requests/s",
        contestants: ["axum", "evenkeel", "evenkeel-sqlite"]
            .map(contestant)
            .into(),
        aims: vec![
            Aim::new("evenkeel", Figure::RatioTo("axum"), Bound::AtLeast(0.8)),
            Aim::new(
                "evenkeel",
                Figure::DetailRatioTo("p99_ms", "axum"),
                Bound::AtMost(1.3),
            ),
        ],
        runs: 3,
    }
}

pub(crate) async fn turn(spec: &Spec) -> anyhow::Result<Turn> {
    if let Some((target, load)) = Load::of(spec)? {
        return post(&spec.data, &target, load).await;
    }
    let server = match spec.contestant.as_str() {
        "axum" => servers::plain(spec).await?,
        "evenkeel" => servers::gateway(spec, Durability::Brokers).await?,
        _ => servers::gateway(spec, Durability::Outbox).await?,
    };
    let loaded = server.under(spec, CLOSED_LOOP, |_| {}).await?;
    let (mut turn, accepted) = served(loaded)?;
    if let Some(limit) = server.limit() {
        turn.details.insert("limit".to_owned(), limit.into());
    }
    server.stop().await?;
    check_topic(spec, accepted).await?;
    Ok(turn)
}

/// The turn of a server under a load of posts, and the number of orders that it accepted. Its
/// processor time is per request, whatever the answer was.
pub(super) fn served(loaded: Loaded) -> anyhow::Result<(Turn, u64)> {
    let mut turn = loaded.clients;
    let mut take = |name: &str| {
        let count = turn.details.remove(name);
        count.with_context(|| format!("the clients have no {name}"))
    };
    let (accepted, requests) = (take(ACCEPTED)?, take(REQUESTS)?);
    turn.us_per_message = Some(loaded.spent.processor.as_secs_f64() * 1e6 / requests);
    turn.rss_mib = resident_max_mib()?;
    Ok((turn, accepted as u64))
}

/// Posts orders, and measures the answers.
pub(super) async fn post(data: &Data, target: &Target, load: Load) -> anyhow::Result<Turn> {
    let keys = data.keys as u64;
    let order = |number: u64| OrderEvent::new((number % keys) as usize, number / keys, data.size);
    let orders = (0..ORDERS).map(|number| serde_json::to_vec(&order(number)));
    let orders: Arc<[Vec<u8>]> = orders.collect::<Result<_, _>>()?;
    let mut connections = Vec::with_capacity(load.clients);
    for _ in 0..load.clients {
        connections.push(Connection::open(target, Arc::clone(&orders)).await?);
    }
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for (number, connection) in connections.into_iter().enumerate() {
        let client = Client {
            connection,
            number: number as u64,
            load,
            begun,
            answers: Answers::default(),
        };
        clients.spawn(client.run());
    }
    let mut answers = Answers::default();
    while let Some(client) = clients.join_next().await {
        answers.add_all(client??);
    }
    answers.into_turn(load.counted)
}

/// A connection and the requests that it sends.
struct Client {
    connection: Connection,
    /// The number of its next order.
    number: u64,
    load: Load,
    begun: Instant,
    answers: Answers,
}

impl Client {
    async fn run(mut self) -> anyhow::Result<Answers> {
        match self.load.per_second {
            None => self.run_closed_loop().await?,
            Some(per_second) => self.run_open_loop(per_second).await?,
        }
        Ok(self.answers)
    }

    fn ends(&self) -> Instant {
        self.begun + self.load.warm_up + self.load.counted
    }

    async fn run_closed_loop(&mut self) -> anyhow::Result<()> {
        while Instant::now() < self.ends() {
            let retry_after = self.post(Instant::now()).await?;
            match retry_after {
                None => self.number += self.load.clients as u64,
                Some(after) => sleep_until(self.ends().min(Instant::now() + after)).await,
            }
        }
        Ok(())
    }

    /// Sends each request when it is due, whatever the answers are. One that is due while its
    /// connection still waits for an answer is not sent. Delays of timers are figures of their own.
    async fn run_open_loop(&mut self, per_second: f64) -> anyhow::Result<()> {
        loop {
            let due = self.begun + Duration::from_secs_f64(self.number as f64 / per_second);
            if due >= self.ends() {
                return Ok(());
            }
            if Instant::now() > due {
                self.answers.unsent += 1;
            } else {
                sleep_until(due).await;
                let began = Instant::now();
                self.answers.late_ms.push((began - due).as_secs_f64() * 1e3);
                self.post(began).await?;
            }
            self.number += self.load.clients as u64;
        }
    }

    /// Posts the next order, and registers the answer. Returns when to come back if it is refused.
    async fn post(&mut self, began: Instant) -> anyhow::Result<Option<Duration>> {
        let answer = self.connection.post(self.number).await?;
        let took = began.elapsed();
        let is_accepted = answer.status == 202;
        let answers = &mut self.answers;
        answers.requests += 1;
        answers.accepted += u64::from(is_accepted);
        let samples = match answer.status {
            202 => &mut answers.accepted_ms,
            429 | 503 => &mut answers.refused_ms,
            status => bail!("wrong answer: status {status}"),
        };
        if began >= self.begun + self.load.warm_up {
            samples.push(took.as_secs_f64() * 1e3);
        }
        Ok((!is_accepted).then_some(answer.retry_after))
    }
}

/// A connection with keep-alive. It sends one request at a time.
struct Connection {
    socket: TcpStream,
    /// The head of a request up to the id.
    head: String,
    orders: Arc<[Vec<u8>]>,
    sent: Vec<u8>,
    received: Vec<u8>,
}

struct Answer {
    status: u16,
    retry_after: Duration,
    body_bytes: usize,
}

impl Connection {
    async fn open(target: &Target, orders: Arc<[Vec<u8>]>) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(target.address).await?;
        socket.set_nodelay(true)?;
        let Target { address, path } = target;
        // The ids of two loads of one server differ, too.
        let process = std::process::id();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
             ce-id: {process}-"
        );
        Ok(Self {
            socket,
            head,
            orders,
            sent: Vec::new(),
            received: Vec::with_capacity(4 << 10),
        })
    }

    /// Posts the order with this number, and reads the answer.
    async fn post(&mut self, number: u64) -> anyhow::Result<Answer> {
        let order = &self.orders[(number % ORDERS) as usize];
        let (head, length) = (&self.head, order.len());
        self.sent.clear();
        let sent = &mut self.sent;
        write!(sent, "{head}{number}\r\ncontent-length: {length}\r\n\r\n")?;
        self.sent.extend_from_slice(order);
        self.socket.write_all(&self.sent).await?;
        self.received.clear();
        let body_at = loop {
            self.receive().await?;
            let mut windows = self.received.windows(HEAD_END.len());
            if let Some(at) = windows.position(|window| window == HEAD_END) {
                break at + HEAD_END.len();
            }
        };
        let answer = Answer::read(&self.received[..body_at]);
        let answer = answer.context("an answer has a status and a length")?;
        while self.received.len() < body_at + answer.body_bytes {
            self.receive().await?;
        }
        Ok(answer)
    }

    async fn receive(&mut self) -> anyhow::Result<()> {
        match self.socket.read_buf(&mut self.received).await? {
            0 => bail!("wrong answer: the server closed a connection"),
            _ => Ok(()),
        }
    }
}

impl Answer {
    fn read(head: &[u8]) -> Option<Self> {
        let head = std::str::from_utf8(head).ok()?;
        let header = |name: &str| {
            head.lines().find_map(|line| {
                let (found, value) = line.split_once(": ")?;
                found.eq_ignore_ascii_case(name).then_some(value)
            })
        };
        let retry_after = header("retry-after").and_then(|value| value.parse().ok());
        Some(Self {
            status: head.split(' ').nth(1)?.parse().ok()?,
            retry_after: Duration::from_secs(retry_after.unwrap_or(1)),
            body_bytes: header("content-length")?.parse().ok()?,
        })
    }
}

/// The answers to requests. The numbers are of all, the times of those that count.
#[derive(Default)]
struct Answers {
    requests: u64,
    accepted: u64,
    unsent: u64,
    accepted_ms: Vec<f64>,
    refused_ms: Vec<f64>,
    /// By how much timers were late.
    late_ms: Vec<f64>,
}

impl Answers {
    fn add_all(&mut self, other: Self) {
        self.requests += other.requests;
        self.accepted += other.accepted;
        self.unsent += other.unsent;
        self.accepted_ms.extend(other.accepted_ms);
        self.refused_ms.extend(other.refused_ms);
        self.late_ms.extend(other.late_ms);
    }

    fn into_turn(mut self, counted: Duration) -> anyhow::Result<Turn> {
        if self.accepted_ms.is_empty() {
            bail!(
                "wrong answer: of {} requests none was accepted",
                self.requests
            );
        }
        let (accepted, refused) = (self.accepted_ms.len() as f64, self.refused_ms.len() as f64);
        let mut details = BTreeMap::new();
        let mut add = |name: &str, value: f64| details.insert(name.to_owned(), value);
        add(ACCEPTED, self.accepted as f64);
        add(REQUESTS, self.requests as f64);
        add("refused_share", refused / (accepted + refused));
        add("p50_ms", quantile(&mut self.accepted_ms, 0.5));
        add("p99_ms", quantile(&mut self.accepted_ms, 0.99));
        add("p999_ms", quantile(&mut self.accepted_ms, 0.999));
        if !self.refused_ms.is_empty() {
            add("refused_p99_ms", quantile(&mut self.refused_ms, 0.99));
        }
        if !self.late_ms.is_empty() {
            let (sent, unsent) = (self.requests as f64, self.unsent as f64);
            add("sent", sent / counted.as_secs_f64());
            add("unsent_share", unsent / (sent + unsent));
            add("timer_late_p99_ms", quantile(&mut self.late_ms, 0.99));
        }
        Ok(Turn {
            value: accepted / counted.as_secs_f64(),
            us_per_message: None,
            rss_mib: resident_max_mib()?,
            details,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Answer;

    #[test]
    fn an_answer_needs_a_status_and_a_length() {
        let read = |head: &[u8]| Some(Answer::read(head)?.retry_after.as_secs());
        let refused = b"HTTP/1.1 503 x\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(read(refused), Some(7));
        assert_eq!(read(b"HTTP/1.1 202 x\r\n\r\n"), None);
        assert_eq!(read(b"HTTP/1.1\r\ncontent-length: 0\r\n\r\n"), None);
    }
}
