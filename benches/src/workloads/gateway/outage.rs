//! `gateway-outage`: 200 orders a second for a minute on a gateway with an outbox in SQLite, whose
//! brokers are gone from second 15 to second 45. The value is the 99th percentile of all answers.
//!
//! - `stopped`: the broker is killed, and started again with its data. Its start takes some seconds
//!   more, and processor time that the gateway lacks.
//! - `frozen`: the broker is suspended, so its connections remain open and nothing is answered.
//!
//! Orders are sent when they are due, or as soon as their connection has the answer to the one
//! before; latencies count from when they were due. Nothing is sent twice. Each of 32 clients has a
//! key of its own and awaits an answer before its next order, so the order of each key is known.
//! At the end the outbox is emptied, and the topic is compared with the orders that were answered
//! with 202: `missing`, `repeated`, `out_of_order`, and `not_accepted`, which are on the topic
//! although their answer was no 202.

use super::connection::Connection;
use super::log_check::{compare, logged};
use super::own_kafka::OwnKafka;
use super::servers::{Durability, Running, Target, gateway};
use crate::measure::run::quantile;
use crate::measure::usage::resident_max_mib;
use crate::order_event::OrderEvent;
use crate::spec::{Aim, Bound, Contestant, Data, Figure, Plan, Spec, Turn};
use anyhow::{Context, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// The clients, each with a connection and a key.
const CLIENTS: u64 = 32;
const PER_SECOND: f64 = 200.0;
/// Different orders of a client.
const ORDERS_OF_CLIENT: u64 = 32;
/// The time until the load begins, in which connections are opened.
const PREPARED_WITHIN: Duration = Duration::from_secs(2);
/// Since the start: when the brokers go, when they come back, and the end.
const DOWN_AT: Duration = Duration::from_secs(15);
const UP_AT: Duration = Duration::from_secs(45);
const ENDS_AT: Duration = Duration::from_secs(60);
/// Time limit of the load: far behind its end.
const WITHIN: Duration = Duration::from_secs(240);
/// How often the outbox is printed.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// The phases of the load, and when they end.
const PHASES: [(&str, Duration); 3] = [("before", DOWN_AT), ("outage", UP_AT), ("after", ENDS_AT)];

pub(crate) fn plan() -> Plan {
    let contestant = |name| Contestant { name, data: None };
    let mut aims = Vec::new();
    for name in ["stopped", "frozen"] {
        let at_most = |detail, most| Aim::new(name, Figure::Detail(detail), Bound::AtMost(most));
        aims.extend([
            Aim::new(name, Figure::Value, Bound::AtMost(250.0)),
            at_most("outage_p99_ms", 250.0),
            at_most("after_p99_ms", 250.0),
            // Neither 202 nor a refusal with `Retry-After`.
            at_most("other_answers", 0.0),
            at_most("missing", 0.0),
            at_most("repeated", 0.0),
            at_most("out_of_order", 0.0),
            at_most("not_accepted", 0.0),
        ]);
    }
    Plan {
        title: "200 posts/s on an outbox, the brokers gone for 30 s of 60".to_owned(),
        unit: "ms at p99",
        contestants: ["stopped", "frozen"].map(contestant).into(),
        aims,
        runs: 1,
    }
}

/// An answer to an order.
struct Sample {
    number: u64,
    /// When the order was due, since the start.
    due: Duration,
    took: Duration,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Accepted,
    /// 429 or 503 with `Retry-After`.
    Shed,
    /// Any other status.
    Other(u16),
}

pub(crate) async fn turn(spec: &Spec) -> anyhow::Result<Turn> {
    let is_stopped = spec.contestant == "stopped";
    let mut kafka = match is_stopped {
        true => OwnKafka::start_with_stops().await?,
        false => OwnKafka::start_with_freezes().await?,
    };
    let spec = kafka.spec(spec).await?;
    let server = gateway(&spec, Durability::Outbox, None).await?;

    let begun = Instant::now() + PREPARED_WITHIN;
    let (target, data) = (server.target().clone(), spec.data);
    // A runtime of its own, so that the clients' tasks do not wait behind the gateway's.
    let clients = tokio::task::spawn_blocking(move || run_clients(&target, &data, begun));
    let breaking = Box::pin(break_brokers(&mut kafka, is_stopped, begun));
    let progress = print_progress(&server, begun);
    let samples = tokio::select! {
        samples = async { tokio::join!(clients, breaking) } => {
            let (samples, broken) = samples;
            broken?;
            samples??
        }
        () = progress => bail!("the progress has ended"),
    };

    let waiting = server.waiting();
    let drained = Instant::now();
    server.stop().await?;
    let drain_s = drained.elapsed().as_secs_f64();
    eprintln!("{waiting} events waited at the end; the outbox was empty after {drain_s:.1} s");

    let accepted = samples.iter().filter(|s| s.kind == Kind::Accepted);
    let accepted: BTreeSet<u64> = accepted.map(|sample| sample.number).collect();
    let differences = compare(&accepted, &logged(&spec).await?, CLIENTS);
    eprintln!("{} answered with 202; {differences:?}", accepted.len());
    kafka.stop().await?;
    let mut turn = figures(&samples)?;
    turn.details.extend(
        [
            ("drain_s", drain_s),
            ("missing", differences.missing as f64),
            ("repeated", differences.repeated as f64),
            ("out_of_order", differences.out_of_order as f64),
            ("not_accepted", differences.not_accepted as f64),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    Ok(turn)
}

/// Takes the brokers away, and brings them back.
async fn break_brokers(
    kafka: &mut OwnKafka,
    is_stopped: bool,
    begun: Instant,
) -> anyhow::Result<()> {
    sleep_until(begun + DOWN_AT).await;
    match is_stopped {
        true => kafka.stop().await?,
        false => kafka.freeze().await?,
    }
    eprintln!(
        "{:>4.0} s: the broker is gone",
        begun.elapsed().as_secs_f64()
    );
    sleep_until(begun + UP_AT).await;
    match is_stopped {
        true => kafka.start_again().await?,
        false => kafka.thaw().await?,
    }
    eprintln!(
        "{:>4.0} s: the broker is back",
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Prints what waits in the outbox, without end.
async fn print_progress(server: &Running, begun: Instant) {
    loop {
        sleep(PROGRESS_INTERVAL).await;
        let (at, waiting) = (begun.elapsed().as_secs_f64(), server.waiting());
        eprintln!("{at:>4.0} s: {waiting} events wait for the brokers");
    }
}

/// Runs all clients on this thread.
fn run_clients(target: &Target, data: &Data, begun: Instant) -> anyhow::Result<Vec<Sample>> {
    let order = |number: u64| {
        let (client, place) = (number % CLIENTS, number / CLIENTS);
        serde_json::to_vec(&OrderEvent::new(client as usize, place, data.size))
    };
    let orders: Result<Vec<_>, _> = (0..CLIENTS * ORDERS_OF_CLIENT).map(order).collect();
    let orders: Arc<[Vec<u8>]> = orders?.into();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let all = async {
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let connection = Connection::open(target, Arc::clone(&orders)).await?;
            clients.spawn(run_client(connection, number, begun));
        }
        let mut samples = Vec::new();
        while let Some(client) = clients.join_next().await {
            samples.extend(client??);
        }
        anyhow::Ok(samples)
    };
    let all = runtime.block_on(async { timeout(WITHIN, all).await });
    all.context("wrong answer: requests were not answered")?
}

async fn run_client(
    mut connection: Connection,
    client: u64,
    begun: Instant,
) -> anyhow::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    let mut number = client;
    loop {
        let due = Duration::from_secs_f64(number as f64 / PER_SECOND);
        if due >= ENDS_AT {
            return Ok(samples);
        }
        sleep_until(begun + due).await;
        let answer = connection.post(number).await?;
        samples.push(Sample {
            number,
            due,
            took: (begun + due).elapsed(),
            kind: match (answer.status, answer.retry_after) {
                (202, _) => Kind::Accepted,
                (429 | 503, Some(_)) => Kind::Shed,
                (status, _) => Kind::Other(status),
            },
        });
        number += CLIENTS;
    }
}

/// The figures of all answers, and of those of each phase, which are printed, too.
fn figures(samples: &[Sample]) -> anyhow::Result<Turn> {
    let count = |kind: fn(Kind) -> bool| samples.iter().filter(|s| kind(s.kind)).count() as f64;
    let mut details = BTreeMap::new();
    let mut add = |name: &str, value: f64| details.insert(name.to_owned(), value);
    add("accepted", count(|kind| kind == Kind::Accepted));
    add("shed", count(|kind| kind == Kind::Shed));
    let other = count(|kind| matches!(kind, Kind::Other(_)));
    add("other_answers", other);
    let mut begins = Duration::ZERO;
    for (phase, ends) in PHASES {
        let of_phase = samples.iter().filter(|s| s.due >= begins && s.due < ends);
        let of_phase: Vec<&Sample> = of_phase.collect();
        let [p50, p99, max] = latencies(of_phase.iter().copied());
        let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
        for sample in &of_phase {
            *kinds.entry(sample.kind.name()).or_default() += 1;
        }
        let answers = of_phase.len();
        eprintln!(
            "{phase}: {answers} answers, p50 {p50:.1}, p99 {p99:.1}, max {max:.1} ms, {kinds:?}"
        );
        for (name, value) in [("p50", p50), ("p99", p99), ("max", max)] {
            add(&format!("{phase}_{name}_ms"), value);
        }
        begins = ends;
    }
    let [_, p99, _] = latencies(samples.iter());
    Ok(Turn {
        value: p99,
        us_per_message: None,
        rss_mib: resident_max_mib()?,
        details,
    })
}

impl Kind {
    fn name(self) -> String {
        match self {
            Self::Accepted => "202".to_owned(),
            Self::Shed => "429 or 503 with Retry-After".to_owned(),
            Self::Other(status) => format!("{status}, wrong"),
        }
    }
}

/// The median, the 99th percentile and the maximum, in milliseconds.
fn latencies<'a>(samples: impl Iterator<Item = &'a Sample>) -> [f64; 3] {
    let took = samples.map(|sample| sample.took.as_secs_f64() * 1e3);
    let mut took: Vec<f64> = took.collect();
    [0.5, 0.99, 1.0].map(|share| quantile(&mut took, share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_belong_to_the_phase_in_which_they_were_due() {
        let sample = |due_s, took_ms, kind| Sample {
            number: 0,
            due: Duration::from_secs(due_s),
            took: Duration::from_millis(took_ms),
            kind,
        };
        let turn = figures(&[
            sample(0, 1, Kind::Accepted),
            // Answered only when the brokers are back.
            sample(44, 9_000, Kind::Accepted),
            sample(45, 2, Kind::Shed),
            sample(59, 3, Kind::Other(500)),
        ]);
        let turn = turn.expect("figures");
        assert_eq!(turn.value, 9_000.0);
        for (name, expected) in [
            ("before_max_ms", 1.0),
            ("outage_p99_ms", 9_000.0),
            ("after_max_ms", 3.0),
            ("accepted", 2.0),
            ("shed", 1.0),
            ("other_answers", 1.0),
        ] {
            assert_eq!(turn.details.get(name), Some(&expected), "{name}");
        }
    }
}
