//! `hot-key`: the effect of one key on the others, at 600 records per second with a handler of 1
//! ms.
//!
//! - `even`: a thousand keys with equal shares
//! - `evenkeel`: one key has half of all records
//! - `computing`: one key's handler computes for 5 ms without yielding, 20 times per second
//!
//! The value is the 99th percentile of the time from publication to handler, over all other keys.

use super::latency::{publisher, send};
use crate::measure::steady_rate::{LatencyTracker, SteadyRate};
use crate::measure::usage::resident_max_mib;
use crate::spec::{Aim, Bound, Contestant, Figure, Plan, Spec, Turn};
use evenkeel::consumer::{Consumer, ConsumerSettings};
use evenkeel::event::Record;
use evenkeel::handler::Router;
use evenkeel::testing::unique;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const RATE: SteadyRate = SteadyRate {
    per_second: 600,
    warm_up: Duration::from_secs(5),
    counted_time: Duration::from_secs(10),
};
const KEYS: u64 = 1_000;
const HANDLER: Duration = Duration::from_millis(1);
const COMPUTING: Duration = Duration::from_millis(5);
/// The key that behaves differently.
const ODD: &str = "odd";

pub(crate) fn plan() -> Plan {
    let contestant = |name| Contestant { name, data: None };
    Plan {
        title: "other keys' 99th percentile beside a key with half of all records".to_owned(),
        unit: "ms",
        contestants: ["even", "evenkeel", "computing"].map(contestant).into(),
        aims: vec![
            Aim::new("evenkeel", Figure::RatioTo("even"), Bound::AtMost(2.0)),
            Aim::new("computing", Figure::RatioTo("even"), Bound::AtMost(2.0)),
        ],
        runs: 3,
    }
}

pub(crate) async fn turn(spec: &Spec) -> anyhow::Result<Turn> {
    // One of this many records has the odd key.
    let every = match spec.contestant.as_str() {
        "evenkeel" => 2,
        "computing" => 30,
        _ => u64::MAX,
    };
    let is_odd = move |number: u64| number % every == every - 1;
    let computes = spec.contestant == "computing";
    let tracker = Arc::new(LatencyTracker::new(RATE));
    let handler_tracker = Arc::clone(&tracker);
    let router = Router::new().raw(move |record: Record| {
        handler_tracker.record_handled(record.value());
        let computes = computes && record.key() == Some(ODD.as_bytes());
        async move {
            if computes {
                let until = Instant::now() + COMPUTING;
                while Instant::now() < until {
                    std::hint::spin_loop();
                }
            } else {
                tokio::time::sleep(HANDLER).await;
            }
        }
    });
    let stop = CancellationToken::new();
    let kafka = spec.kafka()?;
    let settings = ConsumerSettings::new(unique("bench-evenkeel"), [spec.topic.clone()]);
    let running = tokio::spawn(Consumer::new(kafka, settings, router)?.run(stop.clone()));
    let publisher = publisher(spec)?;
    tracker
        .publish(|number| {
            let key = if is_odd(number) {
                ODD.to_owned()
            } else {
                format!("k{}", number % KEYS)
            };
            send(&publisher, &spec.topic, key, number)
        })
        .await?;
    tracker.wait_until_handled().await?;
    stop.cancel();
    running.await??;
    tracker.fail_on_duplicates()?;
    let mut details = tracker.latency("others_", |number| !is_odd(number));
    if every < u64::MAX {
        details.extend(tracker.latency("odd_", is_odd));
    }
    Ok(Turn {
        value: details["others_p99_ms"],
        us_per_message: None,
        rss_mib: resident_max_mib()?,
        details,
    })
}
