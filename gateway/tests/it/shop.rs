//! Orders are placed and cancelled by their fields, and read from the orderboard.

use crate::support::{Answer, TestGateway, mock_kafka, request};
use axum::Router;
use axum::http::header::{ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use evenkeel::testing::eventually;
use evenkeel::testing::read_topic;
use evenkeel_gateway::server::GatewaySettings;
use serde_json::{Value, json};
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(30);

fn body(answer: &Answer) -> Value {
    let body = answer.text.split_once("\r\n\r\n").expect("a body").1;
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {}", answer.text))
}

async fn place(gateway: &TestGateway, order: &Value, key: &str) -> Answer {
    let headers = [
        ("content-type", "application/json"),
        ("idempotency-key", key),
    ];
    let order = order.to_string();
    gateway
        .send(request("POST", "/orders", &headers, order.as_bytes()))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_order_has_one_event_and_one_id() {
    let kafka = mock_kafka().await;
    let gateway = TestGateway::start(&kafka.config()).await;
    let lines = json!([{"article": "tea", "quantity": 3, "price_cents": 250}]);
    let order = json!({"customer_id": "c-1", "lines": lines});
    let first = place(&gateway, &order, "k-1").await;
    assert_eq!(first.status, 202, "{}", first.text);
    let again = place(&gateway, &order, "k-1").await;
    assert_eq!(body(&again), body(&first));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    let other = json!({"customer_id": "c-2", "lines": lines});
    assert_eq!(place(&gateway, &other, "k-1").await.status, 422);

    let order_id = body(&first)["key"]
        .as_str()
        .expect("the order's id")
        .to_owned();
    let path = format!("/orders/{order_id}/cancellation");
    let json = [("content-type", "application/json")];
    let cancelled = request("POST", &path, &json, br#"{"reason": "changed my mind"}"#);
    assert_eq!(gateway.send(cancelled).await.status, 202);

    let events = eventually("both events are published", WITHIN, || async {
        let events = read_topic(&kafka.config(), "shop.orders", Duration::from_secs(1)).await;
        (events.len() >= 2).then_some(events)
    })
    .await;
    assert_eq!(events.len(), 2, "one order, one cancellation");
    let report = gateway.stopped().await;
    assert!(report.is_clean(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_wrong_is_refused_with_pointers() {
    let kafka = mock_kafka().await;
    let gateway = TestGateway::start(&kafka.config()).await;
    let line = json!({"article": "tea", "quantity": 0, "price_cents": 250});
    let too_many = vec![json!({"article": "tea", "quantity": 1, "price_cents": 1}); 1_001];
    for (order, pointer) in [
        (json!({"customer_id": "c-1", "lines": too_many}), "/lines"),
        (
            json!({"customer_id": "c-1", "lines": [line]}),
            "/lines/0/quantity",
        ),
        (json!({"customer_id": "c-1", "line": []}), "/line"),
        (
            json!({"customer_id": "c-1", "lines": [], "total_cents": 5}),
            "/total_cents",
        ),
    ] {
        let answer = place(&gateway, &order, "k-2").await;
        assert_eq!(answer.status, 422, "{}", answer.text);
        assert_eq!(
            body(&answer)["errors"][0]["pointer"],
            pointer,
            "{}",
            answer.text
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_read_from_the_orderboard() {
    let order = async |headers: HeaderMap| {
        let known = headers.get(IF_NONE_MATCH);
        if known.is_some_and(|known| known == "\"1\"" || known == "\"0\", \"1\"") {
            return (StatusCode::NOT_MODIFIED, [(ETAG, "\"1\"")]).into_response();
        }
        let order = json!({"order_id": "o-1", "state": "placed", "facts": []});
        ([(ETAG, "\"1\"")], axum::Json(order)).into_response()
    };
    let orderboard = Router::new().route("/orders/o-1", get(order));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, orderboard).await });

    let kafka = mock_kafka().await;
    let with_board = |mut settings: GatewaySettings| {
        settings.orderboards = vec![url.clone()];
        settings
    };
    let gateway = TestGateway::start_with(&kafka.config(), with_board).await;
    let found = gateway.send(request("GET", "/orders/o-1", &[], b"")).await;
    assert_eq!(found.status, 200, "{}", found.text);
    assert_eq!(found.header("etag"), Some("\"1\""));
    assert_eq!(body(&found)["state"], "placed");
    let known = ["\"0\"", "\"1\""].map(|tag| ("if-none-match", tag));
    for known in [&known[1..], &known[..]] {
        let same = gateway
            .send(request("GET", "/orders/o-1?wait=100ms", known, b""))
            .await;
        assert_eq!(same.status, 304, "{known:?}");
        assert_eq!(same.header("etag"), Some("\"1\""), "{known:?}");
    }
    let unknown = gateway.send(request("GET", "/orders/o-2", &[], b"")).await;
    assert_eq!(unknown.status, 404);
    let malformed = gateway
        .send(request("GET", "/orders/o-1?wait=soon", &[], b""))
        .await;
    assert_eq!(malformed.status, 400);
}
