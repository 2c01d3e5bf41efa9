//! `gateway`: orders posted over 64 connections, each of which awaits an answer before it sends its
//! next request. An answer means that the order is durable.
//!
//! - `axum`: a plain route, which parses the order and publishes it
//! - `evenkeel`: a gateway that waits for the brokers like the plain route. In addition it
//!   validates the order by its schema, makes a CloudEvent of it, and limits the concurrency.
//! - `axum-sqlite`: a plain route that inserts each order into SQLite and waits for the disk
//! - `axum-sqlite-group`: the same, but orders that wait share a transaction
//! - `evenkeel-sqlite`: a gateway with an outbox, which also publishes it meanwhile. The plain
//!   routes with SQLite publish nothing.
//!
//! A client that is refused comes back with the same order at the time that it was told. Latencies
//! count from the first attempt, so the wait of a refused order is in them.

use super::answers::{ACCEPTED, Answered, Answers, REQUESTS};
use super::connection::Connection;
use super::plain;
use super::servers::{self, Durability, Load, Loaded, Target, check_topic};
use crate::measure::usage::resident_max_mib;
use crate::order_event::OrderEvent;
use crate::spec::{Aim, Bound, Contestant, Data, Figure, Plan, Spec, Turn};
use anyhow::Context;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// The load of a closed loop.
pub(super) const CLOSED_LOOP: Load =
    Load::closed(64, Duration::from_secs(3), Duration::from_secs(10));
/// The different orders that are posted.
const ORDERS: u64 = 1_024;

pub(crate) fn plan() -> Plan {
    let contestant = |name| Contestant { name, data: None };
    let contestants = [
        "axum",
        "evenkeel",
        "axum-sqlite",
        "axum-sqlite-group",
        "evenkeel-sqlite",
    ];
    let mut aims = Vec::new();
    for (gateway, plain) in [
        ("evenkeel", "axum"),
        ("evenkeel-sqlite", "axum-sqlite"),
        ("evenkeel-sqlite", "axum-sqlite-group"),
    ] {
        aims.extend([
            Aim::new(gateway, Figure::RatioTo(plain), Bound::AtLeast(0.8)),
            Aim::new(
                gateway,
                Figure::DetailRatioTo("p99_ms", plain),
                Bound::AtMost(1.3),
            ),
        ]);
    }
    Plan {
        title: "posts over 64 connections, answered when durable".to_owned(),
        unit: "requests/s",
        contestants: contestants.map(contestant).into(),
        aims,
        runs: 3,
    }
}

pub(crate) async fn turn(spec: &Spec) -> anyhow::Result<Turn> {
    if let Some((target, load)) = Load::of(spec)? {
        return post(&spec.data, &target, load).await;
    }
    let (server, file) = match spec.contestant.as_str() {
        "axum" => (plain::on_brokers(spec).await?, None),
        "axum-sqlite" => {
            let (server, file) = plain::on_sqlite().await?;
            (server, Some(file))
        }
        "axum-sqlite-group" => {
            let (server, file) = plain::on_sqlite_in_groups().await?;
            (server, Some(file))
        }
        "evenkeel" => (
            servers::gateway(spec, Durability::Brokers, None).await?,
            None,
        ),
        _ => (
            servers::gateway(spec, Durability::Outbox, None).await?,
            None,
        ),
    };
    let loaded = server.under(spec, CLOSED_LOOP, |_| {}).await?;
    let (mut turn, accepted) = served(loaded)?;
    if let Some(limit) = server.limit() {
        turn.details.insert("limit".to_owned(), limit.into());
    }
    server.stop().await?;
    match file {
        Some(file) => file.check(accepted).await?,
        None => check_topic(spec, accepted).await?,
    }
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
            returning: BinaryHeap::new(),
            answers: Answers::default(),
        };
        clients.spawn(client.run());
    }
    let mut answers = Answers::default();
    while let Some(client) = clients.join_next().await {
        answers.add_all(client??);
    }
    answers.into_turn(&load)
}

/// An order, and when it is to be sent. The earliest is the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Instant,
    number: u64,
    /// How often it was sent before.
    returns: u32,
}

/// A connection and the requests that it sends.
struct Client {
    connection: Connection,
    /// The number of its next new order.
    number: u64,
    load: Load,
    begun: Instant,
    /// Refused orders that come back.
    returning: BinaryHeap<Reverse<Due>>,
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
        let mut due = self.next_new(Instant::now());
        while Instant::now() < self.ends() {
            match self.post(&due).await? {
                None => due = self.next_new(Instant::now()),
                Some(after) => {
                    due.returns += 1;
                    sleep_until(self.ends().min(Instant::now() + after)).await;
                }
            }
        }
        Ok(())
    }

    /// Sends each request when it is due, or as soon as the connection has the answer to the one
    /// before. What cannot be sent before the end is counted.
    async fn run_open_loop(&mut self, per_second: f64) -> anyhow::Result<()> {
        loop {
            let due = self.next_due(per_second);
            if due.at >= self.ends() {
                return Ok(());
            }
            if Instant::now() >= self.ends() {
                if due.returns == 0 {
                    self.answers.add_unsent();
                }
                continue;
            }
            sleep_until(due.at).await;
            if due.returns == 0 {
                self.answers.add_late(due.at.elapsed());
            }
            let refused = self.post(&due).await?;
            if let Some(after) = refused.filter(|_| self.load.returns) {
                self.returning.push(Reverse(Due {
                    at: Instant::now() + after,
                    number: due.number,
                    returns: due.returns + 1,
                }));
            }
        }
    }

    /// Takes the next order of an open loop: a new one, or one that comes back.
    fn next_due(&mut self, per_second: f64) -> Due {
        let new_at = self.begun + Duration::from_secs_f64(self.number as f64 / per_second);
        let is_return = |first: &Reverse<Due>| first.0.at <= new_at;
        if self.returning.peek().is_some_and(is_return)
            && let Some(Reverse(due)) = self.returning.pop()
        {
            return due;
        }
        self.next_new(new_at)
    }

    fn next_new(&mut self, at: Instant) -> Due {
        let number = self.number;
        self.number += self.load.clients as u64;
        Due {
            at,
            number,
            returns: 0,
        }
    }

    /// Posts an order, and registers the answer. Returns when to come back if it is refused.
    async fn post(&mut self, due: &Due) -> anyhow::Result<Option<Duration>> {
        let sent = Instant::now();
        let answer = self.connection.post(due.number).await?;
        let is_accepted = self.answers.add(&Answered {
            status: answer.status,
            has_retry_after: answer.retry_after.is_some(),
            returns: due.returns,
            counts: due.at >= self.begun + self.load.warm_up,
            since_due: due.at.elapsed(),
            since_sent: sent.elapsed(),
        })?;
        let after = answer.retry_after.unwrap_or(Duration::from_secs(1));
        Ok((!is_accepted).then_some(after))
    }
}
