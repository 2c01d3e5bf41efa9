//! A stream resumes without a gap, on any instance.
//!
//! On the mock cluster, over sockets; `restart` on a real Kafka. `client` reads server-sent events
//! and WebSocket messages.

mod client;
mod restart;

use axum::Extension;
use client::{Connection, OTHER_TYPE, TYPE, WITHIN, websocket_message};
use evenkeel::event::{Attributes, ContentMode, Headers, JsonEvent, OutgoingRecord, encode_json};
use evenkeel::kafka::KafkaConfig;
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::schema::Catalogue;
use evenkeel::testing::{KafkaKind, TestKafka, eventually, unique};
use evenkeel_gateway::access::{AllowList, EventRoute, Principal, Rights};
use evenkeel_gateway::stream::{Cursor, StreamSettings, Streams, TopicPosition, router};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

const PARTITIONS: i32 = 4;

/// A mock cluster with one topic, and a publisher.
struct Cluster {
    kafka: TestKafka,
    topic: String,
    publisher: Publisher,
}

impl Cluster {
    async fn start() -> Self {
        let kafka = TestKafka::start(KafkaKind::Mock)
            .await
            .expect("the mock needs nothing");
        let topic = unique("counted");
        kafka
            .create_topic(&topic, PARTITIONS)
            .await
            .expect("the topic is new");
        let publisher = Publisher::new(&kafka.config(), PublisherSettings::new("/test"));
        let publisher = publisher.expect("a publisher");
        Self {
            kafka,
            topic,
            publisher,
        }
    }

    /// Publishes one event, and waits for the brokers.
    async fn publish(&self, ty: &str, key: &str, number: usize, padding: usize) {
        self.publisher
            .publish_record(counted(&self.topic, ty, key, number, padding))
            .await
            .expect("the mock accepts it");
    }

    /// Publishes a record that is no event.
    async fn publish_raw(&self, key: &str) {
        let record = OutgoingRecord {
            topic: self.topic.clone(),
            partition: None,
            key: Some(key.to_owned().into()),
            value: Some("not an event".into()),
            headers: Headers::new(),
            timestamp_ms: None,
        };
        self.publisher
            .publish_record(record)
            .await
            .expect("the mock accepts it");
    }

    /// A gateway's streams, served on a free port.
    async fn gateway(&self, settings: StreamSettings) -> Instance {
        serve(self.kafka.config(), &self.topic, settings).await
    }
}

/// The record of an event with this key and number.
fn counted(topic: &str, ty: &str, key: &str, number: usize, padding: usize) -> OutgoingRecord {
    let padding = " ".repeat(padding);
    let data = format!(r#"{{"key":"{key}","number":{number},"padding":"{padding}"}}"#);
    let mut attributes = Attributes::new(format!("{key}/{number}"), "/test", ty);
    attributes.datacontenttype = Some("application/json".to_owned());
    let data = RawValue::from_string(data).expect("JSON");
    let event = JsonEvent::new(attributes, topic, data).with_key(key.to_owned());
    encode_json(&event, ContentMode::Binary, None).expect("a valid event")
}

/// The streams of this topic, served on a free port.
async fn serve(kafka: KafkaConfig, topic: &str, settings: StreamSettings) -> Instance {
    let schemas = [(TYPE, "{}"), (OTHER_TYPE, "{}")];
    let catalogue = Catalogue::from_texts(schemas).expect("valid schemas");
    let route = |ty: &str| EventRoute::new(ty, topic, "key").with_stream(true);
    let routes = vec![route(TYPE), route(OTHER_TYPE)];
    let allow_list = AllowList::new(routes, Arc::new(catalogue)).expect("a valid list");
    let streams = Streams::new(kafka, Arc::new(allow_list), settings);
    let caller = Principal::new("test", Rights::all());
    let app = router(streams.clone()).layer(Extension(caller));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    Instance { streams, address }
}

struct Instance {
    streams: Streams,
    address: SocketAddr,
}

fn target(parameters: &str) -> String {
    format!("/events?type={TYPE}{parameters}")
}

/// The numbers 0 to `count` for each of the keys k-0, k-1 and so on.
fn all(keys: usize, count: usize) -> BTreeMap<String, Vec<usize>> {
    (0..keys)
        .map(|key| (format!("k-{key}"), (0..count).collect()))
        .collect()
}

/// A small ring, so that most reconnects have to catch up.
fn small() -> StreamSettings {
    StreamSettings::default().with_ring_events_max(20)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_cut_fifty_times_sees_each_event_once() {
    const KEYS: usize = 8;
    const EACH: usize = 100;
    let cluster = Arc::new(Cluster::start().await);
    let gateways = [
        cluster.gateway(small()).await,
        cluster.gateway(small()).await,
    ];
    let publishing = tokio::spawn({
        let cluster = Arc::clone(&cluster);
        async move {
            for number in 0..EACH {
                for key in 0..KEYS {
                    cluster.publish(TYPE, &format!("k-{key}"), number, 0).await;
                }
                cluster.publish_raw("k-0").await;
            }
        }
    });
    let mut last_id: Option<String> = None;
    let mut seen: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut total = 0;
    let mut cuts = 0;
    while total < KEYS * EACH || cuts < 50 {
        let headers = last_id.as_deref().map(|id| ("Last-Event-ID", id));
        let address = gateways[cuts % gateways.len()].address;
        let headers: Vec<_> = headers.into_iter().collect();
        let mut client = Connection::get(address, &target("&from=earliest"), &headers).await;
        assert_eq!(client.status, 200, "{}", client.head);
        // The heartbeat at the beginning is always there.
        let frames = match cuts < 50 {
            true => 1 + rand::random::<u8>() % 24,
            false => u8::MAX,
        };
        for _ in 0..frames {
            if total == KEYS * EACH && cuts >= 50 {
                break;
            }
            let event = client.next().await.expect("the stream is open");
            if let Some((key, number)) = event.counted() {
                seen.entry(key).or_default().push(number);
                total += 1;
            }
            assert!(
                ["heartbeat", TYPE].contains(&event.name.as_str()),
                "{event:?}"
            );
            last_id = Some(event.id);
            if total == KEYS * EACH {
                break;
            }
        }
        cuts += 1;
    }
    publishing.await.expect("everything was published");
    assert_eq!(seen, all(KEYS, EACH));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_beginning_and_new_events_come_in_one_stream() {
    let cluster = Cluster::start().await;
    for number in 0..50 {
        cluster.publish(TYPE, "k-0", number, 0).await;
    }
    let gateway = cluster.gateway(small()).await;
    let mut client = Connection::get(gateway.address, &target("&from=earliest"), &[]).await;
    for (header, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store, no-transform"),
        ("x-accel-buffering", "no"),
    ] {
        assert!(
            client.head.contains(&format!("{header}: {value}")),
            "{}",
            client.head
        );
    }
    assert!(!client.head.contains("access-control"), "{}", client.head);
    let heartbeat = client.next().await.expect("a heartbeat");
    assert_eq!((&*heartbeat.name, &*heartbeat.data), ("heartbeat", "{}"));
    let first = client.numbers(50).await;
    assert_eq!(first, all(1, 50));
    for number in 50..60 {
        cluster.publish(TYPE, "k-0", number, 0).await;
    }
    let then = client.numbers(10).await;
    assert_eq!(then["k-0"], (50..60).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_has_its_types_and_key_only_and_moves_the_cursor() {
    let cluster = Cluster::start().await;
    let gateway = cluster.gateway(StreamSettings::default()).await;
    let heartbeats = StreamSettings::default().with_heartbeat(Duration::from_millis(200));
    let beating = cluster.gateway(heartbeats).await;
    let mut of_key = Connection::get(gateway.address, &target("&key=k-1"), &[]).await;
    let both = format!("/events?type={TYPE}&type={OTHER_TYPE}");
    let mut of_types = Connection::get(gateway.address, &both, &[]).await;
    let other = format!("/events?type={OTHER_TYPE}&key=none");
    let mut of_none = Connection::get(beating.address, &other, &[]).await;
    let first = of_none.next().await.expect("a heartbeat");
    for number in 0..5 {
        for key in ["k-0", "k-1"] {
            cluster.publish(TYPE, key, number, 0).await;
            cluster.publish(OTHER_TYPE, key, 100 + number, 0).await;
            cluster.publish_raw(key).await;
        }
    }
    let expected = BTreeMap::from([("k-1".to_owned(), (0..5).collect::<Vec<_>>())]);
    assert_eq!(of_key.numbers(5).await, expected);
    let numbers = of_types.numbers(20).await;
    let both: Vec<usize> = (0..5).flat_map(|number| [number, 100 + number]).collect();
    assert_eq!((&numbers["k-0"], &numbers["k-1"]), (&both, &both));
    let read = |id: &str| {
        let cursor: Cursor = id.parse().expect("a cursor");
        cursor.topics()[0].next.iter().sum::<i64>()
    };
    // 2 keys, 5 numbers, 3 records of each.
    loop {
        let heartbeat = of_none.next().await.expect("a heartbeat");
        assert_eq!(heartbeat.name, "heartbeat");
        if read(&heartbeat.id) == read(&first.id) + 30 {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_is_cut_and_others_get_all() {
    const EVENTS: usize = 160;
    const PADDING: usize = 48 << 10;
    let cluster = Cluster::start().await;
    let settings = small().with_slow_client_timeout(Duration::from_secs(2));
    let gateway = cluster.gateway(settings).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    // The kernel must not take everything for the client.
    socket
        .set_recv_buffer_size(4 << 10)
        .expect("a small buffer");
    let socket = socket
        .connect(gateway.address)
        .await
        .expect("the gateway listens");
    let slow = Connection::get_on(socket, &target(""), "HTTP/1.0", &[]).await;
    let mut quick = Connection::get(gateway.address, &target(""), &[]).await;
    assert_eq!(gateway.streams.clients(), 2);
    let reading = tokio::spawn(async move { (quick.numbers(EVENTS).await, quick) });
    for number in 0..EVENTS {
        // Keys of several partitions: the mock keeps a few MiB of each.
        cluster
            .publish(TYPE, &format!("k-{}", number % 16), number / 16, PADDING)
            .await;
    }
    let (numbers, quick) = timeout(WITHIN, reading)
        .await
        .expect("in time")
        .expect("all events");
    for (key, numbers) in numbers {
        assert!(numbers.is_sorted() && numbers[0] == 0, "{key}: {numbers:?}");
    }
    let cut = || async { (gateway.streams.clients() == 1).then_some(()) };
    eventually("only the quick client is left", WITHIN, cut).await;
    drop((slow, quick));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_gateway_sends_its_clients_away() {
    let cluster = Cluster::start().await;
    let (first, second) = (
        cluster.gateway(small()).await,
        cluster.gateway(small()).await,
    );
    cluster.publish(TYPE, "k-0", 0, 0).await;
    let mut client = Connection::get(first.address, &target("&from=earliest"), &[]).await;
    assert_eq!(client.numbers(1).await, all(1, 1));
    first.streams.drain();
    let reconnect = client.next().await.expect("a last frame");
    assert_eq!(reconnect.name, "reconnect");
    assert!(client.next().await.is_none(), "the answer ends");
    let refused = Connection::get(first.address, &target(""), &[]).await;
    assert_eq!(refused.status, 503);
    assert!(refused.head.contains("retry-after: 1"), "{}", refused.head);

    cluster.publish(TYPE, "k-0", 1, 0).await;
    let id = [("Last-Event-ID", &*reconnect.id)];
    let mut client = Connection::get(second.address, &target(""), &id).await;
    assert_eq!(client.numbers(1).await["k-0"], [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_is_not_on_the_log_is_gone() {
    let cluster = Cluster::start().await;
    cluster.publish(TYPE, "k-0", 0, 0).await;
    let gateway = cluster.gateway(small()).await;
    let place = |offset| TopicPosition::new(&*cluster.topic, None, [offset, 0, 0, 0]);
    let beyond = Cursor::new([place(9_999)])
        .expect("a valid cursor")
        .to_string();
    let gone = Connection::get(gateway.address, &target(&format!("&from={beyond}")), &[]).await;
    assert_eq!(gone.status, 410, "{}", gone.head);
    let problem: Value = serde_json::from_str(&gone.rest().await).expect("a problem");
    let earliest = problem["earliest"].as_str().expect("a cursor").to_owned();
    let from = target(&format!("&from={earliest}"));
    let mut client = Connection::get(gateway.address, &from, &[]).await;
    assert_eq!(client.numbers(1).await, all(1, 1));
    for (parameters, status) in [
        ("&from=damaged", 400),
        ("&unknown=1", 400),
        ("&key=1&key=2", 400),
        ("&type=test.unknown.v1", 404),
    ] {
        let refused = Connection::get(gateway.address, &target(parameters), &[]).await;
        assert_eq!(refused.status, status, "{parameters}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_clients_are_refused_until_one_leaves() {
    let cluster = Cluster::start().await;
    let gateway = cluster.gateway(small().with_clients_max(1)).await;
    let first = Connection::get(gateway.address, &target(""), &[]).await;
    assert_eq!(first.status, 200);
    let refused = Connection::get(gateway.address, &target(""), &[]).await;
    assert_eq!(refused.status, 503);
    drop(first);
    let opens = || async {
        let client = Connection::get(gateway.address, &target(""), &[]).await;
        (client.status == 200).then_some(())
    };
    eventually("the place is free again", WITHIN, opens).await;
}

async fn websocket(gateway: &Instance, target: &str, origin: &str) -> Connection {
    let host = gateway.address.to_string();
    let headers = [
        ("Host", &*host),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Origin", origin),
    ];
    let socket = TcpStream::connect(gateway.address)
        .await
        .expect("the gateway listens");
    Connection::get_on(socket, target, "HTTP/1.1", &headers).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_has_the_same_stream_for_allowed_pages() {
    let cluster = Cluster::start().await;
    let settings = small().with_allowed_origins(["https://app.example"]);
    let gateway = cluster.gateway(settings).await;
    cluster.publish(TYPE, "k-0", 0, 0).await;
    let target = format!("/ws?type={TYPE}&from=earliest");
    let own = format!("http://{}", gateway.address);
    for (origin, status) in [
        ("https://evil.example", 403),
        ("null", 403),
        ("https://app.example", 101),
        (&*own, 101),
    ] {
        let mut client = websocket(&gateway, &target, origin).await;
        assert_eq!(client.status, status, "{origin}");
        if status != 101 {
            continue;
        }
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let (opcode, payload) = websocket_message(&mut client).await;
            assert_eq!(opcode, 1, "a text message");
            let message: Value = serde_json::from_slice(&payload).expect("JSON");
            assert!(
                message["id"]
                    .as_str()
                    .is_some_and(|id| id.parse::<Cursor>().is_ok())
            );
            kinds.push(message["kind"].as_str().expect("a kind").to_owned());
            if message["kind"] == "event" {
                assert_eq!(message["type"], TYPE);
                assert_eq!(message["data"]["data"]["number"], 0);
            }
        }
        assert_eq!(kinds, ["heartbeat", "event"]);
        // A masked text message of the client: it may send none.
        let text = [0x81, 0x81, 0, 0, 0, 0, b'x'];
        client
            .socket
            .write_all(&text)
            .await
            .expect("the gateway reads");
        let (opcode, payload) = websocket_message(&mut client).await;
        assert_eq!((opcode, &payload[..2]), (8, &1003_u16.to_be_bytes()[..]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowed_page_may_read_server_sent_events() {
    let cluster = Cluster::start().await;
    let gateway = cluster
        .gateway(small().with_allowed_origins(["https://app.example"]))
        .await;
    for (origin, is_allowed) in [
        ("https://app.example", true),
        ("https://evil.example", false),
    ] {
        let headers = [("Host", "gateway.example"), ("Origin", origin)];
        let client = Connection::get(gateway.address, &target(""), &headers).await;
        let header = format!("access-control-allow-origin: {origin}");
        assert_eq!(client.head.contains(&header), is_allowed, "{}", client.head);
        assert_eq!(
            client.head.contains("vary: origin"),
            is_allowed,
            "{}",
            client.head
        );
    }
}
