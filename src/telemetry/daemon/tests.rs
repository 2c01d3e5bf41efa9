//! The environment of a daemon as probes, Prometheus and an init system see it.

use super::{Daemon, DaemonSettings, admin, recorder};
use crate::telemetry::{Health, Metric};
use crate::testing::{ChildProcess, eventually};
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::process::Command;
use tower::ServiceExt;

/// No line of a log and no end takes that long unless a process hangs.
const WITHIN: Duration = Duration::from_secs(30);

fn settings(admin: Option<SocketAddr>) -> DaemonSettings {
    let mut settings = DaemonSettings::new("payments");
    settings.admin = admin;
    settings
}

/// A histogram of a service.
const OWN_DURATION: &str = "own_request_seconds";

async fn get(health: &Health, uri: &str, accept: &str) -> (StatusCode, String) {
    let request = Request::get(uri)
        .header(header::ACCEPT, accept)
        .body(Body::empty())
        .unwrap();
    let recorder = recorder().unwrap();
    let router = admin::router(health.clone(), Some(Arc::new(move || recorder.render())));
    let response = router.oneshot(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn readyz_names_unready_components_with_their_reasons() {
    let health = Health::default();
    health.set_ready("store", Ok(()));
    assert_eq!(
        get(&health, "/readyz", "*/*").await,
        (StatusCode::OK, "ok\n".to_owned())
    );
    health.set_ready(
        "consumer payments",
        Err("no brokers:\n  refused".to_owned()),
    );
    assert_eq!(
        get(&health, "/readyz", "*/*").await,
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "[-]consumer payments: no brokers:\\n  refused\n".to_owned()
        )
    );
    let (_, verbose) = get(&health, "/readyz?verbose", "*/*").await;
    assert_eq!(
        verbose,
        "[-]consumer payments: no brokers:\\n  refused\n[+]store ok\nfailed\n"
    );
    let (status, json) = get(&health, "/readyz", "application/json").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json,
        serde_json::json!({"status": "failed", "checks": [
            {"name": "consumer payments", "ok": false, "reason": "no brokers:\n  refused"},
            {"name": "store", "ok": true},
        ]})
    );
}

#[tokio::test]
async fn readyz_shows_the_notes_of_ready_components() {
    let health = Health::default();
    health.set_ready("consumer payments", Ok(()));
    health.set_note("consumer payments", Some("paused: orders/3".to_owned()));
    let plain = get(&health, "/readyz", "*/*").await;
    assert_eq!(plain, (StatusCode::OK, "ok\n".to_owned()));
    let (_, verbose) = get(&health, "/readyz?verbose", "*/*").await;
    assert_eq!(verbose, "[+]consumer payments ok; paused: orders/3\nok\n");
    let (_, json) = get(&health, "/readyz", "application/json").await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let check =
        serde_json::json!({"name": "consumer payments", "ok": true, "note": "paused: orders/3"});
    assert_eq!(json["checks"][0], check);
}

#[tokio::test]
async fn livez_names_a_stalled_loop_and_ignores_readiness() {
    let now_s = Arc::new(AtomicU64::new(0));
    let clock = now_s.clone();
    let health = Health::with_clock(move || Duration::from_secs(clock.load(Ordering::Relaxed)));
    health.expect_beat("poll", Duration::from_secs(10));
    health.set_ready("store", Err("locked".to_owned()));
    for path in ["/livez", "/healthz"] {
        now_s.store(0, Ordering::Relaxed);
        assert_eq!(get(&health, path, "*/*").await.0, StatusCode::OK);
        now_s.store(12, Ordering::Relaxed);
        assert_eq!(
            get(&health, path, "*/*").await,
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "[-]poll: no progress for 12 s\n".to_owned()
            )
        );
    }
}

#[tokio::test]
async fn metrics_have_help_and_a_duration_histogram() {
    recorder().unwrap();
    Metric::describe_all();
    let topic = crate::testing::unique("metrics");
    metrics::counter!(Metric::Received.name(), "group" => "payments", "topic" => topic.clone())
        .increment(3);
    metrics::histogram!(Metric::HandlerSeconds.name(), "group" => topic.clone()).record(0.03);
    metrics::histogram!(OWN_DURATION, "route" => topic.clone()).record(0.03);
    let (status, text) = get(&Health::default(), "/metrics", "*/*").await;
    assert_eq!(status, StatusCode::OK);
    for line in [
        "# TYPE evenkeel_records_received_total counter".to_owned(),
        "# HELP evenkeel_records_received_total Records received from Kafka".to_owned(),
        format!("evenkeel_records_received_total{{group=\"payments\",topic=\"{topic}\"}} 3"),
        format!("evenkeel_handler_duration_seconds_bucket{{group=\"{topic}\",le=\"0.025\"}} 0"),
        format!("own_request_seconds_bucket{{route=\"{topic}\",le=\"0.025\"}} 0"),
        format!("evenkeel_handler_duration_seconds_bucket{{group=\"{topic}\",le=\"0.05\"}} 1"),
    ] {
        assert!(
            text.lines().any(|l| l == line),
            "{line} is missing in:\n{text}"
        );
    }
}

#[tokio::test]
async fn a_used_address_is_reported_with_advice() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = Daemon::start(settings(Some(address))).await.unwrap_err();
    let message = error.to_string();
    assert!(message.contains(&address.to_string()), "{message}");
    assert!(message.contains("choose another port"), "{message}");
}

#[tokio::test]
async fn a_daemon_is_ready_once_started_and_not_when_stopping() {
    let daemon = Daemon::start(settings(Some(([127, 0, 0, 1], 0).into())))
        .await
        .unwrap();
    std::net::TcpStream::connect(daemon.admin.unwrap()).unwrap();
    assert!(daemon.health.not_ready().is_empty());
    daemon.stop.cancel();
    eventually("readiness ends", Duration::from_secs(10), async || {
        let stopping = ("process".to_owned(), "stopping".to_owned());
        daemon.health.not_ready().contains(&stopping).then_some(())
    })
    .await;
}

/// Set in the process that receives the signals, so that a run of all ignored tests does not start
/// a second one.
const SIGNALLED: &str = "EVENKEEL_TEST_SIGNALLED";
/// Set in the process that stops before any signal.
const STOPS_ITSELF: &str = "EVENKEEL_TEST_STOPS_ITSELF";

/// Not a test: the process that receives the signals of the tests below.
#[tokio::test]
#[ignore = "started by the tests of signals"]
async fn a_daemon_that_never_drains() {
    if std::env::var_os(SIGNALLED).is_none() {
        return;
    }
    let daemon = Daemon::start(settings(None)).await.unwrap();
    if std::env::var_os(STOPS_ITSELF).is_some() {
        daemon.stop.cancel();
    }
    daemon.stop.cancelled().await;
    std::future::pending::<()>().await;
}

/// Starts the process, with these variables.
fn start(variables: &[(&str, &str)]) -> ChildProcess {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "--ignored", "--nocapture"])
        .arg("telemetry::daemon::tests::a_daemon_that_never_drains")
        .env("RUST_LOG", "info")
        .env(SIGNALLED, "1")
        .envs(variables.iter().copied())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    ChildProcess::start(command).unwrap()
}

#[tokio::test]
async fn the_first_signal_drains_and_a_later_one_exits() {
    for (first, second, code) in [
        ("TERM", "TERM", 143),
        ("INT", "INT", 130),
        ("TERM", "INT", 130),
    ] {
        let mut process = start(&[]);
        process.printed("started", WITHIN).await;
        process.signal(first);
        process.printed("ends the process at once", WITHIN).await;
        assert!(process.is_running(), "it drains");
        // Longer than a request may last.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        process.signal(second);
        process.printed("ending at once", WITHIN).await;
        process.finished(WITHIN).await.code(code);
    }
}

#[tokio::test]
async fn signals_in_quick_succession_ask_once() {
    for burst in ["TERM TERM", "TERM INT", "INT TERM TERM INT"] {
        let mut process = start(&[]);
        process.printed("started", WITHIN).await;
        burst.split(' ').for_each(|signal| process.signal(signal));
        process.printed("ends the process at once", WITHIN).await;
        // A signal that counted would have ended it by now.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(process.is_running(), "{burst}");
    }
}

#[tokio::test]
async fn a_stop_from_within_leaves_the_first_signal_its_meaning() {
    let mut process = start(&[(STOPS_ITSELF, "1")]);
    process.printed("started", WITHIN).await;
    process.signal("TERM");
    process.printed("ends the process at once", WITHIN).await;
    assert!(process.is_running(), "it drains");
}

/// A host with its own subscriber, recorder and signal handlers nests the router.
#[tokio::test]
async fn a_host_keeps_its_own_logs_recorder_and_signals() {
    async fn get(router: &axum::Router, uri: &str) -> (StatusCode, String) {
        let request = Request::get(uri).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
    let own = || DaemonSettings::new("web").without_logs().without_signals();
    // Whether another recorder is installed does not matter: none is installed.
    let settings = own().with_metrics(|| "orders_total 7\n".to_owned());
    let daemon = Daemon::start(settings).await.unwrap();
    let web = axum::Router::new().nest("/internal", daemon.router());
    let metrics = get(&web, "/internal/metrics").await;
    assert_eq!(metrics, (StatusCode::OK, "orders_total 7\n".to_owned()));
    daemon.health.set_ready("store", Err("locked".to_owned()));
    let (status, text) = get(&web, "/internal/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(text, "[-]store: locked\n");
    assert_eq!(get(&web, "/internal/livez").await.0, StatusCode::OK);
    assert_eq!(daemon.health.admin(), None, "it serves nothing itself");

    let daemon = Daemon::start(own().without_recorder()).await.unwrap();
    let (status, _) = get(&daemon.router(), "/metrics").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}
