//! `backlog`: millions of records wait, and each handler call takes 50 ms: resident memory must
//! stay flat.
//!
//! Runs for half a minute, far from the backlog's end. The value is the growth of memory since the
//! process's start.

use crate::measure::usage::{resident_max_mib, resident_mib};
use crate::spec::{Aim, Bound, Contestant, Data, Figure, Plan, Spec, Turn};
use anyhow::bail;
use evenkeel::consumer::{Consumer, ConsumerSettings};
use evenkeel::event::Record;
use evenkeel::handler::Router;
use evenkeel::testing::unique;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const HANDLER: Duration = Duration::from_millis(50);
const SAMPLES: u32 = 60;
const EVERY: Duration = Duration::from_millis(500);

pub(crate) fn plan() -> Plan {
    Plan {
        title: "memory over the process's start, a handler of 50 ms before a backlog of 10 million"
            .to_owned(),
        unit: "MiB",
        contestants: vec![Contestant {
            name: "evenkeel",
            data: Some(Data {
                records: 10_000_000,
                ..super::throughput::consume::DATA
            }),
        }],
        aims: vec![
            Aim::new("evenkeel", Figure::Value, Bound::AtMost(64.0)),
            Aim::new(
                "evenkeel",
                Figure::Detail("late_growth_mib"),
                Bound::AtMost(4.0),
            ),
            Aim::new("evenkeel", Figure::RssMib, Bound::AtMost(128.0)),
        ],
        runs: 1,
    }
}

pub(crate) async fn turn(spec: &Spec) -> anyhow::Result<Turn> {
    let handled = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&handled);
    let router = Router::new().raw(move |_: Record| {
        let counted = Arc::clone(&counted);
        async move {
            tokio::time::sleep(HANDLER).await;
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let at_start = resident_mib()?;
    let stop = CancellationToken::new();
    let kafka = spec.kafka()?;
    let settings = ConsumerSettings::new(unique("bench-evenkeel"), [spec.topic.clone()]);
    let running = tokio::spawn(Consumer::new(kafka, settings, router)?.run(stop.clone()));
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        tokio::time::sleep(EVERY).await;
        samples.push(resident_mib()?);
    }
    stop.cancel();
    let report = running.await??;
    let handled = handled.load(Ordering::Relaxed);
    if handled == 0 || handled >= spec.data.records || !report.clean {
        bail!("wrong answer: {handled} handled, {report:?}");
    }
    let highest = |samples: &[f64]| samples.iter().copied().fold(0.0, f64::max);
    let (early, late) = samples.split_at(samples.len() / 2);
    Ok(Turn {
        value: highest(&samples) - at_start,
        us_per_message: None,
        rss_mib: resident_max_mib()?,
        details: [
            ("handled".to_owned(), handled as f64),
            ("late_growth_mib".to_owned(), highest(late) - highest(early)),
        ]
        .into(),
    })
}
