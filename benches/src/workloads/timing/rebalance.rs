//! `rebalance`: a second member joins and leaves at 500 records per second. How long does a record
//! wait?
//!
//! `raw` is two `BaseConsumer` loops with the cooperative-sticky assignor and automatic commits. In
//! `raw-brokers` and `evenkeel-brokers` the brokers assign (KIP-848).
//! The value is the longest time from publication to handler. `twice` counts records that were
//! handled again.

use super::latency::{publisher, send};
use crate::measure::run::raw_config;
use crate::measure::steady_rate::{LatencyTracker, SteadyRate};
use crate::measure::usage::resident_max_mib;
use crate::spec::{Aim, Bound, Contestant, Figure, Plan, Spec, Turn};
use evenkeel::consumer::{Assignment, Consumer, ConsumerSettings};
use evenkeel::event::Record;
use evenkeel::handler::Router;
use evenkeel::testing::unique;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const RATE: SteadyRate = SteadyRate {
    per_second: 500,
    warm_up: Duration::from_secs(5),
    counted_time: Duration::from_secs(12),
};
const SECOND_JOINS: Duration = Duration::from_secs(7);
const SECOND_LEAVES: Duration = Duration::from_secs(12);

/// The contestants whose partitions the brokers assign.
const RAW_BROKERS: &str = "raw-brokers";
const EVENKEEL_BROKERS: &str = "evenkeel-brokers";

pub(crate) fn plan() -> Plan {
    let contestant = |name| Contestant { name, data: None };
    let names = ["raw", "evenkeel", RAW_BROKERS, EVENKEEL_BROKERS];
    Plan {
        title: "the longest wait of a record while a second member joins and leaves".to_owned(),
        unit: "ms",
        contestants: names.map(contestant).into(),
        aims: vec![
            Aim::new("evenkeel", Figure::Value, Bound::AtMost(2_000.0)),
            Aim::new("evenkeel", Figure::RatioTo("raw"), Bound::AtMost(1.3)),
            Aim::new("evenkeel", Figure::Detail("twice"), Bound::AtMost(0.0)),
            Aim::new(EVENKEEL_BROKERS, Figure::Value, Bound::AtMost(500.0)),
            Aim::new(
                EVENKEEL_BROKERS,
                Figure::RatioTo(RAW_BROKERS),
                Bound::AtMost(1.3),
            ),
            Aim::new(
                EVENKEEL_BROKERS,
                Figure::Detail("twice"),
                Bound::AtMost(0.0),
            ),
        ],
        runs: 3,
    }
}

pub(crate) async fn turn(spec: &Spec) -> anyhow::Result<Turn> {
    let tracker = Arc::new(LatencyTracker::new(RATE));
    let publisher = publisher(spec)?;
    let publishing = tracker.publish(|number| {
        send(
            &publisher,
            &spec.topic,
            format!("k{}", number % 1_000),
            number,
        )
    });
    let group = unique("bench-rebalance");
    let member = || -> anyhow::Result<Member> {
        if ["raw", RAW_BROKERS].contains(&&*spec.contestant) {
            raw(spec, &group, &tracker)
        } else {
            evenkeel(spec, &group, &tracker)
        }
    };
    let members = async {
        let first = member()?;
        tokio::time::sleep(SECOND_JOINS.saturating_sub(tracker.elapsed())).await;
        let second = member()?;
        tokio::time::sleep(SECOND_LEAVES.saturating_sub(tracker.elapsed())).await;
        second.stop().await?;
        anyhow::Ok(first)
    };
    let (published, first) = tokio::join!(publishing, members);
    published?;
    tracker.wait_until_handled().await?;
    first?.stop().await?;
    let mut details = tracker.latency("", |_| true);
    details.insert("twice".to_owned(), tracker.duplicates() as f64);
    Ok(Turn {
        value: details["max_ms"],
        us_per_message: None,
        rss_mib: resident_max_mib()?,
        details,
    })
}

/// A running member of the group.
struct Member {
    stop: CancellationToken,
    running: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Member {
    async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.running.await?
    }
}

fn raw(spec: &Spec, group: &str, tracker: &Arc<LatencyTracker>) -> anyhow::Result<Member> {
    let (assignment, value) = match &*spec.contestant {
        RAW_BROKERS => ("group.protocol", "consumer"),
        _ => ("partition.assignment.strategy", "cooperative-sticky"),
    };
    let consumer: BaseConsumer = raw_config(spec)
        .set("group.id", group)
        .set("enable.auto.commit", "true")
        .set("auto.commit.interval.ms", "1000")
        .set(assignment, value)
        .create()?;
    consumer.subscribe(&[&spec.topic])?;
    let (stop, handler_tracker) = (CancellationToken::new(), Arc::clone(tracker));
    let stopped = Arc::new(AtomicBool::new(false));
    let (flag, cancelled) = (Arc::clone(&stopped), stop.clone());
    tokio::spawn(async move {
        cancelled.cancelled().await;
        flag.store(true, Ordering::Relaxed);
    });
    let running = tokio::task::spawn_blocking(move || {
        while !stopped.load(Ordering::Relaxed) {
            if let Some(record) = consumer.poll(Duration::from_millis(100)) {
                handler_tracker.record_handled(record?.payload());
            }
        }
        consumer.unsubscribe();
        // Leaving the group takes further polls.
        for _ in 0..5 {
            consumer.poll(Duration::from_millis(100));
        }
        Ok(())
    });
    Ok(Member { stop, running })
}

fn evenkeel(spec: &Spec, group: &str, tracker: &Arc<LatencyTracker>) -> anyhow::Result<Member> {
    let handler_tracker = Arc::clone(tracker);
    let router = Router::new().raw(move |record: Record| {
        handler_tracker.record_handled(record.value());
        std::future::ready(())
    });
    let assignment = match &*spec.contestant {
        EVENKEEL_BROKERS => Assignment::Broker,
        _ => Assignment::CooperativeSticky,
    };
    let settings = ConsumerSettings::new(group, [spec.topic.clone()]).with_assignment(assignment);
    let consumer = Consumer::new(spec.kafka()?, settings, router)?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let running = tokio::spawn(async move {
        consumer.run(stopped).await?;
        Ok(())
    });
    Ok(Member { stop, running })
}
