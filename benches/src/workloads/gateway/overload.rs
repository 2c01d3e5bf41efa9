//! `gateway-overload`: orders posted at 0.5, 1, 2 and 5 times the capacity of a gateway, whatever
//! it answers.
//!
//! Each turn measures the capacity first, by a closed loop on a gateway of its own. Then another
//! gateway has half of the capacity for some seconds, as usual traffic, before the load begins. The
//! value is the rate of accepted orders. Nobody who is refused comes back.
//!
//! Requests are spread over 1,024 connections. One that is due while its connection still waits for
//! an answer is not sent: `unsent_share`. Clients, gateway and brokers share the processors: where
//! `sent` is below the load, the clients could not send more, and at high loads their own delays
//! (`timer_late_p99_ms`) are in the latencies, too.

use super::posts::{CLOSED_LOOP, post, served};
use super::servers::{Durability, Load, check_topic, gateway};
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
const USUAL_TIME: Duration = Duration::from_secs(4);
const LOADED_TIME: Duration = Duration::from_secs(8);

pub(crate) fn plan() -> Plan {
    let contestant = |name| Contestant { name, data: None };
    let refused_soon = |contestant| {
        let refused = Figure::Detail("refused_p99_ms");
        Aim::new(contestant, refused, Bound::AtMost(5.0))
    };
    Plan {
        title: "posts at multiples of the capacity, which is measured first".to_owned(),
        unit: "accepted/s",
        contestants: ["0.5x", "1x", "2x", "5x"].map(contestant).into(),
        aims: vec![
            Aim::new(
                "2x",
                Figure::DetailRatioTo("p99_ms", "0.5x"),
                Bound::AtMost(2.0),
            ),
            refused_soon("2x"),
            refused_soon("5x"),
        ],
        runs: 3,
    }
}

pub(crate) async fn turn(spec: &Spec) -> anyhow::Result<Turn> {
    if let Some((target, load)) = Load::of(spec)? {
        return post(&spec.data, &target, load).await;
    }
    let factor = spec.contestant.strip_suffix('x');
    let factor: f64 = factor.context("a contestant is a factor")?.parse()?;
    let server = gateway(spec, Durability::Brokers).await?;
    let (closed, first) = served(server.under(spec, CAPACITY, |_| {}).await?)?;
    server.stop().await?;
    let capacity = closed.value;
    let server = gateway(spec, Durability::Brokers).await?;
    let usual = at_rate(capacity / 2.0, USUAL_TIME);
    let (_, second) = served(server.under(spec, usual, |_| {}).await?)?;
    let load = at_rate(capacity * factor, LOADED_TIME);
    let loaded = server.under(spec, load, |_| {}).await?;
    let growth_mib = loaded.growth_mib;
    let (mut turn, third) = served(loaded)?;
    let limit = server.limit().map_or(0.0, f64::from);
    server.stop().await?;
    check_topic(spec, first + second + third).await?;
    turn.details.extend([
        ("capacity".to_owned(), capacity),
        ("growth_mib".to_owned(), growth_mib),
        ("limit".to_owned(), limit),
    ]);
    Ok(turn)
}

fn at_rate(per_second: f64, counted: Duration) -> Load {
    Load {
        clients: CONNECTIONS,
        per_second: Some(per_second),
        warm_up: Duration::ZERO,
        counted,
    }
}
