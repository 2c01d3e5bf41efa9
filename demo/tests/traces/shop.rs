//! The shop as processes on a mock cluster, whose spans go to the test's collector.

use crate::build_or_find::Binaries;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::post;
use evenkeel::testing::{ChildProcess, KafkaKind, TestKafka, eventually, free_port};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tempfile::TempDir;

/// No step takes that long unless it hangs: a record waits 10 s in the retry topic.
pub(crate) const WITHIN: Duration = Duration::from_secs(90);

/// The services that an order needs, with the gateway.
const SERVICES: [&str; 4] = ["payments", "inventory", "shipping", "notifications"];
const GATEWAY: &str = "gateway";
const PROVIDER: &str = "payment-provider";

/// The running shop.
pub(crate) struct Shop {
    pub(crate) kafka: TestKafka,
    pub(crate) client: reqwest::Client,
    /// The `traceparent` of each request that the provider received.
    pub(crate) asked: Asked,
    gateway: String,
    provider_admin: String,
    services: Vec<(&'static str, ChildProcess)>,
    _stores: TempDir,
}

/// The `traceparent` of requests. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Asked(Arc<Mutex<Vec<String>>>);

impl Asked {
    /// Those of a trace.
    pub(crate) fn of(&self, trace_id: &str) -> Vec<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_trace = all.iter().filter(|text| text.get(3..35) == Some(trace_id));
        of_trace.cloned().collect()
    }
}

/// The entrance of the payment provider: notes each request's trace, and passes it on.
#[derive(Clone)]
struct Entrance {
    client: reqwest::Client,
    provider: String,
    asked: Asked,
}

impl Shop {
    /// Starts the shop. Its spans go to the collector at this URL.
    pub(crate) async fn start(collector: &str) -> Self {
        let names = [SERVICES.as_slice(), &[GATEWAY, PROVIDER]].concat();
        let binaries = Binaries::get(&names).await.expect("the shop's programs");
        println!("programs: {}", binaries.origin);
        let kafka = TestKafka::start(KafkaKind::Mock).await;
        let kafka = kafka.expect("the mock cluster needs nothing");
        create_topics(&kafka).await;
        let stores = tempfile::tempdir().expect("a temporary folder");
        let client = reqwest::Client::new();

        let (listen, admin) = (free_address(), free_address());
        let flags = ["--listen", listen.as_str(), "--admin", admin.as_str()];
        let provider = start(&binaries, PROVIDER, &flags, collector);
        let entrance = Entrance {
            client: client.clone(),
            provider: format!("http://{listen}/payments"),
            asked: Asked::default(),
        };
        let asked = entrance.asked.clone();
        let entrance = serve(entrance).await;

        let store = |service: &str| stores.path().join(service).display().to_string();
        let mut services = Vec::new();
        for service in SERVICES {
            let store = store(service);
            let mut flags = vec!["--brokers", kafka.brokers(), "--store", store.as_str()];
            flags.extend(["--durability", "process-crash"]);
            if service == "payments" {
                flags.extend(["--provider-url", entrance.as_str()]);
            }
            services.push((service, start(&binaries, service, &flags, collector)));
        }
        let (listen, store) = (free_address(), format!("sqlite:{}", store(GATEWAY)));
        let mut flags = vec!["--brokers", kafka.brokers(), "--store", store.as_str()];
        flags.extend(["--listen", listen.as_str(), "--no-auth"]);
        services.push((GATEWAY, start(&binaries, GATEWAY, &flags, collector)));

        // It exports what it recorded when it ends, as the others do.
        services.push((PROVIDER, provider));

        let shop = Self {
            kafka,
            client,
            asked,
            gateway: format!("http://{listen}"),
            provider_admin: format!("http://{admin}/behaviour"),
            services,
            _stores: stores,
        };
        eventually("the payment provider listens", WITHIN, || async {
            shop.client.get(&shop.provider_admin).send().await.ok()
        })
        .await;
        shop
    }

    /// Sets the behaviour of the payment provider.
    pub(crate) async fn provider_behaves(&self, behaviour: &Value) {
        let told = self.client.put(&self.provider_admin).json(behaviour);
        let answer = told.send().await.expect("the provider answers");
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// Posts an order of one article to the gateway, when that listens. Returns its trace id.
    pub(crate) async fn order(&self, customer: &str, traceparent: Option<&str>) -> String {
        let line = json!({"article": "tea", "quantity": 1, "price_cents": 250});
        let order = json!({"customer_id": customer, "lines": [line]});
        let answer = eventually("the gateway accepts an order", WITHIN, || async {
            let mut request = self
                .client
                .post(format!("{}/orders", self.gateway))
                .header("idempotency-key", customer)
                .json(&order);
            if let Some(traceparent) = traceparent {
                request = request.header("traceparent", traceparent);
            }
            let answer = request.send().await.ok()?;
            assert!(!answer.status().is_client_error(), "{answer:?}");
            (answer.status() == StatusCode::ACCEPTED).then_some(answer)
        })
        .await;
        let trace = answer.headers().get("trace-id").expect("a trace id");
        trace.to_str().expect("a text").to_owned()
    }

    /// Stops gateway and services. Each settles what it began, and exports its last spans.
    pub(crate) async fn stop(self) {
        for (_, service) in &self.services {
            service.signal("TERM");
        }
        for (name, service) in self.services {
            let finished = service.finished(WITHIN).await;
            assert_eq!(finished.code, Some(0), "{name}: {finished}");
        }
    }
}

/// The topics with those of their consumers: only the owner of a mock cluster can create any.
async fn create_topics(kafka: &TestKafka) {
    for topic in shop_schemas::topics() {
        let own = topic.consumers.iter().flat_map(|service| {
            let name = &topic.name;
            [
                format!("dlq.{service}.{name}"),
                format!("retry.{service}.{name}"),
            ]
        });
        for name in own.chain([topic.name.clone()]) {
            let created = kafka.create_topic(&name, topic.partitions).await;
            created.expect("the mock has no such topic yet");
        }
    }
}

/// Starts a program that exports its spans to the collector.
fn start(binaries: &Binaries, name: &str, flags: &[&str], collector: &str) -> ChildProcess {
    let path = binaries.path(name).expect("it was built");
    let mut command = ChildProcess::command(path);
    for (variable, _) in std::env::vars_os() {
        let text = variable.to_string_lossy();
        let is_setting = |prefix: &&str| text.starts_with(*prefix);
        if ["SHOP_", "GATEWAY_", "OTEL_"].iter().any(is_setting) {
            command.env_remove(&variable);
        }
    }
    command
        .args(flags)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector)
        .env("OTEL_BSP_SCHEDULE_DELAY", "200")
        .env(
            "OTEL_RESOURCE_ATTRIBUTES",
            "deployment.environment.name=test",
        );
    ChildProcess::start(command).expect("it can be run")
}

/// An address of this machine that is free now.
fn free_address() -> String {
    format!("127.0.0.1:{}", free_port().expect("a free port"))
}

/// Serves the provider's entrance until the test ends. Returns its URL.
async fn serve(entrance: Entrance) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a free port");
    let address = listener.local_addr().expect("its address");
    let router = Router::new()
        .route("/payments", post(pass_on))
        .with_state(entrance);
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

async fn pass_on(
    State(entrance): State<Entrance>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, Bytes), StatusCode> {
    let text = |name: &str| {
        let value = headers.get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    let traceparent = text("traceparent");
    if let Some(traceparent) = traceparent.clone() {
        let mut asked = entrance
            .asked
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        asked.push(traceparent);
    }
    let mut request = entrance
        .client
        .post(&entrance.provider)
        .header(
            "idempotency-key",
            text("idempotency-key").unwrap_or_default(),
        )
        .header(header::CONTENT_TYPE, "application/json")
        .body(body);
    if let Some(traceparent) = traceparent {
        request = request.header("traceparent", traceparent);
    }
    let answer = request.send().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    let status = answer.status();
    let body = answer.bytes().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    Ok((status, body))
}
