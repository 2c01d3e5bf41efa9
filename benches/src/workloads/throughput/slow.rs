//! `slow`: a handler that waits for 10 ms, like one that calls another service.
//!
//! The timer sets the upper limit. `tokio` measures it: bare tasks with the same number of sleeps,
//! without Kafka and ordering, 1,000 or 10,000 at a time.

use crate::measure::result_check::ResultCheck;
use crate::measure::run::{evenkeel, rate};
use crate::measure::usage::UsageReading;
use crate::spec::{Aim, Bound, Contestant, Figure, Plan, Spec, Turn};
use evenkeel::consumer::RecordHeaders;
use evenkeel::event::Record;
use evenkeel::handler::Router;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const HANDLER: Duration = Duration::from_millis(10);

pub(crate) fn plan() -> Plan {
    let contestant = |name| Contestant {
        name,
        data: Some(super::consume::DATA),
    };
    let names = ["tokio", "evenkeel", "tokio-10000", "evenkeel-10000"];
    Plan {
        title: "a handler that waits 10 ms, concurrency 1,000 and 10,000".to_owned(),
        unit: "messages/s",
        contestants: names.map(contestant).into(),
        aims: vec![
            Aim::new("evenkeel", Figure::RatioTo("tokio"), Bound::AtLeast(0.95)),
            Aim::new("evenkeel", Figure::UsPerMessage, Bound::AtMost(5.0)),
            Aim::new("evenkeel", Figure::RssMib, Bound::AtMost(100.0)),
            Aim::new("evenkeel-10000", Figure::Value, Bound::AtLeast(200_000.0)),
            Aim::new("evenkeel-10000", Figure::UsPerMessage, Bound::AtMost(5.0)),
            Aim::new("evenkeel-10000", Figure::RssMib, Bound::AtMost(100.0)),
        ],
        runs: 3,
    }
}

pub(crate) async fn turn(spec: &Spec) -> anyhow::Result<Turn> {
    let concurrency = if spec.contestant.ends_with("10000") {
        10_000
    } else {
        1_000
    };
    if spec.contestant.starts_with("tokio") {
        return bare(spec.data.records, concurrency).await;
    }
    let check = Arc::new(ResultCheck::of(&spec.data));
    let handler_check = Arc::clone(&check);
    let router = Router::new().raw(move |record: Record| {
        let handler_check = Arc::clone(&handler_check);
        async move {
            tokio::time::sleep(HANDLER).await;
            handler_check.check_record(record.key(), record.value());
        }
    });
    evenkeel(spec, router, |settings| {
        settings.headers = RecordHeaders::Skip;
        settings.concurrency = concurrency;
    })
    .await?;
    rate(spec.data.records, check.finish()?)
}

async fn bare(sleeps: u64, concurrency: usize) -> anyhow::Result<Turn> {
    let begun = UsageReading::now();
    let left = Arc::new(AtomicU64::new(sleeps));
    let tasks: Vec<_> = (0..concurrency)
        .map(|_| {
            let left = Arc::clone(&left);
            tokio::spawn(async move {
                let less = |left: u64| left.checked_sub(1);
                while left
                    .try_update(Ordering::Relaxed, Ordering::Relaxed, less)
                    .is_ok()
                {
                    tokio::time::sleep(HANDLER).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await?;
    }
    rate(sleeps, UsageReading::now().since(&begun)?)
}
