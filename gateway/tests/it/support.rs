//! A whole gateway in this process, on a free port, and a client that writes bytes to a socket.

use evenkeel::kafka::KafkaConfig;
use evenkeel::telemetry::Health;
use evenkeel::testing::{KafkaKind, TestKafka};
use evenkeel_gateway::server::{
    AccessSettings, Gateway, GatewaySettings, StopReport, StoreAddress,
};
use std::net::SocketAddr;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// The longest wait for anything that the tests expect.
pub(crate) const WITHIN: Duration = Duration::from_secs(30);

/// The name of every gateway of these tests.
pub(crate) const WORKER: &str = "gateway-of-tests";

/// An order as the event `shop.order-placed.v1` has it.
pub(crate) const ORDER: &str = r#"{
    "order_id": "o-2041",
    "customer_id": "c-17",
    "lines": [{"article": "kettle", "quantity": 1, "price_cents": 4900}],
    "total_cents": 4900,
    "placed_at": "2026-11-21T08:15:30Z"
}"#;

/// A gateway that runs until it is stopped or dropped.
pub(crate) struct TestGateway {
    /// The public address.
    pub(crate) address: SocketAddr,
    /// What it reports.
    pub(crate) health: Health,
    /// Cancelled to stop it.
    pub(crate) stop: CancellationToken,
    running: JoinHandle<anyhow::Result<StopReport>>,
    /// The folder of its store.
    _directory: TempDir,
}

impl TestGateway {
    /// A gateway without authentication, with a SQLite store of its own, on this Kafka.
    pub(crate) async fn start(kafka: &KafkaConfig) -> Self {
        Self::start_with(kafka, |settings| settings).await
    }

    /// [`start`](Self::start) with other settings.
    pub(crate) async fn start_with(
        kafka: &KafkaConfig,
        change: impl FnOnce(GatewaySettings) -> GatewaySettings,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a temporary folder");
        let store = StoreAddress::Sqlite(directory.path().join("gateway.db"));
        let settings = GatewaySettings::new(kafka.clone(), AccessSettings::Open, WORKER)
            .with_listen(([127, 0, 0, 1], 0).into())
            .with_store(store);
        let health = Health::default();
        let gateway = Box::pin(Gateway::open(change(settings), health.clone())).await;
        let gateway = gateway.expect("the gateway opens");
        let (address, stop) = (gateway.local_addr(), CancellationToken::new());
        let running = tokio::spawn(Box::pin(gateway.run(stop.clone())));
        Self {
            address,
            health,
            stop,
            running,
            _directory: directory,
        }
    }

    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Sends a request on a connection of its own.
    pub(crate) async fn send(&self, request: impl AsRef<[u8]>) -> Answer {
        exchange(self.address, request).await
    }

    /// Stops it, and waits for the end.
    pub(crate) async fn stopped(self) -> StopReport {
        self.stop.cancel();
        let ended = timeout(WITHIN, self.running).await.expect("it stops");
        ended.expect("it does not panic").expect("its relay works")
    }
}

/// The mock cluster with the shop's topics, in this process.
pub(crate) async fn mock_kafka() -> TestKafka {
    let kafka = TestKafka::start(KafkaKind::Mock).await;
    let kafka = kafka.expect("the mock needs nothing");
    for topic in shop_schemas::topics() {
        let made = kafka.create_topic(&topic.name, 4).await;
        made.expect("the mock has no topics yet");
    }
    kafka
}

/// The answer to a request, as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status; 0 if the connection was closed without an answer.
    pub(crate) status: u16,
    /// All of it.
    pub(crate) text: String,
}

impl Answer {
    fn read(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let status = text
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3));
        Self {
            status: status.and_then(|status| status.parse().ok()).unwrap_or(0),
            text,
        }
    }

    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let head = self.text.split("\r\n\r\n").next()?;
        head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// A request of HTTP/1.1 that asks for the end of the connection.
pub(crate) fn request(
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: 127.0.0.1\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if method == "POST" {
        head += &format!("content-length: {}\r\n", body.len());
    }
    head += "connection: close\r\n\r\n";
    [head.as_bytes(), body].concat()
}

/// A request that posts an event of this type.
pub(crate) fn post(ty: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let json = ("content-type", "application/json");
    let headers: Vec<_> = headers.iter().copied().chain([json]).collect();
    request("POST", &format!("/events/{ty}"), &headers, body)
}

/// Writes a request, and reads until the connection is closed.
pub(crate) async fn exchange(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    let stream = TcpStream::connect(address).await;
    let mut stream = stream.expect("the gateway accepts connections");
    // The gateway may answer and close before it has read all of it.
    let _ = stream.write_all(request.as_ref()).await;
    read_answer(&mut stream).await
}

/// Reads until the connection is closed.
pub(crate) async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> Answer {
    let mut bytes = Vec::new();
    let read = timeout(WITHIN, stream.read_to_end(&mut bytes)).await;
    // A reset ends the connection, too.
    let _ = read.expect("the gateway closes the connection");
    Answer::read(&bytes)
}
