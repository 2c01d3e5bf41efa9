//! The binary `gateway` under attack: what it answers, what it costs, and what it logs.
//!
//! The test of 10,000 idle connections needs `python3` and a hard limit of 16,384 open files. It
//! runs with `EVENKEEL_LONG_TESTS=1`.

use super::super::PLACED;
use crate::support::{ORDER, WITHIN, exchange, post, read_answer, request};
use evenkeel::telemetry::say;
use evenkeel::testing::{ChildProcess, Finished};
use std::net::SocketAddr;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// Raises the limit of open files for the program in the other arguments, and becomes it.
const WITH_FILES: &str = r#"ulimit -n 16384; exec "$0" "$@""#;

/// Holds idle connections, and tells when all were opened, and when the other side closed all.
const HOLD: &str = "\
import select, socket, sys
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
poll, held = select.epoll(), {}
for _ in range(count):
    connection = socket.create_connection((host, port))
    held[connection.fileno()] = connection
    poll.register(connection, select.EPOLLIN | select.EPOLLRDHUP)
print('opened', len(held), flush=True)
while held:
    for fd, _ in poll.poll():
        poll.unregister(fd)
        held.pop(fd).close()
print('closed', count, flush=True)
";

const IDLE_CONNECTIONS: u64 = 10_000;
/// What an HTTP/1.1 connection costs at most, as the docs say.
const CONNECTION_KIB_MAX: u64 = 40;
/// How long a connection may be idle in the test of many.
const IDLE_MAX: Duration = Duration::from_secs(20);

/// The bytes of a body that is too large, and of each part that is sent at once.
const BODY_BYTES: usize = 100 << 20;
const PART_BYTES: usize = 64 << 10;
/// Bodies that are too large at the same time.
const BODIES: usize = 8;
/// More than the gateway reads of such a body, and the buffers of both sockets.
const SENT_BYTES_MAX: usize = 32 << 20;
/// The growth of the process under all of them.
const BODIES_KIB_MAX: u64 = 48 << 10;

/// A gateway as its users run it, without brokers.
struct GatewayProcess {
    process: ChildProcess,
    address: SocketAddr,
    _directory: TempDir,
}

impl GatewayProcess {
    /// Starts it with this configuration and filter of its log.
    async fn start(config: &str, log: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary folder");
        let file = directory.path().join("gateway.toml");
        std::fs::write(&file, config).expect("the folder is writable");
        let store = directory.path().join("gateway.db");
        let mut command = ChildProcess::command("sh");
        command
            .args(["-c", WITH_FILES, env!("CARGO_BIN_EXE_gateway")])
            .args(["--no-auth", "--brokers", "127.0.0.1:1", "--listen", "0"])
            .args(["--store", &format!("sqlite:{}", store.display())])
            .args(["--worker-name", "gateway-of-tests", "--stop-within", "2s"])
            .arg("--config")
            .arg(&file)
            .env("RUST_LOG", log);
        let process = ChildProcess::start(command).expect("sh is there");
        let line = process.printed("listening", WITHIN).await;
        Self {
            address: listening(&line).unwrap_or_else(|| panic!("no address: {line}")),
            process,
            _directory: directory,
        }
    }

    /// Asserts that a new caller is served soon.
    async fn serves(&self) {
        let began = Instant::now();
        let answer = exchange(self.address, request("GET", "/problems/gone", &[], b"")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{:?}",
            began.elapsed()
        );
    }

    /// A value of the kernel's account of its memory, in KiB.
    fn memory_kib(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).expect("it runs on Linux");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        value.unwrap_or_else(|| panic!("no {name}: {status}"))
    }

    async fn stop(self) -> Finished {
        self.process.signal("TERM");
        self.process.finished(WITHIN).await
    }
}

/// The address in the line that reports it.
fn listening(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("127.0.0.1:")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some(([127, 0, 0, 1], digits.parse().ok()?).into())
}

/// Sends a body of 100 MB after a head, while it reads. Returns the status and the bytes sent.
async fn send_huge(address: SocketAddr, is_chunked: bool) -> (u16, usize) {
    let (length, part) = match is_chunked {
        false => (
            format!("content-length: {BODY_BYTES}"),
            vec![b' '; PART_BYTES],
        ),
        true => {
            let begin = format!("{PART_BYTES:x}\r\n").into_bytes();
            let part = [&begin[..], &vec![b' '; PART_BYTES], b"\r\n"].concat();
            ("transfer-encoding: chunked".to_owned(), part)
        }
    };
    let head = format!(
        "POST /events/{PLACED} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\
         {length}\r\n\r\n"
    );
    let stream = TcpStream::connect(address).await.expect("a connection");
    let (mut reads, mut writes) = stream.into_split();
    let writing = tokio::spawn(async move {
        let mut sent = 0;
        let mut is_open = writes.write_all(head.as_bytes()).await.is_ok();
        while is_open && sent < BODY_BYTES {
            is_open = writes.write_all(&part).await.is_ok();
            sent += part.len();
        }
        sent
    });
    let answer = read_answer(&mut reads).await;
    (answer.status, writing.await.expect("it does not panic"))
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_100_megabytes_are_refused_in_flat_memory() {
    let gateway = GatewayProcess::start("", "warn,evenkeel_gateway=info").await;
    gateway.serves().await;
    let before = gateway.memory_kib("VmRSS:");
    let began = Instant::now();
    let address = gateway.address;
    let sending = (0..BODIES).map(|number| tokio::spawn(send_huge(address, number % 2 == 1)));
    let sending: Vec<_> = sending.collect();
    for task in sending {
        let (status, sent) = task.await.expect("it does not panic");
        assert_eq!(status, 413);
        assert!(sent < SENT_BYTES_MAX, "{sent} bytes were taken");
    }
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    gateway.serves().await;
    let grown = gateway.memory_kib("VmHWM:").saturating_sub(before);
    assert!(grown < BODIES_KIB_MAX, "the process grew by {grown} KiB");
    gateway.stop().await.code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_drips_is_cut() {
    let gateway = GatewayProcess::start("", "warn,evenkeel_gateway=info").await;
    let stream = TcpStream::connect(gateway.address).await;
    let (mut reads, mut writes) = stream.expect("a connection").into_split();
    let dripping = tokio::spawn(async move {
        let mut due = tokio::time::interval(Duration::from_millis(250));
        let begin = b"GET /problems/gone HTTP/1.1\r\nx-drip: ";
        let mut is_open = writes.write_all(begin).await.is_ok();
        while is_open {
            due.tick().await;
            is_open = writes.write_all(b"a").await.is_ok();
        }
    });
    let began = Instant::now();
    let answer = timeout(WITHIN, read_answer(&mut reads))
        .await
        .expect("an end");
    assert_eq!(answer.status, 0, "{}", answer.text);
    // 8 s, the pause between two sweeps, and the time of a close.
    assert!(
        began.elapsed() < Duration::from_millis(11_500),
        "{:?}",
        began.elapsed()
    );
    dripping.abort();
    gateway.serves().await;
    gateway.stop().await.code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_reaches_the_log() {
    const SECRET: &str = "a-secret-of-a-caller";
    let gateway = GatewayProcess::start("", "debug").await;
    let bearer = format!("Bearer {SECRET}");
    let key = format!("\"{SECRET}\"");
    let body = ORDER.replace("c-17", SECRET);
    let get = |target: String| request("GET", &target, &[], b"");
    for (bytes, expected) in [
        (
            get(format!("/events?type={PLACED}&access_token={SECRET}")),
            400,
        ),
        (get(format!("/ws?type={PLACED}&token={SECRET}")), 400),
        (get(format!("/events/x?API%5FKEY={SECRET}")), 400),
        (get(format!("/no-such-route?q={SECRET}")), 404),
        (
            request(
                "GET",
                "/problems/gone",
                &[("authorization", bearer.as_str())],
                b"",
            ),
            200,
        ),
        (
            request("GET", "/problems/gone", &[("cookie", SECRET)], b""),
            200,
        ),
        (
            post(
                PLACED,
                &[("idempotency-key", key.as_str())],
                body.as_bytes(),
            ),
            202,
        ),
        (
            post(PLACED, &[], format!("{{\"{SECRET}\": 1}}").as_bytes()),
            422,
        ),
        (post(PLACED, &[], format!("{{\"{SECRET}").as_bytes()), 400),
    ] {
        let start: String = String::from_utf8_lossy(&bytes).chars().take(80).collect();
        let answer = exchange(gateway.address, bytes).await;
        assert_eq!(answer.status, expected, "{start:?}: {}", answer.text);
    }
    let finished = gateway.stop().await;
    let log = &finished.stderr;
    assert!(log.contains("/events/{name}"), "requests are logged: {log}");
    let line = log.lines().find(|line| line.contains(SECRET));
    assert_eq!(line, None, "the secret is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_hinder_nobody() {
    if std::env::var_os("EVENKEEL_LONG_TESTS").is_none() {
        say("skipped the test of 10,000 idle connections: EVENKEEL_LONG_TESTS is not set");
        return;
    }
    let config = format!("idle_timeout = \"{}s\"\n", IDLE_MAX.as_secs());
    let gateway = GatewayProcess::start(&config, "warn,evenkeel_gateway=info").await;
    gateway.serves().await;
    let before = gateway.memory_kib("VmRSS:");
    let (port, count) = (
        gateway.address.port().to_string(),
        IDLE_CONNECTIONS.to_string(),
    );
    let mut command = ChildProcess::command("sh");
    command
        .args(["-c", WITH_FILES, "python3", "-c", HOLD])
        .args(["127.0.0.1", &port, &count]);
    let holder = ChildProcess::start(command).expect("sh is there");
    holder.printed("opened", WITHIN).await;
    for _ in 0..200 {
        gateway.serves().await;
    }
    let grown = gateway.memory_kib("VmHWM:").saturating_sub(before);
    let bound = IDLE_CONNECTIONS * CONNECTION_KIB_MAX;
    assert!(grown < bound, "the process grew by {grown} KiB");
    say(&format!("10,000 idle connections cost {grown} KiB"));
    holder.printed("closed", IDLE_MAX + WITHIN).await;
    holder.finished(WITHIN).await.code(0);
    gateway.serves().await;
    gateway.stop().await.code(0);
}
