//! `gateway-overload`: orders posted at multiples of a gateway's capacity, whatever it answers.
//!
//! Each turn measures the capacity first, by a closed loop on a gateway of its own. Then another
//! gateway has half of the capacity for some seconds: `usual_p99_ms` is the uncongested latency.
//! Then the load begins. The value is the rate of accepted orders, and `p99_ratio` their 99th
//! percentile as a multiple of the uncongested one, in the same turn.
//!
//! - `0.5x`, `1x`, `2x`, `5x`: a gateway that waits for the brokers. Nobody who is refused comes
//!   back.
//! - `2x-return`: who is refused comes back when it was told, with the same order, as often as it
//!   is refused, in addition to the new orders. `returned_accepted_share`: how often that worked.
//! - `2x-stalled`: a gateway with an outbox, whose brokers do not answer under the load, and under
//!   that of the capacity
//!
//! Requests are spread over 1,024 connections. One that is due while its connection still waits
//! for an answer is sent later, and its latency counts from when it was due; `unsent_share` could
//! not be sent at all. Clients, gateway and brokers share the processors: where `sent` is below the
//! load, the clients could not send more, and their own delays (`late_p99_ms`) are in the
//! latencies, too. `sent_p99_ms` is without them, and `server_p99_ms` and `server_refused_p99_ms`
//! are measured in the gateway.

use super::answer_times::AnswerTimes;
use super::own_kafka::OwnKafka;
use super::posts::{CLOSED_LOOP, post, served};
use super::servers::{Durability, Load, Running, check_topic, gateway};
use crate::spec::{Aim, Bound, Contestant, Figure, Plan, Spec, Turn};
use anyhow::Context;
use std::time::Duration;

/// The measure of the capacity.
const CAPACITY: Load = Load {
    counted: Duration::from_secs(5),
    ..CLOSED_LOOP
};
/// Connections that send at a fixed rate. More than the gateway serves at a time.
const CONNECTIONS: usize = 1_024;
/// The most that the resident memory may grow under the load.
const GROWTH_MIB_MAX: f64 = 32.0;

pub(crate) fn plan() -> Plan {
    let contestant = |name| Contestant { name, data: None };
    let mut aims = Vec::new();
    for name in ["2x", "2x-return", "2x-stalled"] {
        let mut at_most =
            |detail, most| aims.push(Aim::new(name, Figure::Detail(detail), Bound::AtMost(most)));
        at_most("p99_ratio", 2.0);
        at_most("refused_p99_ms", 5.0);
        at_most("server_refused_p99_ms", 5.0);
        at_most("without_retry_after", 0.0);
        at_most("growth_mib", GROWTH_MIB_MAX);
        // Fewer refusals are no overload: the clients could not send enough.
        let refused = Figure::Detail("refused_share");
        aims.push(Aim::new(name, refused, Bound::AtLeast(0.2)));
    }
    let returned = Figure::Detail("returned_accepted_share");
    aims.push(Aim::new("2x-return", returned, Bound::AtLeast(0.95)));
    let contestants = ["0.5x", "1x", "2x", "5x", "2x-return", "2x-stalled"];
    Plan {
        title: "posts at multiples of the capacity, which is measured first".to_owned(),
        unit: "accepted/s",
        contestants: contestants.map(contestant).into(),
        aims,
        runs: 3,
    }
}

/// What a contestant does.
struct Overload {
    factor: f64,
    returns: bool,
    lasts: Duration,
}

impl Overload {
    fn of(contestant: &str) -> anyhow::Result<Self> {
        let (factor, kind) = contestant.split_once('x').context("a factor")?;
        Ok(Self {
            factor: factor.parse()?,
            returns: kind == "-return",
            lasts: match kind {
                // Long enough to come back.
                "-return" => Duration::from_secs(30),
                "-stalled" => Duration::from_secs(20),
                _ => Duration::from_secs(10),
            },
        })
    }

    fn load(&self, capacity: f64) -> Load {
        Load {
            clients: CONNECTIONS,
            per_second: Some(capacity * self.factor),
            warm_up: Duration::ZERO,
            counted: self.lasts,
            returns: self.returns,
        }
    }
}

/// Half of the capacity.
fn usual(capacity: f64) -> Load {
    Load {
        clients: CONNECTIONS,
        per_second: Some(capacity / 2.0),
        warm_up: Duration::from_secs(2),
        counted: Duration::from_secs(5),
        returns: false,
    }
}

pub(crate) async fn turn(spec: &Spec) -> anyhow::Result<Turn> {
    if let Some((target, load)) = Load::of(spec)? {
        return post(&spec.data, &target, load).await;
    }
    let overload = Overload::of(&spec.contestant)?;
    if spec.contestant != "2x-stalled" {
        return Box::pin(measure(spec, Durability::Brokers, &overload, None)).await;
    }
    let mut kafka = OwnKafka::start_with_freezes().await?;
    let spec = kafka.spec(spec).await?;
    let measuring = measure(&spec, Durability::Outbox, &overload, Some(&kafka));
    let turn = Box::pin(measuring).await;
    kafka.stop().await?;
    turn
}

/// Measures the capacity, the uncongested latency, and the overload. With `stalled`, the first and
/// the last while that Kafka is frozen.
async fn measure(
    spec: &Spec,
    durability: Durability,
    overload: &Overload,
    stalled: Option<&OwnKafka>,
) -> anyhow::Result<Turn> {
    let server = gateway(spec, durability, None).await?;
    let (closed, first, _) = under(spec, &server, CAPACITY, stalled).await?;
    server.stop().await?;
    let capacity = closed.value;

    let times = AnswerTimes::new();
    let server = gateway(spec, durability, Some(&times)).await?;
    let (before, second, _) = under(spec, &server, usual(capacity), None).await?;
    let usual_p99 = before.details.get("p99_ms").copied();
    let usual_p99 = usual_p99.context("the usual load has a latency")?;
    eprintln!("capacity {capacity:.0} accepted/s, uncongested p99 {usual_p99:.1} ms");
    times.clear();
    let load = overload.load(capacity);
    let (mut turn, third, growth_mib) = under(spec, &server, load, stalled).await?;
    let (accepted, refused) = times.p99_ms();
    let limit = server.limit().map_or(0.0, f64::from);
    let waiting = server.waiting() as f64;
    server.stop().await?;
    check_topic(spec, first + second + third).await?;

    let p99 = turn.details.get("p99_ms").copied().unwrap_or(f64::NAN);
    // Without a refusal there is no latency of one: the aim is met, and `refused_share` shows why.
    turn.details
        .entry("refused_p99_ms".to_owned())
        .or_insert(0.0);
    turn.details.extend(
        [
            ("capacity", capacity),
            ("usual_p99_ms", usual_p99),
            ("p99_ratio", p99 / usual_p99),
            ("server_p99_ms", accepted.unwrap_or(0.0)),
            ("server_refused_p99_ms", refused.unwrap_or(0.0)),
            ("growth_mib", growth_mib),
            ("waiting_at_end", waiting),
            ("limit", limit),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    Ok(turn)
}

/// A load on a server: its turn, the number of accepted orders, and the growth of memory. With
/// `stalled`, that Kafka is frozen meanwhile.
async fn under(
    spec: &Spec,
    server: &Running,
    load: Load,
    stalled: Option<&OwnKafka>,
) -> anyhow::Result<(Turn, u64, f64)> {
    if let Some(kafka) = stalled {
        kafka.freeze().await?;
    }
    let loaded = server.under(spec, load, |_| {}).await;
    if let Some(kafka) = stalled {
        kafka.thaw().await?;
    }
    let loaded = loaded?;
    let growth_mib = loaded.growth_mib;
    let (turn, accepted) = served(loaded)?;
    Ok((turn, accepted, growth_mib))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_contestant_is_an_overload() {
        for contestant in plan().contestants {
            let overload = Overload::of(contestant.name).expect("an overload");
            assert!(overload.factor >= 0.5, "{}", contestant.name);
        }
        let overload = Overload::of("2x-return").expect("an overload");
        assert_eq!((overload.factor, overload.returns), (2.0, true));
    }
}
