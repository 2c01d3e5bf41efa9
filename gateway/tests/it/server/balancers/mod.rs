//! A balancer before two gateways: while one gateway is killed and the other drained, no accepted
//! order is lost or accepted twice, and a stream continues.
//!
//! Needs `haproxy`, `nginx` and `envoy` on the PATH. The test of a missing one is skipped, or fails
//! with `EVENKEEL_REQUIRE_BALANCERS=1`. The configurations are the examples in `deploy/balancers`.
//!
//! - `processes`: the balancer and the gateways
//! - `services`: two of each of the shop's services
//! - `traffic`: callers and a stream

mod processes;
mod services;
mod traffic;

use evenkeel::event::decode;
use evenkeel::testing::{
    KafkaKind, StartError, TestKafka, eventually, read_topic, required, unique,
};
use evenkeel_gateway::client::Client;
use processes::{Balancer, ENVOY, GATEWAYS, HAPROXY, NGINX, Place, Ports, WITHIN};
use services::Services;
use std::collections::BTreeMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::timeout;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use traffic::{AcceptedOrder, EventIds, Load, PLACED, Watch};

const TOPIC: &str = "shop.orders";
/// Where the inventory tells what it reserved or rejected.
const STOCK_TOPIC: &str = "shop.stock";

/// One Kafka for all tests of this file. It is never dropped; its server ends with this process.
static KAFKA: OnceCell<Option<TestKafka>> = OnceCell::const_new();

/// The tests run one after the other: they read the same topic, and each is a load of its own.
static TURN: Mutex<()> = Mutex::const_new(());

/// A Kafka with the shop's topics. None where there is none.
async fn shop_kafka() -> Option<&'static TestKafka> {
    let kafka = KAFKA.get_or_init(|| async {
        let kafka = required(TestKafka::start(KafkaKind::Auto).await)?;
        for topic in shop_schemas::topics() {
            match kafka.create_topic(&topic.name, 4).await {
                // A Kafka that the environment names may have them.
                Ok(()) | Err(StartError::TopicExists { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        Some(kafka)
    });
    kafka.await.as_ref()
}

/// Whether gRPC's health service says that a gateway serves.
async fn serves_grpc(port: u16) -> Option<()> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"));
    let channel = endpoint.expect("a URL").connect().await.ok()?;
    let request = HealthCheckRequest {
        service: String::new(),
    };
    let answer = HealthClient::new(channel).check(request).await.ok()?;
    (answer.into_inner().status == ServingStatus::Serving as i32).then_some(())
}

/// The beginning of the answer to a WebSocket's handshake.
async fn upgrade(port: u16) -> String {
    let socket = TcpStream::connect(("127.0.0.1", port)).await;
    let mut socket = socket.expect("the balancer accepts connections");
    let request = format!(
        "GET /ws?type={PLACED} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: Upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let sent = socket.write_all(request.as_bytes()).await;
    sent.expect("the connection is open");
    let mut status = [0; 12];
    let read = timeout(WITHIN, socket.read_exact(&mut status)).await;
    read.expect("an answer in time").expect("an answer");
    String::from_utf8_lossy(&status).into_owned()
}

/// An event on the log.
struct OnLog {
    id: String,
    timestamp_ms: Option<i64>,
}

/// The events of the orders whose ids begin with `prefix`, by order, in their order on a topic.
async fn on_log(kafka: &TestKafka, topic: &str, prefix: &str) -> BTreeMap<String, Vec<OnLog>> {
    let mut found: BTreeMap<String, Vec<OnLog>> = BTreeMap::new();
    for record in read_topic(&kafka.config(), topic, WITHIN).await {
        let key = record.key.as_deref().unwrap_or_default();
        let key = String::from_utf8_lossy(key).into_owned();
        if key.starts_with(prefix) {
            let event = decode(record.headers.iter(), record.value.as_deref());
            found.entry(key).or_default().push(OnLog {
                id: event.expect("an event").attributes.id,
                timestamp_ms: record.timestamp_ms,
            });
        }
    }
    found
}

/// Asserts that exactly the accepted events are on the log, in the order of their acceptance, each
/// once.
///
/// The outbox publishes at least once: what a killed gateway has published and not yet deleted from
/// the outbox is published again, with the same id. So only an event from before the kill may be
/// repeated.
fn check(accepted: &[AcceptedOrder], log: &BTreeMap<String, Vec<OnLog>>, killed_at_ms: i64) {
    assert_eq!(
        log.len(),
        accepted.len(),
        "orders on the log, and accepted ones"
    );
    for order in accepted {
        let records = log.get(&order.order_id).map(Vec::as_slice);
        let mut first: Vec<&OnLog> = Vec::new();
        for record in records.unwrap_or_default() {
            let known = first.iter().find(|known| known.id == record.id).copied();
            let Some(known) = known else {
                first.push(record);
                continue;
            };
            let written_ms = known.timestamp_ms.expect("a timestamp");
            let again_ms = record.timestamp_ms.expect("a timestamp");
            assert!(
                written_ms <= killed_at_ms,
                "{} was written {} ms after the kill, and again {} ms later",
                record.id,
                written_ms - killed_at_ms,
                again_ms - written_ms
            );
        }
        let ids: Vec<&str> = first.iter().map(|record| record.id.as_str()).collect();
        assert_eq!(ids, order.events, "{}", order.order_id);
    }
}

fn event_ids(log: BTreeMap<String, Vec<OnLog>>) -> EventIds {
    let mut ids = EventIds::new();
    for (order_id, records) in log {
        ids.insert(
            order_id,
            records.into_iter().map(|record| record.id).collect(),
        );
    }
    ids
}

/// Asserts that each order has one effect in the inventory, which has no stock and rejects it, and
/// that orders are read through the balancer.
async fn check_effects(kafka: &TestKafka, prefix: &str, url: &str, accepted: &[AcceptedOrder]) {
    eventually("every order has its effect", WITHIN, || async {
        let effects = on_log(kafka, STOCK_TOPIC, prefix).await;
        (effects.len() >= accepted.len()).then_some(())
    })
    .await;
    let effects = on_log(kafka, STOCK_TOPIC, prefix).await;
    assert_eq!(effects.len(), accepted.len(), "orders with an effect");
    for (order_id, records) in &effects {
        assert_eq!(records.len(), 1, "effects of {order_id}");
    }
    for order in accepted.iter().take(10) {
        let read = format!("{url}/orders/{}?wait=10s", order.order_id);
        let answer = reqwest::get(read).await.expect("an answer");
        assert_eq!(answer.status(), 200, "{}", order.order_id);
    }
}

async fn nothing_is_lost_behind(balancer: Balancer) {
    if !balancer.is_installed() {
        return;
    }
    let _turn = TURN.lock().await;
    let Some(kafka) = shop_kafka().await else {
        return;
    };
    let place = Place::new(kafka.brokers());
    let (mut a, mut b) = (place.gateway(0).await, place.gateway(1).await);
    let services = Services::start(&place);
    let process = place.balancer(&balancer).await;
    let (http, grpc) = (place.ports.http, place.ports.grpc);
    eventually("gRPC is balanced", WITHIN, || serves_grpc(grpc)).await;
    assert_eq!(upgrade(http).await, "HTTP/1.1 101");

    let prefix = unique(balancer.program);
    let client = Client::new([place.url()]);
    let watch = Watch::start(&client, &prefix).await;
    let load = Load::start(&client, &prefix);
    for gateway in GATEWAYS {
        load.answered_by(gateway, 200).await;
    }
    a.kill().await;
    let killed_at_ms = jiff::Timestamp::now().as_millisecond();
    load.answered_by(GATEWAYS[1], 600).await;
    a = place.gateway(0).await;
    load.answered_by(GATEWAYS[0], 200).await;

    b.signal("TERM");
    b.finished(WITHIN).await.code(0);
    load.answered_by(GATEWAYS[0], 600).await;
    b = place.gateway(1).await;
    load.answered_by(GATEWAYS[1], 200).await;

    let accepted = load.end().await;
    place.outbox_is_empty().await;
    let log = on_log(kafka, TOPIC, &prefix).await;
    check(&accepted, &log, killed_at_ms);
    if let Some(services) = services {
        check_effects(kafka, &prefix, &place.url(), &accepted).await;
        services.stop().await;
    }
    let expected = event_ids(log);
    watch.has_as_many_as(&expected).await;
    for gateway in [&a, &b] {
        gateway.signal("TERM");
    }
    for gateway in [a, b] {
        gateway.finished(WITHIN).await.code(0);
    }
    process.signal("TERM");
    process.finished(WITHIN).await;
    assert_eq!(
        watch.end(),
        expected,
        "the stream has the log's events, each once, in order"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_behind_haproxy() {
    Box::pin(nothing_is_lost_behind(HAPROXY)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_behind_nginx() {
    Box::pin(nothing_is_lost_behind(NGINX)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_behind_envoy() {
    Box::pin(nothing_is_lost_behind(ENVOY)).await;
}

#[test]
fn the_examples_have_known_placeholders_only() {
    let ports = Ports {
        http: 8000,
        grpc: 8001,
        public: [8080, 8081],
        admin: [9100, 9101],
        orderboard: [8090, 8091],
    };
    for balancer in [HAPROXY, NGINX, ENVOY] {
        let text = balancer.configuration(&ports);
        let is_placeholder = |rest: &&str| rest.starts_with(|c: char| c.is_ascii_uppercase());
        let unknown: Vec<&str> = text.split('@').skip(1).filter(is_placeholder).collect();
        assert!(unknown.is_empty(), "{}: {unknown:?}", balancer.example);
        let lines = text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'));
        let settings: Vec<&str> = lines.collect();
        for port in ["8000", "8001", "8080", "8081"] {
            let is_used = settings.iter().any(|line| line.contains(port));
            assert!(is_used, "{}: {port}", balancer.example);
        }
    }
}
