//! `lifecycle`: the time of a consumer's start, its resource usage while idle, and the time of its
//! stop.
//!
//! The value is the time from the assignment to the first handled record.

use super::latency::{publisher, send};
use crate::measure::usage::{UsageReading, resident_max_mib};
use crate::spec::{Aim, Bound, Contestant, Figure, Plan, Spec, Turn};
use anyhow::{Context, bail};
use evenkeel::consumer::{Consumer, ConsumerSettings};
use evenkeel::event::Record;
use evenkeel::handler::Router;
use evenkeel::telemetry::Health;
use evenkeel::testing::unique;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const IDLE: Duration = Duration::from_secs(10);
const START_MAX: Duration = Duration::from_secs(30);

pub(crate) fn plan() -> Plan {
    let contestant = |name| Contestant { name, data: None };
    Plan {
        title: "assignment to first handled record; processor while idle; a stop while idle"
            .to_owned(),
        unit: "ms",
        contestants: ["evenkeel"].map(contestant).into(),
        aims: vec![
            Aim::new("evenkeel", Figure::Value, Bound::AtMost(1_000.0)),
            Aim::new(
                "evenkeel",
                Figure::Detail("stop_ms"),
                Bound::AtMost(1_000.0),
            ),
            Aim::new(
                "evenkeel",
                Figure::Detail("idle_percent_of_a_core"),
                Bound::AtMost(0.5),
            ),
        ],
        runs: 3,
    }
}

pub(crate) async fn turn(spec: &Spec) -> anyhow::Result<Turn> {
    let publisher = publisher(spec)?;
    for number in 0..100 {
        send(&publisher, &spec.topic, format!("k{number}"), number).await?;
    }
    publisher.flush(START_MAX).await?;
    drop(publisher);
    let first = Arc::new(OnceLock::new());
    let seen = Arc::clone(&first);
    let router = Router::new().raw(move |_: Record| {
        seen.get_or_init(Instant::now);
        std::future::ready(())
    });
    let (stop, health) = (CancellationToken::new(), Health::default());
    let settings = ConsumerSettings::new(unique("bench-evenkeel"), [spec.topic.clone()]);
    let consumer = Consumer::new(spec.kafka()?, settings, router)?;
    let started = Instant::now();
    let running = tokio::spawn(consumer.with_health(health.clone()).run(stop.clone()));
    let mut assigned = None;
    while first.get().is_none() {
        if started.elapsed() > START_MAX {
            bail!("wrong answer: no record came");
        }
        let not_ready = health.components().is_empty() || !health.not_ready().is_empty();
        if assigned.is_none() && !not_ready {
            assigned = Some(Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let first = *first.get().context("a record came")?;
    let to_first = first.saturating_duration_since(assigned.unwrap_or(started));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let idle = UsageReading::now();
    tokio::time::sleep(IDLE).await;
    let idle = UsageReading::now().since(&idle)?;
    let stopping = Instant::now();
    stop.cancel();
    let report = running.await??;
    if report.settled != 100 || !report.clean {
        bail!("wrong answer: {report:?}");
    }
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
    let percent = 100.0 * idle.processor.as_secs_f64() / idle.wall.as_secs_f64();
    Ok(Turn {
        value: milliseconds(to_first),
        us_per_message: None,
        rss_mib: resident_max_mib()?,
        details: [
            ("start_ms", milliseconds(first - started)),
            ("stop_ms", milliseconds(stopping.elapsed())),
            ("idle_percent_of_a_core", percent),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into(),
    })
}
