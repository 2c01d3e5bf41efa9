//! Pages of other origins in Chromium: what they cannot do, and what an allowed one can.
//!
//! Needs `node`, Chromium, and `npm install --prefix gateway/tests/browser`. Without one of them
//! the test is skipped, or fails with `EVENKEEL_REQUIRE_BROWSER=1`. The pages are empty; the script
//! `gateway/tests/browser/origins.mjs` runs its code in them and prints what became of it.

use super::PLACED;
use crate::support::{ORDER, WITHIN, exchange, mock_kafka, post};
use evenkeel::telemetry::say;
use evenkeel::testing::{ChildProcess, TestKafka, eventually, read_topic};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Set to `1`, the test fails where it would be skipped.
const REQUIRE: &str = "EVENKEEL_REQUIRE_BROWSER";
/// The path of Chromium, if it is not [`CHROMIUM_DEFAULT`].
const CHROMIUM: &str = "EVENKEEL_CHROMIUM";
const CHROMIUM_DEFAULT: &str = "/usr/bin/chromium";
/// Longer than the script waits for each of its steps.
const SCRIPT_WITHIN: Duration = Duration::from_secs(180);

const TOPIC: &str = "shop.orders";
const SECRET: &str = "a-secret-in-a-url";

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/origins.mjs")
}

/// The path of Chromium, if everything is installed.
fn installed() -> Option<String> {
    let chromium = std::env::var(CHROMIUM).unwrap_or_else(|_| CHROMIUM_DEFAULT.to_owned());
    let modules = script().with_file_name("node_modules/playwright-core");
    let node = std::process::Command::new("node").arg("--version").output();
    let missing = match node {
        Err(error) => format!("node: {error}"),
        Ok(_) if !modules.exists() => "npm install --prefix gateway/tests/browser".to_owned(),
        Ok(_) if !Path::new(&chromium).exists() => format!("there is no {chromium}"),
        Ok(_) => return Some(chromium),
    };
    let required = std::env::var(REQUIRE).as_deref() == Ok("1");
    assert!(
        !required,
        "{REQUIRE}=1 is set, so this test must not be skipped: {missing}"
    );
    say(&format!("skipped the test in a browser: {missing}"));
    None
}

/// Binds a free port of this machine.
async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await;
    let listener = listener.expect("a port of 127.0.0.1 is free");
    let port = listener.local_addr().expect("it is bound").port();
    (listener, port)
}

/// Serves an empty page at every path. Returns its port.
async fn pages() -> u16 {
    const PAGE: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 15\r\n\
                        connection: close\r\n\r\n<!doctype html>";
    let (listener, port) = listener().await;
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 4096];
                // A head of a browser comes in one part.
                if socket.read(&mut head).await.is_ok_and(|length| length > 0) {
                    // A browser that leaves needs no page.
                    let _ = socket.write_all(PAGE.as_bytes()).await;
                }
            });
        }
    });
    port
}

/// A way to the gateway whose connections can be cut.
struct Cuttable {
    port: u16,
    cuts: watch::Sender<u32>,
}

impl Cuttable {
    async fn to(gateway: SocketAddr) -> Self {
        let (listener, port) = listener().await;
        let cuts = watch::Sender::new(0);
        let cut = cuts.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut cut = cut.subscribe();
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(gateway).await else {
                        return;
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { port, cuts }
    }

    /// Cuts all connections.
    fn cut(&self) {
        self.cuts.send_modify(|count| *count += 1);
    }
}

/// The gateway as a process. A page at this origin may use it.
struct Gateway {
    process: ChildProcess,
    address: SocketAddr,
}

impl Gateway {
    async fn start(kafka: &TestKafka, directory: &Path, allowed: &str) -> Self {
        let (free, port) = listener().await;
        drop(free);
        let store = directory.join("gateway.db");
        let mut command = ChildProcess::command(env!("CARGO_BIN_EXE_gateway"));
        command
            .args(["--no-auth", "--brokers", kafka.brokers()])
            .args(["--listen", &port.to_string(), "--allowed-origin", allowed])
            .args(["--store", &format!("sqlite:{}", store.display())])
            .args(["--stop-within", "10s"])
            .env("RUST_LOG", "info,evenkeel_gateway=debug");
        let process = ChildProcess::start(command).expect("the gateway is built");
        process.printed("listening", WITHIN).await;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Self { process, address }
    }

    async fn order(&self, order_id: &str) {
        let order = ORDER.replace("o-2041", order_id);
        let answer = exchange(self.address, post(PLACED, &[], order.as_bytes())).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
    }
}

/// The keys of the orders on the topic.
async fn ordered(kafka: &TestKafka) -> BTreeSet<String> {
    let records = read_topic(&kafka.config(), TOPIC, WITHIN).await;
    let keys = records.iter().filter_map(|record| record.key.as_deref());
    keys.map(|key| String::from_utf8_lossy(key).into_owned())
        .collect()
}

/// Starts the script, and acts at its steps. Returns its lines about pages.
async fn run(settings: &Value, gateway: &Gateway, way: &Cuttable) -> Vec<Value> {
    let mut command = ChildProcess::command("node");
    command.arg(script()).arg(settings.to_string());
    let script = ChildProcess::start(command).expect("node starts");
    script.printed(r#""step":"watching""#, SCRIPT_WITHIN).await;
    gateway.order("streamed-1").await;
    gateway.order("streamed-2").await;
    script.printed(r#""step":"cut""#, SCRIPT_WITHIN).await;
    way.cut();
    // Published while the page has no connection: it reconnects after 2 s.
    gateway.order("streamed-3").await;
    gateway.order("streamed-4").await;
    let rows = script.finished(SCRIPT_WITHIN).await.code(0).rows();
    rows.into_iter()
        .filter(|row| row.get("page").is_some())
        .collect()
}

fn check_foreign(row: &Value) {
    for (attempt, expected) in [
        ("jsonPost", json!("TypeError")),
        ("read", json!("TypeError")),
        ("eventSource", json!("refused")),
        ("webSocket", json!("refused")),
        ("form", json!(403)),
    ] {
        assert_eq!(row[attempt], expected, "{attempt}: {row}");
    }
    // A browser may hide even that there was an answer.
    let simple = &row["simplePost"];
    assert!(
        *simple == json!("opaque") || *simple == json!("TypeError"),
        "{row}"
    );
}

fn check_allowed(row: &Value) {
    for (attempt, expected) in [
        ("jsonPost", json!(202)),
        ("read", json!(200)),
        ("eventSource", json!("open")),
        ("webSocket", json!("heartbeat")),
    ] {
        assert_eq!(row[attempt], expected, "{attempt}: {row}");
    }
    // In the order of its key only, so sorted here; once each, over two connections.
    let seen = row["seen"].as_array().expect("a list").iter();
    // The page's own order may come too.
    let mut seen: Vec<&str> = seen
        .filter_map(Value::as_str)
        .filter(|order_id| order_id.starts_with("streamed-"))
        .collect();
    seen.sort_unstable();
    assert_eq!(
        seen,
        ["streamed-1", "streamed-2", "streamed-3", "streamed-4"],
        "{row}"
    );
    assert_eq!(row["opened"], json!(2), "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_are_refused_in_chromium() {
    let Some(chromium) = installed() else { return };
    let kafka = mock_kafka().await;
    let directory = tempfile::tempdir().expect("a temporary folder");
    let (foreign, own) = (pages().await, pages().await);
    let allowed = format!("http://localhost:{own}");
    let gateway = Gateway::start(&kafka, directory.path(), &allowed).await;
    let way = Cuttable::to(gateway.address).await;
    let settings = json!({
        "chromium": chromium,
        "gateway": format!("http://{}", gateway.address),
        "through": format!("http://127.0.0.1:{}", way.port),
        // Another site, and the same site with another port.
        "foreign": [format!("http://localhost:{foreign}"), format!("http://127.0.0.1:{foreign}")],
        "allowed": allowed,
        "secret": SECRET,
    });
    let rows = run(&settings, &gateway, &way).await;
    let kinds: Vec<&str> = rows.iter().filter_map(|row| row["page"].as_str()).collect();
    assert_eq!(
        kinds,
        ["foreign", "foreign", "token", "allowed"],
        "{rows:?}"
    );
    check_foreign(&rows[0]);
    check_foreign(&rows[1]);
    assert_eq!(
        rows[2],
        json!({"page": "token", "status": 400, "shows": false})
    );
    check_allowed(&rows[3]);

    eventually("the orders are published", WITHIN, || async {
        (ordered(&kafka).await.len() >= 5).then_some(())
    })
    .await;
    gateway.process.signal("TERM");
    let finished = gateway.process.finished(WITHIN).await.code(0);
    let ordered = ordered(&kafka).await;
    let expected = [
        "allowed-json",
        "streamed-1",
        "streamed-2",
        "streamed-3",
        "streamed-4",
    ];
    assert_eq!(ordered, BTreeSet::from(expected.map(str::to_owned)));
    assert!(
        finished.stderr.contains("/events"),
        "requests are logged: {}",
        finished.stderr
    );
    assert!(!finished.stderr.contains(SECRET), "{}", finished.stderr);
}
