//! `publish`: publishes at full speed, awaits every receipt; acks=all, idempotent.
//!
//! `threaded` is a `ThreadedProducer` with a delivery callback. `future` is a `FutureProducer` with
//! a future for each record. Both are used as in hand-written code, with the same linger and buffer
//! as evenkeel's publisher. None of these three compresses. `evenkeel-lz4` does, which is the
//! default of evenkeel's publisher.

use crate::measure::result_check::{key, value};
use crate::measure::run::rate;
use crate::measure::usage::{Usage, UsageReading};
use crate::spec::{Aim, Bound, Contestant, Data, Figure, Plan, Spec, Turn};
use anyhow::{Context, bail};
use bytes::Bytes;
use evenkeel::event::{Headers, OutgoingRecord};
use evenkeel::publisher::{Publisher, PublisherSettings};
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::future_producer::FutureRecord;
use rdkafka::producer::{
    BaseRecord, DeliveryResult, FutureProducer, Producer, ProducerContext, ThreadedProducer,
};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Receipts are awaited after this many records.
const PIPELINED: usize = 50_000;
const FLUSH: Duration = Duration::from_secs(60);

pub(crate) fn plan() -> Plan {
    let contestant = |name| Contestant { name, data: None };
    Plan {
        title: "publishes, pipelined, every receipt awaited".to_owned(),
        unit: "messages/s",
        contestants: ["threaded", "future", "evenkeel", "evenkeel-lz4"]
            .map(contestant)
            .into(),
        aims: vec![
            Aim::new("evenkeel", Figure::RatioTo("future"), Bound::AtLeast(1.0)),
            Aim::new(
                "evenkeel",
                Figure::RatioTo("threaded"),
                Bound::AtLeast(0.95),
            ),
            Aim::new("evenkeel", Figure::UsPerMessage, Bound::AtMost(2.3)),
        ],
        runs: 5,
    }
}

pub(crate) async fn turn(spec: &Spec) -> anyhow::Result<Turn> {
    let records = spec.data.records;
    let spent = match spec.contestant.as_str() {
        "threaded" => {
            let spec = spec.clone();
            tokio::task::spawn_blocking(move || threaded(&spec)).await??
        }
        "future" => future(spec).await?,
        _ => evenkeel(spec).await?,
    };
    rate(records, spent)
}

fn config(spec: &Spec) -> ClientConfig {
    spec.raw(&[
        ("enable.idempotence", "true"),
        ("linger.ms", "2"),
        ("queue.buffering.max.messages", "100000"),
        ("queue.buffering.max.kbytes", "65536"),
    ])
}

/// Keys and values, created before the clock starts.
struct Prepared {
    keys: Vec<Bytes>,
    values: Vec<Bytes>,
}

impl Prepared {
    fn new(data: &Data) -> Self {
        let places = data.records / data.keys as u64;
        Self {
            keys: (0..data.keys).map(|number| key(number).into()).collect(),
            values: (0..places)
                .map(|place| value(place, data.size).into())
                .collect(),
        }
    }

    fn record(&self, number: u64) -> (&Bytes, &Bytes) {
        let keys = self.keys.len();
        (
            &self.keys[number as usize % keys],
            &self.values[number as usize / keys],
        )
    }
}

#[derive(Default, Clone)]
struct Delivered(Arc<AtomicU64>);

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_ok() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn threaded(spec: &Spec) -> anyhow::Result<Usage> {
    let delivered = Delivered::default();
    let producer: ThreadedProducer<Delivered> =
        config(spec).create_with_context(delivered.clone())?;
    let prepared = Prepared::new(&spec.data);
    let begun = UsageReading::now();
    for number in 0..spec.data.records {
        let (key, value) = prepared.record(number);
        let mut record = BaseRecord::to(&spec.topic).key(&**key).payload(&**value);
        while let Err((error, refused)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error).context("cannot publish");
            }
            std::thread::sleep(Duration::from_millis(1));
            record = refused;
        }
    }
    producer.flush(FLUSH)?;
    let spent = UsageReading::now().since(&begun)?;
    let delivered = delivered.0.load(Ordering::Relaxed);
    if delivered != spec.data.records {
        bail!(
            "wrong answer: {delivered} of {} delivered",
            spec.data.records
        );
    }
    Ok(spent)
}

async fn future(spec: &Spec) -> anyhow::Result<Usage> {
    let producer: FutureProducer = config(spec).create()?;
    let prepared = Prepared::new(&spec.data);
    let begun = UsageReading::now();
    let mut pending = VecDeque::with_capacity(PIPELINED);
    for number in 0..spec.data.records {
        let (key, value) = prepared.record(number);
        let mut record = FutureRecord::to(&spec.topic).key(&**key).payload(&**value);
        loop {
            match producer.send_result(record) {
                Ok(receipt) => break pending.push_back(receipt),
                Err((error, refused)) => {
                    if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                        return Err(error).context("cannot publish");
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    record = refused;
                }
            }
        }
        if pending.len() == PIPELINED
            && let Some(receipt) = pending.pop_front()
        {
            receipt.await?.map_err(|(error, _)| error)?;
        }
    }
    for receipt in pending {
        receipt.await?.map_err(|(error, _)| error)?;
    }
    UsageReading::now().since(&begun)
}

async fn evenkeel(spec: &Spec) -> anyhow::Result<Usage> {
    let compression = match spec.contestant.as_str() {
        "evenkeel" => "compression.type=none",
        _ => "compression.type=lz4",
    };
    let kafka = spec.kafka_with(&[compression])?;
    let publisher = Publisher::new(&kafka, PublisherSettings::new("/bench/publish"))?;
    let prepared = Prepared::new(&spec.data);
    let begun = UsageReading::now();
    let mut pending = VecDeque::with_capacity(PIPELINED);
    for number in 0..spec.data.records {
        let (key, value) = prepared.record(number);
        let record = OutgoingRecord {
            topic: spec.topic.clone(),
            partition: None,
            key: Some(key.clone()),
            value: Some(value.clone()),
            headers: Headers::new(),
            timestamp_ms: None,
        };
        pending.push_back(publisher.enqueue_record(record).await?);
        if pending.len() == PIPELINED
            && let Some(receipt) = pending.pop_front()
        {
            receipt.await?;
        }
    }
    for receipt in pending {
        receipt.await?;
    }
    UsageReading::now().since(&begun)
}
