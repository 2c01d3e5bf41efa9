//! `payments` queries the fake payment provider with each behaviour.

use evenkeel::event::{Event, Record, RecordBatchBuilder};
use evenkeel::handler::{Delivery, DeliveryScope, HandlerError, Outcome, Router, State};
use evenkeel::testing::eventually;
use shop_consumers::daemon::layer::Layered;
use shop_consumers::payments::provider_service::{Answers, ProviderService};
use shop_consumers::provider::Answer;
use shop_consumers::provider::behaviour::Behaviour;
use shop_consumers::provider::server::{ProviderArgs, serve};
use shop_schemas::OrderPlaced;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tower::ServiceExt;

const WITHIN: Duration = Duration::from_secs(30);

/// A provider, and a router that records the answers its handler receives.
struct Scene {
    admin: String,
    asking: ProviderService,
    told: Arc<Mutex<Vec<Option<Answer>>>>,
}

impl Scene {
    async fn begin() -> Self {
        let free = || -> SocketAddr {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        let (listen, admin) = (free(), free());
        tokio::spawn(async move { serve(&ProviderArgs { listen, admin }).await });
        let told: Arc<Mutex<Vec<Option<Answer>>>> = Arc::default();
        let log = Arc::clone(&told);
        let router = Router::new().on(
            move |event: Event<OrderPlaced>, State(answers): State<Answers>| {
                let answer = answers.of(&event.attributes.id);
                log.lock().unwrap().push(answer);
                std::future::ready(())
            },
        );
        let scene = Self {
            admin: format!("http://{admin}/behaviour"),
            asking: ProviderService::new(router, &format!("http://{listen}")),
            told,
        };
        eventually("the provider listens", WITHIN, || async {
            reqwest::get(&scene.admin).await.ok()
        })
        .await;
        scene
    }

    async fn behave(&self, behaviour: Behaviour) {
        let told = reqwest::Client::new().put(&self.admin).json(&behaviour);
        let answer = told.send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    async fn deliver(&self, record: Record) -> Outcome {
        let delivery = Delivery::new(record, 1, Arc::new(DeliveryScope::new("payments")));
        Layered(self.asking.clone())
            .oneshot(delivery)
            .await
            .unwrap()
    }

    /// The answer that the handler received for the order of that event.
    async fn answer(&self, id: &str, customer: &str) -> Answer {
        let outcome = self.deliver(order(id, customer)).await;
        assert!(matches!(outcome, Outcome::Done), "{outcome:?}");
        self.told.lock().unwrap().pop().unwrap().unwrap()
    }

    /// The error of the query for the order of that event, returned before the handler runs.
    async fn failure(&self, id: &str, customer: &str) -> HandlerError {
        match self.deliver(order(id, customer)).await {
            Outcome::Retry(error) => {
                assert_eq!(error.dependency_name(), "payment-provider");
                assert!(self.told.lock().unwrap().is_empty());
                error
            }
            other => panic!("{other:?}"),
        }
    }
}

fn record(headers: &[(&str, &str)], value: &[u8]) -> Record {
    let headers = headers
        .iter()
        .map(|(name, value)| (name.as_bytes(), Some(value.as_bytes())));
    let mut builder = RecordBatchBuilder::new();
    let source = builder.source("shop.orders".into(), 0);
    builder.push(source, 1, 1, Some(b"o-1"), Some(value), headers);
    builder.build(None).record(0).unwrap()
}

fn order(id: &str, customer: &str) -> Record {
    let order = OrderPlaced {
        order_id: format!("order-of-{id}"),
        customer_id: customer.to_owned(),
        lines: Vec::new(),
        total_cents: 100,
        placed_at: "2026-01-01T00:00:00Z".to_owned(),
    };
    let headers = [
        ("ce_specversion", "1.0"),
        ("ce_id", id),
        ("ce_source", "/shop/orders"),
        ("ce_type", "shop.order-placed.v1"),
        ("content-type", "application/json"),
    ];
    record(&headers, &serde_json::to_vec(&order).unwrap())
}

#[tokio::test]
async fn the_handler_gets_the_providers_answer_stable_per_event() {
    let scene = Scene::begin().await;
    let authorized = scene.answer("e-1", "c-1").await;
    assert!(
        matches!(authorized, Answer::Authorized { .. }),
        "{authorized:?}"
    );
    scene.behave(Behaviour::Declining).await;
    assert_eq!(scene.answer("e-1", "c-1").await, authorized);
    let declined = scene.answer("e-2", "c-1").await;
    assert!(matches!(declined, Answer::Declined { .. }), "{declined:?}");
    scene.behave(Behaviour::Slow { latency_ms: 50 }).await;
    assert_ne!(scene.answer("e-3", "c-1").await, authorized);
}

#[tokio::test]
async fn a_failing_provider_is_an_error_before_the_handler_runs() {
    let scene = Scene::begin().await;
    for status in [500, 422] {
        let customer_id = "c-1".to_owned();
        let failing = Behaviour::Failing {
            customer_id,
            status,
        };
        scene.behave(failing).await;
        let message = scene.failure("e-1", "c-1").await.message();
        assert!(message.ends_with(&status.to_string()), "{message}");
        scene.answer("e-2", "c-2").await;
    }
    scene.behave(Behaviour::Down).await;
    let message = scene.failure("e-1", "c-1").await.message();
    assert!(message.ends_with("503"), "{message}");
    scene.behave(Behaviour::Unreachable).await;
    eventually("connections are refused", WITHIN, || async {
        let message = scene.failure("e-1", "c-1").await.message();
        message.contains("refused").then_some(())
    })
    .await;
    scene.behave(Behaviour::Normal).await;
    eventually("it answers again", WITHIN, || async {
        let outcome = scene.deliver(order("e-1", "c-1")).await;
        matches!(outcome, Outcome::Done).then_some(())
    })
    .await;
}

#[tokio::test]
async fn records_without_an_order_are_left_to_the_router() {
    let scene = Scene::begin().await;
    scene.behave(Behaviour::Down).await;
    for record in [
        record(&[], b"no event"),
        record(&[("ce_type", "shop.order-placed.v1")], b"half an event"),
    ] {
        let outcome = scene.deliver(record).await;
        assert!(matches!(outcome, Outcome::Dead(_)), "{outcome:?}");
    }
}
