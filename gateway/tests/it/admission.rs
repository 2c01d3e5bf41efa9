//! Admission as a middleware: what is refused, what is told, and that obeying it works.

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use axum::{Router, middleware};
use evenkeel_gateway::access::{Principal, Rights};
use evenkeel_gateway::admission::{Admission, AdmissionSettings, admit};
use evenkeel_gateway::http::RequestContext;
use evenkeel_gateway::store::Backlog;
use futures_util::{StreamExt, stream};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, sleep};
use tower::ServiceExt;

/// A gateway with one route, behind admission.
#[derive(Clone)]
struct Gateway {
    router: Router,
    admission: Admission,
}

impl Gateway {
    fn new(settings: AdmissionSettings, route: MethodRouter) -> Self {
        Self::with_backlog(settings, route, Backlog::default())
    }

    fn with_backlog(settings: AdmissionSettings, route: MethodRouter, backlog: Backlog) -> Self {
        let admission = Admission::new(settings, move || backlog);
        let layer = middleware::from_fn_with_state(admission.clone(), admit);
        let router = Router::new().route("/events", route).layer(layer);
        Self { router, admission }
    }

    async fn send(&self, request: Request) -> Response {
        let answered = self.router.clone().oneshot(request).await;
        answered.unwrap_or_else(|never| match never {})
    }
}

/// A route with this many workers, each of which needs this long for a request. Counts calls.
fn workers(count: usize, service: Duration, calls: &Arc<AtomicU32>) -> MethodRouter {
    let workers = Arc::new(Semaphore::new(count));
    let calls = calls.clone();
    post(move || {
        let (workers, calls) = (workers.clone(), calls.clone());
        async move {
            calls.fetch_add(1, Ordering::Relaxed);
            let _worker = workers
                .acquire()
                .await
                .expect("a semaphore that is never closed");
            sleep(service).await;
            StatusCode::ACCEPTED
        }
    })
    .get(|| async { StatusCode::OK })
}

fn fixed_limit(limit: u32) -> AdmissionSettings {
    AdmissionSettings::outbox().with_concurrency(limit, limit, limit)
}

fn caller() -> Principal {
    Principal::new("shop", Rights::all())
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pairs = pairs.iter().map(|(name, value)| {
        let value = HeaderValue::from_str(value).expect("a header value");
        (HeaderName::from_static(name), value)
    });
    pairs.collect()
}

fn request(method: Method, principal: Principal, headers: HeaderMap, body: Body) -> Request {
    let context = RequestContext::from_headers(&headers, "gateway-1".into());
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = axum::http::Uri::from_static("/events");
    *request.headers_mut() = headers;
    request
        .extensions_mut()
        .insert(context.expect("a valid deadline"));
    request.extensions_mut().insert(principal);
    request
}

fn posted(pairs: &[(&'static str, &str)]) -> Request {
    request(Method::POST, caller(), headers(pairs), Body::from("{}"))
}

fn retry_after_s(response: &Response) -> u64 {
    let value = response
        .headers()
        .get(header::RETRY_AFTER)
        .expect("Retry-After");
    let text = value.to_str().expect("text");
    text.parse().expect("whole seconds")
}

async fn body_of(response: Response) -> String {
    let body = axum::body::to_bytes(response.into_body(), 10_000).await;
    String::from_utf8(body.expect("a short body").to_vec()).expect("text")
}

/// Sends a request in the background, and waits until it is admitted.
async fn begin(gateway: &Gateway, request: Request) -> tokio::task::JoinHandle<Response> {
    let before = gateway.admission.in_flight();
    let sender = gateway.clone();
    let sent = tokio::spawn(async move { sender.send(request).await });
    while gateway.admission.in_flight() == before {
        yield_now().await;
    }
    sent
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_does_not_reach_the_route() {
    let calls = Arc::default();
    let gateway = Gateway::new(fixed_limit(1), workers(1, Duration::from_secs(10), &calls));
    let begun = begin(&gateway, posted(&[])).await;
    let response = gateway.send(posted(&[])).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(retry_after_s(&response) >= 1);
    assert!(body_of(response).await.contains("nothing was accepted"));
    let read = request(Method::GET, caller(), HeaderMap::new(), Body::empty());
    assert_eq!(gateway.send(read).await.status(), StatusCode::OK);
    assert_eq!(
        begun.await.expect("no panic").status(),
        StatusCode::ACCEPTED
    );
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

/// Posts until the answer is not a refusal, as the refusals say. Returns the number of attempts.
async fn post_until_accepted(gateway: Gateway, pairs: Vec<(&'static str, String)>) -> u32 {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let response = gateway.send(posted(&pairs)).await;
        if response.status() == StatusCode::ACCEPTED {
            return attempts;
        }
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        sleep(Duration::from_secs(retry_after_s(&response))).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_refused_callers_that_obey_all_succeed() {
    for has_keys in [true, false] {
        let calls = Arc::default();
        let gateway = Gateway::new(
            fixed_limit(20),
            workers(20, Duration::from_millis(50), &calls),
        );
        let mut callers = JoinSet::new();
        for n in 0..120 {
            let key = has_keys.then(|| ("idempotency-key", n.to_string()));
            callers.spawn(post_until_accepted(
                gateway.clone(),
                key.into_iter().collect(),
            ));
        }
        let mut attempts = callers.join_all().await;
        attempts.sort_unstable();
        let expected: Vec<u32> = [vec![1; 20], vec![2; 100]].concat();
        assert_eq!(attempts, expected, "keys: {has_keys}");
        assert_eq!(calls.load(Ordering::Relaxed), 120);
        assert_eq!(gateway.admission.in_flight(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_given_up_at_its_deadline() {
    let settings = fixed_limit(10).with_request_time_max(Duration::from_secs(5));
    for (timeout, expected_ms) in [(Some("500ms"), 500), (Some("60"), 5_000), (None, 5_000)] {
        let calls = Arc::default();
        let route = workers(1, Duration::from_secs(100), &calls);
        let gateway = Gateway::new(settings.clone(), route);
        let pairs: Vec<_> = timeout
            .map(|text| ("x-request-timeout", text))
            .into_iter()
            .collect();
        let begun = Instant::now();
        let response = gateway.send(posted(&pairs)).await;
        assert_eq!(
            response.status(),
            StatusCode::GATEWAY_TIMEOUT,
            "{timeout:?}"
        );
        let elapsed = begun.elapsed().as_millis();
        assert!(
            (expected_ms..expected_ms + 10).contains(&elapsed),
            "{timeout:?}: {elapsed}"
        );
        assert!(
            body_of(response).await.contains("not known whether"),
            "{timeout:?}"
        );
        assert_eq!(gateway.admission.in_flight(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_passed_deadline_is_refused_at_once() {
    let calls = Arc::default();
    let gateway = Gateway::new(fixed_limit(10), workers(1, Duration::ZERO, &calls));
    let response = gateway.send(posted(&[("x-request-timeout", "0")])).await;
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert!(body_of(response).await.contains("nothing was accepted"));
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_caller_above_its_rate_is_refused_alone() {
    let calls = Arc::default();
    let gateway = Gateway::new(fixed_limit(10), workers(10, Duration::ZERO, &calls));
    let limited = || {
        let principal = caller().with_rate(1_u32);
        request(Method::POST, principal, HeaderMap::new(), Body::empty())
    };
    for _ in 0..2 {
        assert_eq!(gateway.send(limited()).await.status(), StatusCode::ACCEPTED);
    }
    let response = gateway.send(limited()).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let other = Principal::new("other", Rights::all()).with_rate(1_u32);
    let other = request(Method::POST, other, HeaderMap::new(), Body::empty());
    assert_eq!(gateway.send(other).await.status(), StatusCode::ACCEPTED);
    sleep(Duration::from_secs(retry_after_s(&response))).await;
    assert_eq!(gateway.send(limited()).await.status(), StatusCode::ACCEPTED);
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_brokers_refuses_nobody_with_an_outbox() {
    let mut backlog = Backlog::default();
    backlog.events = 6_000;
    backlog.oldest_age = Some(Duration::from_secs(30));
    for (settings, expected) in [
        (AdmissionSettings::outbox(), StatusCode::ACCEPTED),
        (
            AdmissionSettings::brokers(),
            StatusCode::SERVICE_UNAVAILABLE,
        ),
    ] {
        let route = workers(10, Duration::ZERO, &Arc::default());
        let gateway = Gateway::with_backlog(settings, route, backlog);
        assert_eq!(gateway.send(posted(&[])).await.status(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_hangs_up_frees_its_place() {
    let calls = Arc::default();
    let gateway = Gateway::new(fixed_limit(10), workers(1, Duration::from_secs(10), &calls));
    let begun = begin(&gateway, posted(&[])).await;
    begun.abort();
    assert!(begun.await.expect_err("an aborted task").is_cancelled());
    assert_eq!(gateway.admission.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn refusals_of_the_store_shrink_the_limit() {
    for (status, shrinks) in [
        (StatusCode::SERVICE_UNAVAILABLE, true),
        (StatusCode::UNPROCESSABLE_ENTITY, false),
        (StatusCode::INTERNAL_SERVER_ERROR, false),
    ] {
        let route = post(move || async move { status });
        let gateway = Gateway::new(AdmissionSettings::outbox(), route);
        let before = gateway.admission.limit();
        assert_eq!(gateway.send(posted(&[])).await.status(), status);
        assert_eq!(gateway.admission.limit() < before, shrinks, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_upload_does_not_count_as_latency() {
    let route = post(|_: Bytes| async { StatusCode::ACCEPTED });
    let gateway = Gateway::new(fixed_limit(10), route);
    let slow = stream::once(async {
        sleep(Duration::from_secs(5)).await;
        Ok::<_, io::Error>(Bytes::from_static(b"{}"))
    });
    let slow = request(
        Method::POST,
        caller(),
        HeaderMap::new(),
        Body::from_stream(slow),
    );
    assert_eq!(gateway.send(slow).await.status(), StatusCode::ACCEPTED);
    // Were it counted, a request would take 5 s, and this one be refused.
    let response = gateway.send(posted(&[("x-request-timeout", "1")])).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
}

/// A request whose body begins and does not end.
fn stalled(pairs: &[(&'static str, &str)]) -> Request {
    let begin = stream::once(async { Ok::<_, io::Error>(Bytes::from_static(b"{")) });
    let body = Body::from_stream(begin.chain(stream::pending()));
    request(Method::POST, caller(), headers(pairs), body)
}

#[tokio::test(start_paused = true)]
async fn stalled_uploads_hold_no_place_and_end_in_time() {
    for (timeout, expected_s, status) in [
        (None, 20, StatusCode::REQUEST_TIMEOUT),
        (Some("60"), 20, StatusCode::REQUEST_TIMEOUT),
        (Some("2"), 2, StatusCode::GATEWAY_TIMEOUT),
    ] {
        let calls = Arc::default();
        let gateway = Gateway::new(fixed_limit(1), workers(1, Duration::ZERO, &calls));
        let pairs: Vec<_> = timeout
            .map(|text| ("x-request-timeout", text))
            .into_iter()
            .collect();
        let began = Instant::now();
        let (upload, sender) = (stalled(&pairs), gateway.clone());
        let upload = tokio::spawn(async move { sender.send(upload).await });
        yield_now().await;
        assert_eq!(gateway.admission.in_flight(), 0);
        let other = gateway.send(posted(&[])).await;
        assert_eq!(other.status(), StatusCode::ACCEPTED, "the place is free");
        let response = upload.await.expect("no panic");
        assert_eq!(response.status(), status, "{timeout:?}");
        assert_eq!(began.elapsed().as_secs(), expected_s, "{timeout:?}");
        assert!(body_of(response).await.contains("nothing was accepted"));
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn uploads_beyond_their_bounds_are_refused() {
    let settings = fixed_limit(10).with_uploads(10, Duration::from_secs(20), 1);
    let calls = Arc::default();
    let gateway = Gateway::new(settings, workers(1, Duration::ZERO, &calls));
    let chunked = Body::from_stream(stream::iter(vec![Ok::<_, io::Error>("x".repeat(11))]));
    for body in [Body::from("x".repeat(11)), chunked] {
        let large = request(Method::POST, caller(), HeaderMap::new(), body);
        let response = gateway.send(large).await;
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    let (upload, sender) = (stalled(&[]), gateway.clone());
    let upload = tokio::spawn(async move { sender.send(upload).await });
    yield_now().await;
    let response = gateway.send(posted(&[])).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!((1..=3).contains(&retry_after_s(&response)));
    upload.abort();
    assert!(upload.await.expect_err("it was aborted").is_cancelled());
    let response = gateway.send(posted(&[])).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
}

#[tokio::test(start_paused = true)]
async fn one_caller_cannot_take_all_uploads() {
    let calls = Arc::default();
    let settings = fixed_limit(10).with_uploads(10, Duration::from_secs(20), 16);
    let gateway = Gateway::new(settings, workers(10, Duration::ZERO, &calls));
    let mut uploads = JoinSet::new();
    for _ in 0..4 {
        let (upload, sender) = (stalled(&[]), gateway.clone());
        uploads.spawn(async move { sender.send(upload).await });
    }
    yield_now().await;
    let response = gateway.send(posted(&[])).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!((1..=3).contains(&retry_after_s(&response)));
    assert!(body_of(response).await.contains("nothing was accepted"));
    let other = Principal::new("other", Rights::all());
    let other = request(Method::POST, other, HeaderMap::new(), Body::from("{}"));
    assert_eq!(gateway.send(other).await.status(), StatusCode::ACCEPTED);
    for response in uploads.join_all().await {
        assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
    }
    let response = gateway.send(posted(&[])).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
}

#[tokio::test(start_paused = true)]
async fn a_body_above_the_rate_is_not_read() {
    let calls = Arc::default();
    let gateway = Gateway::new(fixed_limit(10), workers(10, Duration::ZERO, &calls));
    let limited = |body| {
        let principal = caller().with_rate(1_u32);
        request(Method::POST, principal, HeaderMap::new(), body)
    };
    for _ in 0..2 {
        let response = gateway.send(limited(Body::from("{}"))).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
    }
    let began = Instant::now();
    let endless = Body::from_stream(stream::pending::<Result<Bytes, io::Error>>());
    let response = gateway.send(limited(endless)).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_route_without_a_caller_is_an_internal_error() {
    let calls = Arc::default();
    let gateway = Gateway::new(fixed_limit(10), workers(1, Duration::ZERO, &calls));
    let mut request = posted(&[]);
    request.extensions_mut().remove::<Principal>();
    let response = gateway.send(request).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}
