//! What is accepted survives, and is published once: the stores with a relay on a real Kafka.

use bytes::Bytes;
use evenkeel::event::{Headers, OutgoingRecord, new_id};
use evenkeel::kafka::KafkaConfig;
use evenkeel::kafka::reader::LogRecord;
use evenkeel::outbox::{OutboxStore, Relay};
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::testing::{TestKafka, eventually, postgres, read_topic, real_kafka, unique};
use evenkeel_gateway::store::{
    AcceptError, AcceptRequest, AcceptStore, Accepted, AcceptedEvent, BrokerStore,
    IdempotencyClaim, PostgresStore, SqliteStore, StoredAnswer,
};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longer than any step takes on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);

const SOURCE: &str = "/callers/shop";

/// A topic of its own.
struct Case {
    kafka: KafkaConfig,
    topic: String,
}

impl Case {
    async fn on(kafka: &TestKafka) -> Self {
        let topic = unique("gateway-stores");
        kafka
            .create_topic(&topic, 3)
            .await
            .expect("the topic is created");
        Self {
            kafka: kafka.config(),
            topic,
        }
    }

    fn publisher(&self) -> Publisher {
        let settings = PublisherSettings::new("/gateway");
        Publisher::new(&self.kafka, settings).expect("the settings are valid")
    }

    /// The `n`-th event of a key. Its id is the same at every call.
    fn event(&self, key: &str, n: usize) -> AcceptedEvent {
        let (id, value) = (format!("{}-{key}-{n}", self.topic), n.to_string());
        let mut headers = Headers::new();
        let attributes = [
            ("ce_specversion", "1.0"),
            ("ce_id", &*id),
            ("ce_source", SOURCE),
            ("ce_type", "shop.order-placed.v1"),
        ];
        for (name, attribute) in attributes {
            headers.push(name, Some(attribute.as_bytes()));
        }
        AcceptedEvent {
            source: SOURCE.to_owned(),
            ty: "shop.order-placed.v1".to_owned(),
            fingerprint: Sha256::digest(format!("{key}\0{value}")).into(),
            record: OutgoingRecord {
                topic: self.topic.clone(),
                partition: None,
                key: Some(Bytes::copy_from_slice(key.as_bytes())),
                value: Some(value.into()),
                headers,
                timestamp_ms: None,
            },
            id,
        }
    }

    /// The request for one event, with an `Idempotency-Key` of its own.
    fn request(&self, key: &str, n: usize) -> AcceptRequest {
        AcceptRequest {
            events: vec![self.event(key, n)],
            idempotency: Some(IdempotencyClaim {
                principal: "shop".to_owned(),
                key: format!("{}-{key}-{n}", self.topic),
                fingerprint: [7; 32],
            }),
            answer: StoredAnswer {
                status: 202,
                headers: Vec::new(),
                body: Bytes::new(),
            },
            deadline: None,
        }
    }

    async fn records(&self) -> Vec<LogRecord> {
        read_topic(&self.kafka, &self.topic, WITHIN).await
    }

    /// The values on the log by key, in their order.
    async fn values(&self) -> BTreeMap<String, Vec<usize>> {
        let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.expect("bytes")).expect("text");
        let mut values: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for record in self.records().await {
            let value = text(record.value).parse().expect("a number");
            values.entry(text(record.key)).or_default().push(value);
        }
        values
    }
}

/// A relay in this process.
struct Running {
    stop: CancellationToken,
    ended: JoinHandle<u64>,
}

impl Running {
    fn start(outbox: impl Into<OutboxStore>, publisher: Publisher) -> Self {
        let stop = CancellationToken::new();
        let (relay, stopped) = (Relay::new(outbox, publisher), stop.clone());
        let run = async move {
            let report = relay.run(stopped).await.expect("the relay ends well");
            report.published
        };
        Self {
            stop,
            ended: tokio::spawn(run),
        }
    }

    async fn stop(self) -> u64 {
        self.stop.cancel();
        self.ended.await.expect("it does not panic")
    }
}

/// Waits until the brokers have everything.
async fn emptied(store: &dyn AcceptStore, events: u64) {
    eventually("the outbox is empty", WITHIN, || async {
        let backlog = store.backlog();
        (backlog.events == 0 && backlog.drained >= events).then_some(())
    })
    .await;
}

/// Posts the requests of some keys, each caller one after the other, and each request twice.
async fn post_all(case: &Case, stores: &[Arc<dyn AcceptStore>], keys: usize, each: usize) {
    let callers = (0..keys).map(|caller| async move {
        let key = format!("k-{caller}");
        for n in 0..each {
            for again in 0..2 {
                let store = &stores[(caller + n + again) % stores.len()];
                let accepted = store.accept(case.request(&key, n)).await;
                match (again, accepted) {
                    (0, Ok(Accepted::New)) | (1, Ok(Accepted::Repeated(_))) => {}
                    (again, other) => panic!("{key} {n} {again}: {other:?}"),
                }
            }
        }
    });
    futures_util::future::join_all(callers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_publishes_once_in_order_across_a_restart() {
    let Some(kafka) = real_kafka().await else {
        return;
    };
    let case = Case::on(kafka).await;
    let directory = tempfile::tempdir().expect("a temporary folder is created");
    let path = directory.path().join("gateway.db");
    let (keys, each) = (8, 25);
    let mut published = 0;
    // The second run repeats every request of the first, as callers do after a crash.
    for run in 1..=2 {
        let store = Arc::new(SqliteStore::open(&path).await.expect("the store opens"));
        let before = store
            .find(&case.event("k-0", 0).id, None)
            .await
            .expect("the store answers");
        assert_eq!(before.is_empty(), run == 1, "{before:?}");
        let shared: Arc<dyn AcceptStore> = store.clone();
        if run == 1 {
            post_all(&case, &[shared], keys, each).await;
        }
        for n in 0..each {
            let repeated = store.accept(case.request("k-0", n)).await;
            assert!(
                matches!(repeated, Ok(Accepted::Repeated(_))),
                "{repeated:?}"
            );
        }
        // Killed between the acceptance and the publication: the first run has no relay.
        if run == 2 {
            let waiting = store.find(&case.event("k-0", 0).id, Some(SOURCE)).await;
            assert!(waiting.expect("the store answers")[0].in_outbox);
            let relay = Running::start(store.outbox(), case.publisher());
            emptied(&*store, (keys * each) as u64).await;
            published = relay.stop().await;
            let sent = store.find(&case.event("k-0", 0).id, Some(SOURCE)).await;
            assert!(!sent.expect("the store answers")[0].in_outbox);
        }
        store.close().await;
    }
    assert_eq!(published, (keys * each) as u64);
    let values = case.values().await;
    assert_eq!(values.len(), keys);
    for (key, values) in values {
        assert_eq!(values, (0..each).collect::<Vec<_>>(), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_on_one_database_publish_once_in_order() {
    let Some(kafka) = real_kafka().await else {
        return;
    };
    let Some(postgres) = postgres().await else {
        return;
    };
    let url = postgres.database().await.expect("an empty database");
    let case = Case::on(kafka).await;
    let (keys, each) = (8, 25);
    let open = async || PostgresStore::open(&url).await.expect("the store opens");
    let (one, other) = (Arc::new(open().await), Arc::new(open().await));
    let publisher = case.publisher();
    let relays = [
        Running::start(one.outbox(), publisher.clone()),
        Running::start(other.outbox(), publisher),
    ];
    // A slot that changes its relay while its events are sent may have one of them sent twice.
    let outbox = OutboxStore::from(one.outbox());
    eventually("the relays share the slots", WITHIN, || async {
        let status = outbox.status().await.ok()?;
        let has_half = status.relays.iter().all(|relay| relay.slots == 32);
        (status.relays.len() == 2 && has_half).then_some(())
    })
    .await;
    let stores: [Arc<dyn AcceptStore>; 2] = [one.clone(), other.clone()];
    post_all(&case, &stores, keys, each).await;
    emptied(&*one, (keys * each) as u64).await;
    let mut published = 0;
    for relay in relays {
        published += relay.stop().await;
    }
    assert_eq!(published, (keys * each) as u64);
    for (key, values) in case.values().await {
        assert_eq!(values, (0..each).collect::<Vec<_>>(), "{key}");
    }
    one.close().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_brokers_store_answers_with_the_position_on_the_log() {
    let Some(kafka) = real_kafka().await else {
        return;
    };
    let case = Case::on(kafka).await;
    let store = BrokerStore::new(case.publisher());
    let keyed = store.accept(case.request("k", 0)).await;
    assert!(matches!(keyed, Err(AcceptError::NoIdentities)), "{keyed:?}");
    let request = AcceptRequest {
        events: (0..50)
            .map(|n| case.event(&format!("k-{}", n % 5), n))
            .collect(),
        idempotency: None,
        ..case.request("k", 0)
    };
    let ids: Vec<String> = request
        .events
        .iter()
        .map(|event| event.id.clone())
        .collect();
    let accepted = store.accept(request).await.expect("the brokers answer");
    assert_eq!(accepted, Accepted::New);
    let records = case.records().await;
    assert_eq!(records.len(), 50);
    for id in &ids {
        let places = store.find(id, Some(SOURCE)).await.expect("it answers");
        let (partition, offset) = places[0].position.expect("it is on the log");
        let is_here =
            |record: &&LogRecord| (record.partition, record.offset) == (partition, offset);
        let record = records.iter().find(is_here).expect("the record");
        assert_eq!(record.headers.last("ce_id"), Some(id.as_bytes()));
    }
    let backlog = store.backlog();
    assert_eq!(
        (backlog.events, backlog.drained, backlog.oldest_age),
        (0, 50, None)
    );
    assert!(
        store
            .find(&new_id(), None)
            .await
            .expect("it answers")
            .is_empty()
    );
}
