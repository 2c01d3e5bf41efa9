//! Where an event is: the states that `GET /events/{id}` reports, of real groups on a real Kafka.

use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use evenkeel::consumer::{Consumer, ConsumerSettings};
use evenkeel::control::{Action, Command, CommandOutcome, control_topic};
use evenkeel::event::{Headers, OutgoingRecord, Record, new_id};
use evenkeel::handler::{HandlerError, Outcome, Router};
use evenkeel::inbox::BoxFuture;
use evenkeel::kafka::admin::Admin;
use evenkeel::kafka::{KafkaConfig, RecordPosition};
use evenkeel::publisher::{Publisher, PublisherSettings, Receipt};
use evenkeel::schema::Catalogue;
use evenkeel::testing::{eventually, real_kafka, unique};
use evenkeel_gateway::access::{AllowList, EventRoute, Principal, Rights};
use evenkeel_gateway::http::RequestContext;
use evenkeel_gateway::status::{self, StatusReader, StatusSettings};
use evenkeel_gateway::store::{
    AcceptError, AcceptRequest, AcceptStore, Accepted, Backlog, EventPlace,
};
use evenkeel_ops::Cluster;
use evenkeel_ops::groups::control_log::ControlLog;
use jiff::Timestamp;
use serde_json::Value;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

const TYPE: &str = "test.step.v1";
const SOURCE: &str = "/callers/web";
const WITHIN: Duration = Duration::from_secs(60);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// A store that knows these events: the states after it do not depend on how it keeps them.
#[derive(Default)]
struct Known(Mutex<Vec<EventPlace>>);

impl Known {
    fn add(&self, place: EventPlace) {
        self.0
            .lock()
            .expect("no thread panicked with the lock")
            .push(place);
    }
}

impl AcceptStore for Known {
    fn accept(&self, _: AcceptRequest) -> BoxFuture<'_, Result<Accepted, AcceptError>> {
        Box::pin(async { Err(AcceptError::NoIdentities) })
    }

    fn find<'a>(
        &'a self,
        id: &'a str,
        source: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<EventPlace>, AcceptError>> {
        Box::pin(async move {
            let places = self.0.lock().expect("no thread panicked with the lock");
            let is_it = |place: &&EventPlace| {
                place.id == id && source.is_none_or(|source| place.source == source)
            };
            Ok(places.iter().filter(is_it).cloned().collect())
        })
    }

    fn backlog(&self) -> Backlog {
        Backlog::default()
    }

    fn keeps_identities(&self) -> bool {
        true
    }

    fn name(&self) -> &'static str {
        "known"
    }
}

/// A topic, a group, and a gateway that answers for them.
struct World {
    kafka: KafkaConfig,
    topic: String,
    group: String,
    publisher: Publisher,
    store: Arc<Known>,
    reader: StatusReader,
}

impl World {
    /// On the shared Apache Kafka; none where there is none.
    async fn new() -> Option<Self> {
        let cluster = real_kafka().await?;
        let topic = unique("gateway-status");
        let created = cluster.create_topic(&topic, 1).await;
        created.expect("the topic is created");
        Some(Self::on(cluster.config(), topic))
    }

    fn on(kafka: KafkaConfig, topic: String) -> Self {
        let group = unique("gateway-status");
        let publisher = Publisher::new(&kafka, PublisherSettings::new(SOURCE));
        let store = Arc::new(Known::default());
        let schema = r#"{"type": "object", "properties": {"key": {"type": "string"}}}"#;
        let catalogue = Catalogue::from_texts([(TYPE, schema)]).expect("a schema");
        let route = EventRoute::new(TYPE, &*topic, "key")
            .with_post(true)
            .with_stream(true);
        let allow_list = AllowList::new(vec![route], Arc::new(catalogue)).expect("an allow list");
        let mut settings = StatusSettings::default()
            .with_groups(&*topic, [&*group])
            .with_search_timeout(REQUEST_TIMEOUT);
        settings.answer_timeout = WITHIN;
        let reader = StatusReader::new(
            kafka.clone(),
            Arc::new(allow_list),
            Arc::clone(&store) as Arc<dyn AcceptStore>,
            settings,
        );
        Self {
            kafka,
            topic,
            group,
            publisher: publisher.expect("the settings of the publisher are valid"),
            store,
            reader,
        }
    }

    /// Publishes an event with this key.
    async fn publish(&self, id: &str, key: &str) -> Receipt {
        let mut headers = Headers::new();
        for (name, value) in [
            ("ce_specversion", "1.0"),
            ("ce_id", id),
            ("ce_source", SOURCE),
            ("ce_type", TYPE),
        ] {
            headers.push(name, Some(value.as_bytes()));
        }
        let record = OutgoingRecord {
            topic: self.topic.clone(),
            partition: None,
            key: Some(key.to_owned().into()),
            value: Some("{}".into()),
            headers,
            timestamp_ms: None,
        };
        let receipt = self.publisher.publish_record(record).await;
        receipt.expect("the brokers acknowledge the record")
    }

    /// Publishes an event that the gateway accepted. The store does not know its position.
    async fn accept(&self, id: &str, key: &str) -> Receipt {
        self.store.add(self.place(id));
        self.publish(id, key).await
    }

    fn place(&self, id: &str) -> EventPlace {
        let [id, source, ty] = [id, SOURCE, TYPE].map(str::to_owned);
        let now_ms = Timestamp::now().as_millisecond();
        EventPlace::new(source, id, ty, self.topic.clone(), now_ms)
    }

    /// Asks for the status as a caller with these rights.
    async fn get(&self, path: &str, rights: Rights) -> (StatusCode, Value) {
        let context = RequestContext::from_headers(&HeaderMap::new(), "gateway-1".into());
        let caller = Principal::new("someone", rights);
        let router = status::router(self.reader.clone())
            .layer(Extension(caller))
            .layer(Extension(context.expect("no deadline")));
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let response = router.oneshot(request).await.expect("an answer");
        let code = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await;
        let body = serde_json::from_slice(&body.expect("a body")).expect("JSON");
        (code, body)
    }

    /// The status of an event, and the state of its group.
    async fn status(&self, id: &str) -> (Value, Value) {
        let (code, status) = self.get(&format!("/events/{id}"), Rights::all()).await;
        assert_eq!(code, StatusCode::OK, "{status}");
        let group = status["groups"][0].clone();
        (status, group)
    }

    /// Waits until the group has this state for the event.
    async fn reaches(&self, id: &str, state: &str) -> Value {
        eventually(&format!("{id} is {state}"), WITHIN, || async {
            let (status, group) = self.status(id).await;
            assert_eq!(status["state"], "published", "{status}");
            (group["state"] == state).then_some(group)
        })
        .await
    }

    /// Commands the skip of a record, and waits until a member has received it.
    async fn skip(&self, at: &Receipt) {
        let record = RecordPosition {
            topic: at.topic.clone(),
            partition: at.partition,
            offset: at.offset,
        };
        let command = Command::new("ada", "a bad order", Action::Skip { record });
        let command = command.expect("a command");
        let written = self.publisher.publish_record(OutgoingRecord {
            topic: control_topic(&self.group),
            partition: None,
            key: Some(command.key().into()),
            value: Some(command.value().expect("JSON").into()),
            headers: Headers::new(),
            timestamp_ms: None,
        });
        written.await.expect("the brokers acknowledge the command");
        let cluster = Cluster::new(self.kafka.clone(), REQUEST_TIMEOUT);
        let admin = Admin::connect(&self.kafka, REQUEST_TIMEOUT).await;
        let admin = admin.expect("the brokers answer");
        eventually("a member has received the skip", WITHIN, || async {
            let log = ControlLog::open(&cluster, &admin, &self.group)
                .await
                .ok()??;
            let mut acks = log.history.acks_of(&command.id);
            acks.any(|ack| ack.outcome == CommandOutcome::Pending)
                .then_some(())
        })
        .await;
    }
}

/// A member whose handlers fail, wait or succeed by the key of the record.
fn member(world: &World, skip_gate: &CancellationToken) -> Consumer<Router> {
    let mut settings = ConsumerSettings::new(&world.group, [&world.topic]);
    settings.commit_interval = Duration::from_millis(100);
    settings.drain_timeout = Duration::from_secs(1);
    settings.retry.attempts_max = 1;
    settings.retry.park_delays = vec![Duration::from_secs(3_600)];
    let skip_gate = skip_gate.clone();
    let router = Router::new().fallback(move |record: Record| {
        let skip_gate = skip_gate.clone();
        async move {
            let key = record.key().unwrap_or_default().to_vec();
            match &*key {
                b"dies" => Outcome::Retry(HandlerError::permanent("no such customer")),
                b"fails" => Outcome::Retry(HandlerError::transient("timed out")),
                b"skip" => {
                    skip_gate.cancelled().await;
                    Outcome::Retry(HandlerError::transient("not now"))
                }
                b"hangs" => std::future::pending().await,
                _ => Outcome::Done,
            }
        }
    });
    Consumer::new(world.kafka.clone(), settings, router).expect("the settings are valid")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_state_of_a_group_is_reported() {
    let Some(world) = World::new().await else {
        return;
    };
    let (stop, skip_gate) = (CancellationToken::new(), CancellationToken::new());
    let running = member(&world, &skip_gate).run(stop.clone());
    let running = tokio::spawn(running);

    world.accept("good", "works").await;
    world.accept("dead", "dies").await;
    let first = world.accept("first", "fails").await;
    world.accept("second", "fails").await;
    let skipped = world.accept("skipped", "skip").await;
    world.accept("pending", "hangs").await;
    let after = world.accept("after", "also works").await;

    let dead = world.reaches("dead", "dead").await;
    assert_eq!(dead["class"], "permanent", "{dead}");
    assert!(
        dead["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("no such customer"))
    );
    let dead_letters = format!("dlq.{}.{}", world.group, world.topic);
    assert_eq!(dead["deadLetter"]["topic"], *dead_letters);
    world.reaches("good", "settled").await;

    let retrying = world.reaches("first", "retrying").await;
    assert_eq!(retrying["attempt"], 1, "{retrying}");
    let until: Timestamp = retrying["until"]
        .as_str()
        .expect("a time")
        .parse()
        .expect("a time");
    assert!(until > Timestamp::now(), "{retrying}");
    let waiting = world.reaches("second", "waiting").await;
    assert_eq!(waiting["behind"]["offset"], first.offset, "{waiting}");
    assert_eq!(waiting["behind"]["topic"], *world.topic);

    // The skip takes effect when the running attempt has failed.
    world.skip(&skipped).await;
    skip_gate.cancel();
    let state = world.reaches("skipped", "skipped").await;
    assert_eq!(state["skippedBy"], "ada", "{state}");

    // Settled above the committed offset, which stays at the record that hangs.
    world.reaches("after", "settled").await;
    let pending = world.reaches("pending", "pending").await;
    assert_eq!(pending["recordsBefore"], 0, "{pending}");
    let (status, _) = world.status("after").await;
    assert_eq!(status["log"]["offset"], after.offset, "{status}");
    assert_eq!(status["log"]["topic"], *world.topic);

    stop.cancel();
    let ended = running.await.expect("it does not panic");
    ended.expect("the member ends well");
    world.reaches("pending", "unassigned").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_another_publisher_is_found_by_its_id() {
    let Some(world) = World::new().await else {
        return;
    };
    let id = new_id();
    let first = world.publish(&id, "k").await;
    let again = world.publish(&id, "k").await;
    world.publish("o-1", "k").await;

    let (status, group) = world.status(&id).await;
    assert_eq!(status["state"], "published");
    assert_eq!(status["source"], SOURCE);
    assert_eq!(status["log"]["offset"], first.offset, "{status}");
    let duplicates = status["log"]["duplicates"].as_array().expect("duplicates");
    assert_eq!(duplicates.len(), 1, "{status}");
    assert_eq!(duplicates[0]["offset"], again.offset, "{status}");
    assert_eq!(group["state"], "unknown", "no member ever ran: {group}");

    // An id without a time needs hints.
    let (code, problem) = world.get("/events/o-1", Rights::all()).await;
    assert_eq!(code, StatusCode::NOT_FOUND);
    assert!(
        problem["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("?type="))
    );
    let since = Timestamp::now() - Duration::from_secs(3_600);
    let since = since.strftime("%FT%TZ");
    let (code, status) = world
        .get(
            &format!("/events/o-1?type={TYPE}&since={since}"),
            Rights::all(),
        )
        .await;
    assert_eq!(code, StatusCode::OK, "{status}");
    assert_eq!(status["log"]["offset"], again.offset + 1, "{status}");

    // Its absence from all records is stated only if all were read.
    let unknown = new_id();
    for (hint, expected) in [
        ("", "older records were not searched"),
        (&*format!("?type={TYPE}"), "it is not on the log; ?type="),
    ] {
        let path = format!("/events/{unknown}{hint}");
        let (code, problem) = world.get(&path, Rights::all()).await;
        assert_eq!(code, StatusCode::NOT_FOUND, "{problem}");
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(expected), "{hint}: {detail}");
    }

    // The clock of its publisher is wrong: the time in its id is far in the future.
    let wrong = "ffffffff-ffff-7cc3-98c4-dc0c0c07398f";
    let receipt = world.publish(wrong, "k").await;
    let (status, _) = world.status(wrong).await;
    assert_eq!(status["log"]["offset"], receipt.offset, "{status}");

    // What a caller may not see is not there.
    let mut rights = Rights::default();
    rights.status = true;
    let (code, _) = world.get(&format!("/events/{id}"), rights.clone()).await;
    assert_eq!(code, StatusCode::NOT_FOUND);
    rights.stream = vec!["test.*".to_owned()];
    let (code, _) = world.get(&format!("/events/{id}"), rights).await;
    assert_eq!(code, StatusCode::OK);
}

#[tokio::test]
async fn an_event_in_the_outbox_is_reported_without_kafka() {
    let world = World::on(KafkaConfig::new("localhost:1"), "no-topic".to_owned());
    let mut place = world.place("waits");
    place.in_outbox = true;
    world.store.add(place);
    let (status, _) = world.status("waits").await;
    assert_eq!(status["state"], "accepted");
    assert_eq!(status["outbox"]["waiting"], true);
    assert!(status["outbox"]["since"].is_string(), "{status}");
    assert!(
        status["groups"].as_array().is_some_and(Vec::is_empty),
        "{status}"
    );

    let mut rights = Rights::all();
    rights.status = false;
    let (code, _) = world.get("/events/waits", rights).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    let (code, _) = world
        .get("/events/waits?source=/other", Rights::all())
        .await;
    assert_eq!(code, StatusCode::NOT_FOUND, "an event of another source");
    for query in ["since=yesterday", "unknown=1"] {
        let path = format!("/events/waits?{query}");
        let (code, problem) = world.get(&path, Rights::all()).await;
        assert_eq!(code, StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(problem["type"], "/problems/malformed");
    }
}
