//! `latency`: the time from the call that publishes a record to the call of its handler, at 500
//! records per second.
//!
//! `raw` is a `ThreadedProducer` and a thread that polls a `BaseConsumer`. Neither side lingers.

use crate::measure::run::raw_config;
use crate::measure::steady_rate::{LatencyTracker, SteadyRate};
use crate::measure::usage::{UsageReading, resident_max_mib};
use crate::spec::{Aim, Bound, Contestant, Figure, Plan, Spec, Turn};
use evenkeel::consumer::{Consumer, ConsumerSettings};
use evenkeel::event::{Headers, OutgoingRecord, Record};
use evenkeel::handler::Router;
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::testing::unique;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const RATE: SteadyRate = SteadyRate {
    per_second: 500,
    warm_up: Duration::from_secs(5),
    counted_time: Duration::from_secs(10),
};

pub(crate) fn plan() -> Plan {
    let contestant = |name| Contestant { name, data: None };
    Plan {
        title: "publish to handler at 500 a second, median".to_owned(),
        unit: "ms",
        contestants: ["raw", "evenkeel"].map(contestant).into(),
        aims: vec![
            Aim::new("evenkeel", Figure::MoreThan("raw"), Bound::AtMost(0.1)),
            Aim::new(
                "evenkeel",
                Figure::DetailRatioTo("p99_ms", "raw"),
                Bound::AtMost(1.3),
            ),
        ],
        runs: 3,
    }
}

pub(crate) async fn turn(spec: &Spec) -> anyhow::Result<Turn> {
    let begun = UsageReading::now();
    let tracker = Arc::new(LatencyTracker::new(RATE));
    if spec.contestant == "raw" {
        raw(spec, &tracker).await?;
    } else {
        evenkeel(spec, &tracker).await?;
    }
    tracker.fail_on_duplicates()?;
    let details = tracker.latency("", |_| true);
    let spent = UsageReading::now().since(&begun)?;
    Ok(Turn {
        value: details["p50_ms"],
        us_per_message: Some(spent.processor.as_secs_f64() * 1e6 / tracker.counted() as f64),
        rss_mib: resident_max_mib()?,
        details,
    })
}

async fn raw(spec: &Spec, tracker: &Arc<LatencyTracker>) -> anyhow::Result<()> {
    let consumer: BaseConsumer = raw_config(spec).create()?;
    consumer.subscribe(&[&spec.topic])?;
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, handler_tracker) = (Arc::clone(&stop), Arc::clone(tracker));
    let reading = tokio::task::spawn_blocking(move || {
        while !stopped.load(Ordering::Relaxed) {
            if let Some(record) = consumer.poll(Duration::from_millis(100)) {
                handler_tracker.record_handled(record?.payload());
            }
        }
        consumer.unsubscribe();
        anyhow::Ok(())
    });
    let producer: ThreadedProducer<DefaultProducerContext> = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", &spec.brokers)
        .set("enable.idempotence", "true")
        .set("linger.ms", "0")
        .create()?;
    tracker
        .publish(|number| {
            let (key, value) = (format!("k{}", number % 100), number.to_string());
            let record = BaseRecord::to(&spec.topic).key(&key).payload(&value);
            let sent = producer.send(record).map_err(|(error, _)| error.into());
            std::future::ready(sent)
        })
        .await?;
    tracker.wait_until_handled().await?;
    stop.store(true, Ordering::Relaxed);
    reading.await?
}

async fn evenkeel(spec: &Spec, tracker: &Arc<LatencyTracker>) -> anyhow::Result<()> {
    let handler_tracker = Arc::clone(tracker);
    let router = Router::new().raw(move |record: Record| {
        handler_tracker.record_handled(record.value());
        std::future::ready(())
    });
    let stop = CancellationToken::new();
    let kafka = spec.kafka()?;
    let settings = ConsumerSettings::new(unique("bench-evenkeel"), [spec.topic.clone()]);
    let consumer = Consumer::new(kafka, settings, router)?;
    let running = tokio::spawn(consumer.run(stop.clone()));
    let publisher = publisher(spec)?;
    tracker
        .publish(|number| {
            send(
                &publisher,
                &spec.topic,
                format!("k{}", number % 100),
                number,
            )
        })
        .await?;
    tracker.wait_until_handled().await?;
    stop.cancel();
    running.await??;
    Ok(())
}

/// A publisher without linger.
pub(crate) fn publisher(spec: &Spec) -> anyhow::Result<Publisher> {
    let settings = PublisherSettings::new("/bench/paced");
    Ok(Publisher::new(
        &spec.kafka_with(&["linger.ms=0"])?,
        settings,
    )?)
}

/// Enqueues the record with this number, without waiting for its receipt.
pub(crate) fn send(
    publisher: &Publisher,
    topic: &str,
    key: String,
    number: u64,
) -> impl Future<Output = anyhow::Result<()>> + use<> {
    let record = OutgoingRecord {
        topic: topic.to_owned(),
        partition: None,
        key: Some(key.into()),
        value: Some(number.to_string().into()),
        headers: Headers::new(),
        timestamp_ms: None,
    };
    let publisher = publisher.clone();
    async move {
        // The handler side checks that every record arrived.
        let _receipt = publisher.enqueue_record(record).await?;
        Ok(())
    }
}
