//! The producer against librdkafka's mock cluster. Run under a memory checker too.

use super::*;
use crate::event::Headers;
use crate::kafka::native::native_headers;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

const TOPIC: &str = "produced";
/// Longer than any step takes, even if it is twenty times slower.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(100);

/// What reached the context.
#[derive(Default)]
struct Reached {
    lines: AtomicUsize,
    statistics: AtomicUsize,
    errors: Mutex<Vec<KafkaError>>,
}

impl ClientContext for Reached {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, line: &str) {
        assert!(!facility.is_empty() && !line.is_empty());
        self.lines.fetch_add(1, Ordering::SeqCst);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        assert!(statistics.starts_with(b"{"));
        self.statistics.fetch_add(1, Ordering::SeqCst);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        assert!(!reason.is_empty());
        self.errors.lock().expect("no panic").push(error);
    }
}

/// The partition is the length of the key. A panic would end the process: what is wrong is refused.
struct ByLength;

impl Partitioner for ByLength {
    fn partition(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        partitions: i32,
        is_available: impl Fn(i32) -> bool,
    ) -> i32 {
        // Whether it is depends on the moment.
        let _ = is_available(0);
        match key {
            Some(key) if topic == TOPIC => key.len() as i32,
            _ => partitions,
        }
    }
}

type Producer = Arc<ProducerClient<Reached, usize>>;

fn producer(brokers: &str, partitioner: Option<ByLength>) -> Producer {
    producer_with(&config(brokers), partitioner)
}

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config.set("statistics.interval.ms", "50");
    config.set_log_level(RDKafkaLogLevel::Info);
    config
}

fn producer_with(config: &ClientConfig, partitioner: Option<ByLength>) -> Producer {
    let client = ProducerClient::new(config, Reached::default(), partitioner);
    Arc::new(client.expect("the settings are valid"))
}

fn cluster(partitions: i32) -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(1).expect("the mock cluster starts");
    let created = cluster.create_topic(TOPIC, partitions, 1);
    created.expect("the topic is created");
    cluster
}

fn to_produce(key: &str) -> ToProduce<'_> {
    let mut headers = Headers::new();
    headers.push("name", Some(b"value"));
    ToProduce {
        partition: None,
        key: Some(key.as_bytes()),
        value: Some(b"value"),
        headers: native_headers(&headers).expect("headers"),
        timestamp_ms: None,
    }
}

/// Polls until `wanted` reports were taken, and passes each to `see`.
fn take_reports(producer: &Producer, wanted: usize, mut see: impl FnMut(Message<'_>, usize)) {
    let deadline = Instant::now() + LONG;
    let mut taken = 0;
    while taken < wanted {
        assert!(Instant::now() < deadline, "{taken} of {wanted}");
        let Some(mut reports) = producer.poll(SHORT) else {
            continue;
        };
        let announced = reports.len();
        let before = taken;
        while let Some((message, carried)) = reports.next_report() {
            see(message, *carried);
            taken += 1;
        }
        assert_eq!(taken - before, announced);
    }
}

/// The values that are held by nobody else.
fn returned(carried: &[Arc<usize>]) -> usize {
    let held_here = carried.iter().filter(|value| Arc::strong_count(value) == 1);
    held_here.count()
}

#[test]
fn each_record_is_reported_once_with_what_it_carried() {
    let cluster = cluster(1);
    let producer = producer(&cluster.bootstrap_servers(), None);
    let topic = producer.topic(TOPIC).expect("a topic");
    let carried: Vec<_> = (0..300_usize).map(Arc::new).collect();
    for number in &carried {
        let record = to_produce("k");
        topic.produce(record, Arc::clone(number)).expect("accepted");
    }
    assert_eq!(returned(&carried), 0);
    let mut expected = 0..300;
    take_reports(&producer, 300, |message, number| {
        assert_eq!(message.error(), None);
        assert_eq!(Some(number), expected.next());
        assert_eq!((message.partition(), message.offset()), (0, number as i64));
        assert_eq!(message.key(), Some(&b"k"[..]));
        let headers = message.take_headers();
        let header = headers.iter().next();
        assert_eq!(header, Some((&b"name"[..], Some(&b"value"[..]))));
    });
    assert_eq!(returned(&carried), 300);
}

#[test]
fn a_record_that_is_not_accepted_gives_back_what_it_carried() {
    let cluster = cluster(1);
    let producer = producer(&cluster.bootstrap_servers(), None);
    let topic = producer.topic(TOPIC).expect("a topic");
    let accepted = topic.produce(to_produce("k"), Arc::new(0));
    accepted.expect("accepted");
    // The partitions are known afterwards.
    take_reports(&producer, 1, |message, _| {
        assert_eq!(message.error(), None);
    });
    let carried = [Arc::new(1)];
    let mut nowhere = to_produce("k");
    nowhere.partition = Some(7);
    let refused = topic.produce(nowhere, Arc::clone(&carried[0]));
    assert_eq!(refused, Err(RDKafkaErrorCode::UnknownPartition));
    assert_eq!(returned(&carried), 1);
}

#[test]
fn purged_records_are_reported_and_reports_that_nobody_takes_are_freed() {
    // Nothing listens on port 1.
    let producer = producer("127.0.0.1:1", None);
    let topic = producer.topic(TOPIC).expect("a topic");
    let carried: Vec<_> = (0..5_usize).map(Arc::new).collect();
    for number in &carried[..4] {
        let accepted = topic.produce(to_produce("k"), Arc::clone(number));
        accepted.expect("accepted");
    }
    producer.purge().expect("purged");
    take_reports(&producer, 4, |message, _| {
        assert_eq!(message.error(), Some(RDKafkaErrorCode::PurgeQueue));
    });
    assert_eq!(returned(&carried[..4]), 4);

    let accepted = topic.produce(to_produce("k"), Arc::clone(&carried[4]));
    accepted.expect("accepted");
    producer.purge_and_wait().expect("purged");
    let deadline = Instant::now() + LONG;
    while returned(&carried) < 5 {
        assert!(Instant::now() < deadline, "the report does not come");
        drop(producer.poll(SHORT));
    }
}

#[test]
fn a_partitioner_decides_on_records_with_a_key() {
    let cluster = cluster(3);
    let producer = producer(&cluster.bootstrap_servers(), Some(ByLength));
    let topic = producer.topic(TOPIC).expect("a topic");
    for (number, key) in ["", "1", "22"].into_iter().enumerate() {
        let accepted = topic.produce(to_produce(key), Arc::new(number));
        accepted.expect("accepted");
    }
    take_reports(&producer, 3, |message, number| {
        assert_eq!(message.error(), None);
        assert_eq!(message.partition(), number as i32);
    });
}

#[test]
fn log_lines_errors_and_statistics_reach_the_context() {
    // Nothing listens on port 1.
    let producer = producer("127.0.0.1:1", None);
    let reached = producer.client().context();
    let deadline = Instant::now() + LONG;
    loop {
        assert!(producer.poll(SHORT).is_none(), "nothing was produced");
        let (lines, statistics) = (&reached.lines, &reached.statistics);
        let errors = reached.errors.lock().expect("no panic");
        let counts = [
            lines.load(Ordering::SeqCst),
            statistics.load(Ordering::SeqCst),
            errors.len(),
        ];
        if counts.iter().all(|count| *count > 0) {
            break;
        }
        assert!(Instant::now() < deadline, "{counts:?}");
    }
    let errors = reached.errors.lock().expect("no panic");
    let is_of_connection = |error: &KafkaError| {
        let code = error.rdkafka_error_code();
        matches!(
            code,
            Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown)
        )
    };
    assert!(errors.iter().all(is_of_connection), "{errors:?}");
}

#[test]
fn a_permanent_failure_reaches_the_context_as_one() {
    let mut config = config("127.0.0.1:1");
    // No other producer fails permanently.
    config.set("enable.idempotence", "true");
    let producer = producer_with(&config, None);
    let topic = producer.topic(TOPIC).expect("a topic");
    let cause = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    // SAFETY: the client is alive, and the reason is copied.
    let failed = unsafe {
        let client = producer.client().native_ptr();
        sys::rd_kafka_test_fatal_error(client, cause, c"a test".as_ptr())
    };
    assert_eq!(failed, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR);
    let refused = topic.produce(to_produce("k"), Arc::new(0));
    assert_eq!(refused, Err(RDKafkaErrorCode::Fatal));
    let has_failed = || {
        let errors = producer.client().context().errors.lock();
        let errors = errors.expect("no panic");
        let codes: Vec<_> = errors.iter().map(KafkaError::rdkafka_error_code).collect();
        codes.contains(&Some(RDKafkaErrorCode::Fatal))
    };
    let deadline = Instant::now() + LONG;
    while !has_failed() {
        assert!(Instant::now() < deadline, "the error does not come");
        assert!(producer.poll(SHORT).is_none(), "nothing was produced");
    }
}

#[test]
fn a_topic_name_that_is_no_c_string_is_refused() {
    let producer = producer("127.0.0.1:1", None);
    for name in ["with\0nul", &"x".repeat(513)] {
        assert!(producer.topic(name).is_err(), "{name:?}");
    }
}
