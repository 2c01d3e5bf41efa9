//! `parked`: a million records of 100,000 keys are parked when a member is assigned its partitions.
//!
//! The value is the time from the assignment until the first record of every partition is handled.
//! By then all parked sets are complete. No parked record is due meanwhile. A separate process
//! writes the parked records, so that the measured memory is the consumer's alone.

use super::throughput::consume::DATA;
use crate::cluster::Cluster;
use crate::measure::usage::{resident_max_mib, resident_mib};
use crate::rounds::run_in_process;
use crate::spec::{Aim, Bound, Contestant, Figure, Plan, Spec, Turn};
use anyhow::{Context, bail};
use evenkeel::consumer::{Consumer, ConsumerSettings};
use evenkeel::event::Record;
use evenkeel::handler::Router;
use evenkeel::kafka::admin::{Admin, NewTopic};
use evenkeel::recovery::retry_topic;
use evenkeel::telemetry::Health;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;

const RECORDS: u64 = 1_000_000;
const KEYS: u64 = 100_000;
/// The contestant that writes the parked records. It does not take part.
const WRITER: &str = "writer";
const WITHIN: Duration = Duration::from_secs(60);

pub(crate) fn plan() -> Plan {
    Plan {
        title: "an assignment with 1,000,000 parked records of 100,000 keys".to_owned(),
        unit: "s",
        contestants: vec![Contestant {
            name: "evenkeel",
            data: None,
        }],
        aims: vec![
            Aim::new("evenkeel", Figure::Value, Bound::AtMost(5.0)),
            Aim::new("evenkeel", Figure::RssMib, Bound::AtMost(128.0)),
        ],
        runs: 3,
    }
}

pub(crate) async fn turn(spec: &Spec) -> anyhow::Result<Turn> {
    if spec.contestant == WRITER {
        return write(spec).await;
    }
    let writer = Spec {
        contestant: WRITER.to_owned(),
        ..spec.clone()
    };
    let cluster = Cluster::get(Some(&spec.brokers)).await?;
    run_in_process(&writer).await?;
    let turn = measure(spec).await;
    cluster
        .delete(&retry_topic(&spec.topic, &spec.topic))
        .await?;
    turn
}

async fn measure(spec: &Spec) -> anyhow::Result<Turn> {
    let at_start = resident_mib()?;
    let handled = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&handled);
    let router = Router::new().raw(move |_: Record| {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::ready(())
    });
    let (health, stop) = (Health::default(), CancellationToken::new());
    let settings = ConsumerSettings::new(spec.topic.clone(), [spec.topic.clone()]);
    let consumer = Consumer::new(spec.kafka()?, settings, router)?.with_health(health.clone());
    let running = tokio::spawn(consumer.run(stop.clone()));
    let began = Instant::now();
    let is_assigned = || {
        let mut components = health.components().into_iter();
        let is_known = components.any(|name| name.starts_with("consumer "));
        is_known && health.not_ready().is_empty()
    };
    wait_until(began, is_assigned).await?;
    let assigned = Instant::now();
    let first_ones = DATA.partitions.unsigned_abs().into();
    wait_until(began, || handled.load(Ordering::Relaxed) >= first_ones).await?;
    let whole_after = assigned.elapsed();
    stop.cancel();
    let report = running.await??;
    let handled = handled.load(Ordering::Relaxed);
    if handled != first_ones || report.parked != 0 || !report.clean {
        bail!("wrong answer: {handled} handled, {report:?}");
    }
    let highest = resident_max_mib()?;
    Ok(Turn {
        value: whole_after.as_secs_f64(),
        us_per_message: None,
        rss_mib: highest,
        details: [("growth_mib".to_owned(), highest - at_start)].into(),
    })
}

async fn wait_until(began: Instant, holds: impl Fn() -> bool) -> anyhow::Result<()> {
    while !holds() {
        if began.elapsed() > WITHIN {
            bail!("not within {} s", WITHIN.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Writes a record to each partition of the topic, and the parked records of the group that has the
/// topic's name.
async fn write(spec: &Spec) -> anyhow::Result<Turn> {
    let retry = retry_topic(&spec.topic, &spec.topic);
    let admin = Admin::connect(&spec.kafka()?, WITHIN).await?;
    let topic = NewTopic::new(retry.clone())
        .with_partitions(DATA.partitions)
        .with_replication(1)
        .with_setting("retention.ms", "-1");
    admin.create_topics(&[topic]).await?;
    let config = spec.raw(&[("linger.ms", "20"), ("batch.size", "1000000")]);
    let producer: ThreadedProducer<DefaultProducerContext> = config.create()?;
    let send = |record: BaseRecord<'_, str, [u8]>| {
        let mut record = record;
        while let Err((error, refused)) = producer.send(record) {
            if error.rdkafka_error_code() != Some(rdkafka::error::RDKafkaErrorCode::QueueFull) {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(5));
            record = refused;
        }
        Ok(())
    };
    let value = vec![b'x'; DATA.size];
    for partition in 0..DATA.partitions {
        let record = BaseRecord::to(&spec.topic)
            .partition(partition)
            .key("nobody waits");
        send(record.payload(&value[..]))?;
    }
    let due = SystemTime::now().duration_since(UNIX_EPOCH)? + Duration::from_secs(3_600);
    let due = due.as_millis().to_string();
    for number in 0..RECORDS {
        let (key, partition) = (
            number % KEYS,
            number % KEYS % DATA.partitions.unsigned_abs() as u64,
        );
        let origin = number.to_string();
        let mut headers = OwnedHeaders::new()
            .insert(header("evenkeel.parked.kind", "record"))
            .insert(header("evenkeel.parked.offset", &origin));
        if number < KEYS {
            headers = headers
                .insert(header("evenkeel.parked.rounds", "1"))
                .insert(header("evenkeel.parked.not-before", &due));
        }
        let key = format!("key-{key}");
        let record = BaseRecord::to(&retry)
            .partition(i32::try_from(partition)?)
            .key(&*key);
        send(record.payload(&value[..]).headers(headers))?;
    }
    producer
        .flush(WITHIN)
        .context("not everything was written")?;
    Ok(Turn {
        value: 0.0,
        us_per_message: None,
        rss_mib: 0.0,
        details: BTreeMap::new(),
    })
}

fn header<'a>(key: &'a str, value: &'a str) -> Header<'a, &'a str> {
    Header {
        key,
        value: Some(value),
    }
}
