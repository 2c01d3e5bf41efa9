//! gRPC: a client of `schemas/proto` against the gateway's router, over HTTP/2 where the transport
//! matters. What needs brokers runs on a real Kafka.

use crate::support::{TestGateway, mock_kafka};
use axum::Router;
use evenkeel::kafka::KafkaConfig;
use evenkeel::outbox::Relay;
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::schema::Catalogue;
use evenkeel::testing::{eventually, real_kafka, unique};
use evenkeel_gateway::access::{AllowList, Authenticator, EventRoute, Principal, Rights};
use evenkeel_gateway::admission::{Admission, AdmissionSettings};
use evenkeel_gateway::grpc::proto::gateway::events_client::EventsClient;
use evenkeel_gateway::grpc::proto::gateway::frame::Content;
use evenkeel_gateway::grpc::proto::gateway::watch_request::Start;
use evenkeel_gateway::grpc::proto::gateway::{
    EventState, EventStatus, Frame, GetStatusRequest, NewEvent, PostRequest, StreamedEvent,
    WatchRequest,
};
use evenkeel_gateway::grpc::proto::shop::orders_client::OrdersClient;
use evenkeel_gateway::grpc::proto::shop::{CancelRequest, OrderLine, PlaceRequest};
use evenkeel_gateway::grpc::{Grpc, HealthHandle};
use evenkeel_gateway::post::{PostLimits, Posting};
use evenkeel_gateway::server::{Parts, RouterSettings, router};
use evenkeel_gateway::status::{StatusReader, StatusSettings};
use evenkeel_gateway::store::{AcceptStore, SqliteStore};
use evenkeel_gateway::stream::{StreamSettings, Streams};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const TYPE: &str = "test.step.v1";
const SCHEMA: &str = r#"{
    "type": "object",
    "required": ["key", "number"],
    "properties": {"key": {"type": "string"}, "number": {"type": "integer"}}
}"#;
const WITHIN: Duration = Duration::from_secs(60);

/// The router of a gateway with a store of its own.
struct World {
    router: Router,
    health: HealthHandle,
    streams: Streams,
    store: Arc<SqliteStore>,
    _directory: TempDir,
    /// Stops the relay.
    _relay: Option<DropGuard>,
}

impl World {
    /// On the shared Apache Kafka, with a relay; none where there is none.
    async fn on_kafka() -> Option<Self> {
        let cluster = real_kafka().await?;
        let topic = unique("gateway-grpc");
        cluster
            .create_topic(&topic, 3)
            .await
            .expect("the topic is created");
        let kafka = cluster.config();
        let mut world = Self::new(kafka.clone(), &topic, Rights::all()).await;
        let settings = PublisherSettings::new("/gateway");
        let publisher = Publisher::new(&kafka, settings).expect("valid settings");
        let stop = CancellationToken::new();
        let relay = Relay::new(world.store.outbox(), publisher);
        tokio::spawn(Box::pin(relay.run(stop.clone())));
        world._relay = Some(stop.drop_guard());
        Some(world)
    }

    /// Without brokers: events wait in the outbox.
    async fn without_brokers(rights: Rights) -> Self {
        Self::new(KafkaConfig::new("127.0.0.1:1"), "steps", rights).await
    }

    async fn new(kafka: KafkaConfig, topic: &str, rights: Rights) -> Self {
        let directory = TempDir::new().expect("a directory");
        let store = SqliteStore::open(&directory.path().join("gateway.db")).await;
        let store = Arc::new(store.expect("the store opens"));
        let accept: Arc<dyn AcceptStore> = store.clone();
        let catalogue = Catalogue::from_texts([(TYPE, SCHEMA)]).expect("a schema");
        let route = EventRoute::new(TYPE, topic, "key")
            .with_post(true)
            .with_stream(true);
        let allow_list = AllowList::new(vec![route], Arc::new(catalogue)).expect("an allow list");
        let allow_list = Arc::new(allow_list);
        let limits = PostLimits::default();
        let posting = Posting::new(Arc::clone(&allow_list), Arc::clone(&accept), limits);
        let settings = StreamSettings::default().with_heartbeat(Duration::from_secs(1));
        let streams = Streams::new(kafka.clone(), Arc::clone(&allow_list), settings);
        let settings = StatusSettings::default();
        let status = StatusReader::new(kafka, allow_list, Arc::clone(&accept), settings);
        let admission = Admission::new(AdmissionSettings::outbox(), move || accept.backlog());
        let authenticator = Authenticator::open(Principal::new("web", rights));
        let worker: Arc<str> = "gateway-1".into();
        let grpc = Grpc::new(
            posting.clone(),
            admission.clone(),
            status.clone(),
            streams.clone(),
            authenticator.clone(),
            Arc::clone(&worker),
        );
        let (services, health) = grpc.routes().await;
        let parts = Parts::new(
            posting,
            streams.clone(),
            status,
            admission,
            authenticator,
            worker,
        );
        Self {
            router: router(parts.with_grpc(services), RouterSettings::default()),
            health,
            streams,
            store,
            _directory: directory,
            _relay: None,
        }
    }

    /// A client without a connection.
    fn local(&self) -> EventsClient<Router> {
        EventsClient::new(self.router.clone())
    }

    /// A connection over HTTP/2.
    async fn connect(&self) -> Channel {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = self.router.clone();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URL");
        endpoint
            .connect()
            .await
            .expect("the gateway accepts connections")
    }
}

/// A request with one event.
fn step(data: &str) -> PostRequest {
    let event = NewEvent {
        r#type: TYPE.to_owned(),
        data: data.to_owned().into(),
        ..NewEvent::default()
    };
    PostRequest {
        events: vec![event],
    }
}

/// The steps with these numbers, of one key.
fn steps(numbers: &[u64]) -> PostRequest {
    let events = numbers.iter().flat_map(|number| {
        let data = format!(r#"{{"key": "k-1", "number": {number}}}"#);
        step(&data).events
    });
    PostRequest {
        events: events.collect(),
    }
}

fn watch(start: Option<Start>) -> WatchRequest {
    WatchRequest {
        types: vec![TYPE.to_owned()],
        key: None,
        start,
    }
}

/// The problem in the metadata of a status.
fn problem(status: &Status) -> Value {
    let json = status
        .metadata()
        .get_bin("problem-bin")
        .expect("the problem is sent");
    let json = json.to_bytes().expect("it is base64");
    serde_json::from_slice(&json).expect("it is JSON")
}

/// The request with a key by which a repetition is recognised.
fn with_key<T>(message: T, key: &str) -> Request<T> {
    let mut request = Request::new(message);
    let key = key.parse().expect("a metadata value");
    request.metadata_mut().insert("idempotency-key", key);
    request
}

/// The next event of a stream, and the cursor after it.
async fn next_event(frames: &mut Streaming<Frame>) -> (StreamedEvent, String) {
    let next = async {
        loop {
            let frame = frames.message().await.expect("no error").expect("no end");
            if let Some(Content::Event(event)) = frame.content {
                return (event, frame.cursor);
            }
        }
    };
    timeout(WITHIN, next).await.expect("an event in time")
}

fn json(event: &StreamedEvent) -> Value {
    serde_json::from_slice(&event.event_json).expect("a CloudEvent in JSON")
}

#[tokio::test]
async fn a_posted_event_is_streamed_and_found() {
    let Some(world) = World::on_kafka().await else {
        return;
    };
    let mut client = EventsClient::new(world.connect().await);
    let reply = client
        .post(steps(&[1, 2]))
        .await
        .expect("they are accepted")
        .into_inner();
    assert_eq!(
        (reply.events.len(), reply.worker.as_str()),
        (2, "gateway-1")
    );
    let earliest = watch(Some(Start::Earliest(true)));
    let mut frames = client.watch(earliest).await.expect("a stream").into_inner();
    let (first, cursor) = next_event(&mut frames).await;
    let event = json(&first);
    assert_eq!(event["id"], reply.events[0].id.as_str());
    assert_eq!(event["data"]["number"], 1);
    assert_eq!(first.key.as_deref(), Some("k-1"));

    let after = watch(Some(Start::After(cursor)));
    let mut frames = client.watch(after).await.expect("a stream").into_inner();
    let (second, _) = next_event(&mut frames).await;
    assert_eq!(json(&second)["data"]["number"], 2);

    let wanted = GetStatusRequest {
        id: reply.events[1].id.clone(),
        ..Default::default()
    };
    let published = || {
        let (mut client, wanted) = (client.clone(), wanted.clone());
        async move {
            let status: EventStatus = client.get(wanted).await.ok()?.into_inner();
            (status.state() == EventState::Published).then_some(status)
        }
    };
    let status = eventually("the event is found on the log", WITHIN, published).await;
    assert_eq!(status.r#type, TYPE);
}

#[tokio::test]
async fn a_stop_ends_streams_with_a_cursor() {
    let Some(world) = World::on_kafka().await else {
        return;
    };
    let mut client = EventsClient::new(world.connect().await);
    let mut frames = client
        .watch(watch(None))
        .await
        .expect("a stream")
        .into_inner();
    let first = timeout(WITHIN, frames.message())
        .await
        .expect("a frame in time");
    let first = first.expect("no error").expect("no end");
    assert!(
        matches!(first.content, Some(Content::Heartbeat(_))),
        "{first:?}"
    );
    world.streams.drain();
    let end = async {
        loop {
            let frame = frames
                .message()
                .await
                .expect("no error before the last frame");
            let frame = frame.expect("no end before the last frame");
            if matches!(frame.content, Some(Content::Reconnect(_))) {
                return (frame.cursor, frames.message().await);
            }
        }
    };
    let (cursor, end) = timeout(WITHIN, end).await.expect("an end in time");
    assert!(!cursor.is_empty());
    assert_eq!(end.expect_err("the stream ends").code(), Code::Unavailable);
}

#[tokio::test]
async fn a_repetition_gets_the_first_reply() {
    let world = World::without_brokers(Rights::all()).await;
    let mut client = EventsClient::new(world.connect().await);
    let request = || with_key(steps(&[1]), "8e03978e");
    let first = client
        .post(request())
        .await
        .expect("it is accepted")
        .into_inner();
    let again = client
        .post(request())
        .await
        .expect("it is repeated")
        .into_inner();
    assert!(!first.replayed && again.replayed);
    assert_eq!(first.events, again.events);
    let other = with_key(steps(&[2]), "8e03978e");
    let status = client.post(other).await.expect_err("the key is used");
    assert_eq!(status.code(), Code::AlreadyExists);
    let places = world
        .store
        .find(&first.events[0].id, None)
        .await
        .expect("the store answers");
    assert_eq!(places.len(), 1);
}

#[tokio::test]
async fn refusals_have_the_code_of_their_kind() {
    let world = World::without_brokers(Rights::all()).await;
    let mut client = EventsClient::new(world.connect().await);
    let mut unknown = steps(&[1]);
    unknown.events[0].r#type = "test.unknown.v1".to_owned();
    let number = r#"{"key": "k-1", "number": "one"}"#;
    for (request, code, kind, pointer) in [
        (
            step(number),
            Code::InvalidArgument,
            "invalid-event",
            Some("/events/0/data/number"),
        ),
        (
            step("{"),
            Code::InvalidArgument,
            "malformed",
            Some("/events/0/data"),
        ),
        (
            PostRequest::default(),
            Code::InvalidArgument,
            "malformed",
            None,
        ),
        (unknown, Code::NotFound, "not-found", None),
    ] {
        let status = client.post(request).await.expect_err(kind);
        assert_eq!(status.code(), code, "{kind}");
        let problem = problem(&status);
        assert_eq!(problem["type"], format!("/problems/{kind}"));
        if let Some(pointer) = pointer {
            assert_eq!(problem["errors"][0]["pointer"], pointer);
        }
    }
}

#[tokio::test]
async fn a_caller_without_the_right_is_refused() {
    let world = World::without_brokers(Rights::default()).await;
    let mut client = EventsClient::new(world.connect().await);
    let posted = client
        .post(steps(&[1]))
        .await
        .expect_err("no right to post");
    let watched = client
        .watch(watch(None))
        .await
        .expect_err("no right to stream");
    let wanted = GetStatusRequest {
        id: "e-1".to_owned(),
        ..Default::default()
    };
    let read = client.get(wanted).await.expect_err("no right to read");
    for status in [posted, watched, read] {
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    }
}

#[tokio::test]
async fn a_call_ends_at_its_deadline() {
    let world = World::without_brokers(Rights::all()).await;
    let mut request = Request::new(steps(&[1]));
    request.set_timeout(Duration::from_nanos(1));
    // Over a connection, the client would give up first.
    let status = world
        .local()
        .post(request)
        .await
        .expect_err("the deadline passed");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(problem(&status)["type"], "/problems/deadline-exceeded");
}

#[tokio::test]
async fn a_message_above_the_limit_is_refused() {
    let world = World::without_brokers(Rights::all()).await;
    let key = "k".repeat(PostLimits::default().body_bytes_max);
    let request = step(&format!(r#"{{"key": "{key}", "number": 1}}"#));
    let status = world
        .local()
        .post(request)
        .await
        .expect_err("it is too large");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(problem(&status)["type"], "/problems/too-large");
}

#[tokio::test]
async fn health_follows_a_stop() {
    let world = World::without_brokers(Rights::all()).await;
    let mut client = HealthClient::new(world.connect().await);
    for (serving, expected) in [
        (true, ServingStatus::Serving),
        (false, ServingStatus::NotServing),
    ] {
        world.health.set_serving(serving).await;
        for service in ["", "evenkeel.gateway.v1.Events"] {
            let request = HealthCheckRequest {
                service: service.to_owned(),
            };
            let answer = client
                .check(request)
                .await
                .expect("the service is known")
                .into_inner();
            assert_eq!(answer.status, expected as i32, "{service:?}");
        }
    }
}

#[tokio::test]
async fn a_repeated_order_keeps_its_id() {
    let kafka = mock_kafka().await;
    let gateway = TestGateway::start(&kafka.config()).await;
    let endpoint = Endpoint::from_shared(gateway.url("")).expect("a URL");
    let mut client = OrdersClient::new(endpoint.connect().await.expect("a connection"));
    let line = OrderLine {
        article: "tea".to_owned(),
        quantity: 2,
        price_cents: 150,
    };
    let order = PlaceRequest {
        customer_id: "c-1".to_owned(),
        lines: vec![line],
        ..PlaceRequest::default()
    };
    let request = || with_key(order.clone(), "cart-7");
    let first = client
        .place(request())
        .await
        .expect("it is accepted")
        .into_inner();
    let again = client
        .place(request())
        .await
        .expect("it is repeated")
        .into_inner();
    assert!(!first.replayed && again.replayed);
    assert_eq!(
        (&first.order_id, &first.event_id),
        (&again.order_id, &again.event_id)
    );

    let wrong = PlaceRequest {
        total_cents: Some(1),
        ..order
    };
    let status = client.place(wrong).await.expect_err("the total is wrong");
    assert_eq!(problem(&status)["errors"][0]["pointer"], "/total_cents");

    let cancelled = CancelRequest {
        order_id: first.order_id.clone(),
        reason: "changed my mind".to_owned(),
        event_id: None,
    };
    let reply = client
        .cancel(cancelled)
        .await
        .expect("it is accepted")
        .into_inner();
    assert_eq!(reply.order_id, first.order_id);
    drop(client);
    assert!(gateway.stopped().await.is_clean());
}
