//! A balancer and two gateways as processes, with ports and a store of their own.
//!
//! Knows how each balancer is started. Knows no request but those that show that a process serves.

use evenkeel::outbox::{OutboxStore, SqliteOutbox};
use evenkeel::telemetry::say;
use evenkeel::testing::{ChildProcess, eventually};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// Longer than any step takes on a busy machine.
pub(super) const WITHIN: Duration = Duration::from_secs(90);
/// Pause between two looks at a process that starts.
const POLL: Duration = Duration::from_millis(50);
/// Set to `1`, the test of a missing balancer fails.
const REQUIRE: &str = "EVENKEEL_REQUIRE_BALANCERS";

/// The names of the gateways.
pub(super) const GATEWAYS: [&str; 2] = ["gateway-a", "gateway-b"];

/// A balancer, and its example.
#[derive(Debug, Clone, Copy)]
pub(super) struct Balancer {
    pub(super) program: &'static str,
    /// The name of the configuration file.
    pub(super) example: &'static str,
    /// What precedes that name on the command line. In the foreground, in one process, so that
    /// nothing outlives the test.
    arguments: &'static [&'static str],
}

pub(super) const HAPROXY: Balancer = Balancer {
    program: "haproxy",
    example: "haproxy.cfg",
    arguments: &["-db", "-f"],
};

pub(super) const NGINX: Balancer = Balancer {
    program: "nginx",
    example: "nginx.conf",
    arguments: &[
        "-p",
        ".",
        "-e",
        "stderr",
        "-g",
        "daemon off; master_process off;",
        "-c",
    ],
};

pub(super) const ENVOY: Balancer = Balancer {
    program: "envoy",
    example: "envoy.yaml",
    arguments: &[
        "--disable-hot-restart",
        "--concurrency",
        "2",
        "--log-level",
        "warning",
        "-c",
    ],
};

/// What a test needs, or none if it is missing.
///
/// # Panics
/// If it is missing, and `EVENKEEL_REQUIRE_BALANCERS=1` is set.
pub(super) fn required<T>(needed: Result<T, String>) -> Option<T> {
    let missing = match needed {
        Ok(needed) => return Some(needed),
        Err(missing) => missing,
    };
    assert!(
        std::env::var(REQUIRE).as_deref() != Ok("1"),
        "{REQUIRE}=1 is set, so this test must not be skipped: {missing}"
    );
    say(&format!("skipped in a test of balancers: {missing}"));
    None
}

impl Balancer {
    /// Whether it can be run. If not, the test is skipped.
    ///
    /// # Panics
    /// If not, and `EVENKEEL_REQUIRE_BALANCERS=1` is set.
    pub(super) fn is_installed(&self) -> bool {
        // Whatever it makes of the flag.
        let mut command = std::process::Command::new(self.program);
        let run = command.arg("-v").output();
        let program = self.program;
        let missing =
            |error: std::io::Error| format!("the program `{program}` cannot be run: {error}");
        required(run.map_err(missing)).is_some()
    }

    /// The example with these ports.
    pub(super) fn configuration(&self, ports: &Ports) -> String {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/balancers");
        let text = std::fs::read_to_string(examples.join(self.example));
        let text = text.expect("the example is readable");
        let places = [
            ("@LISTEN@", ports.http),
            ("@LISTEN_GRPC@", ports.grpc),
            ("@A@", ports.public[0]),
            ("@B@", ports.public[1]),
            ("@A_ADMIN@", ports.admin[0]),
            ("@B_ADMIN@", ports.admin[1]),
        ];
        let replace =
            |text: String, (place, port): (&str, u16)| text.replace(place, &port.to_string());
        places.into_iter().fold(text, replace)
    }
}

/// The ports of a balancer and its gateways.
#[derive(Debug)]
pub(super) struct Ports {
    pub(super) http: u16,
    pub(super) grpc: u16,
    pub(super) public: [u16; 2],
    pub(super) admin: [u16; 2],
    /// Where the orderboards answer the gateways.
    pub(super) orderboard: [u16; 2],
}

impl Ports {
    /// Ports that were free at the time of the call.
    fn free() -> Self {
        let listeners: [TcpListener; 8] = std::array::from_fn(|_| {
            TcpListener::bind("127.0.0.1:0").expect("a port of 127.0.0.1 is free")
        });
        // All are bound at the same time, so that no two are the same.
        let ports = listeners.each_ref().map(|listener| listener.local_addr());
        let [http, grpc, a, b, a_admin, b_admin, board_a, board_b] =
            ports.map(|address| address.expect("it is bound").port());
        Self {
            http,
            grpc,
            public: [a, b],
            admin: [a_admin, b_admin],
            orderboard: [board_a, board_b],
        }
    }
}

/// Where the processes of a test run.
pub(super) struct Place {
    brokers: String,
    directory: TempDir,
    pub(super) ports: Ports,
}

impl Place {
    pub(super) fn new(brokers: &str) -> Self {
        Self {
            brokers: brokers.to_owned(),
            directory: tempfile::tempdir().expect("a temporary folder"),
            ports: Ports::free(),
        }
    }

    /// The balancer's URL.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.http)
    }

    pub(super) fn brokers(&self) -> &str {
        &self.brokers
    }

    /// A file of the test.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The file of the store that both gateways use.
    fn store(&self) -> PathBuf {
        self.file("gateway.db")
    }

    fn spawn_gateway(&self, number: usize) -> ChildProcess {
        let ports = self.ports.orderboard;
        let orderboard = |index: usize| format!("http://127.0.0.1:{}", ports[index]);
        let mut command = ChildProcess::command(env!("CARGO_BIN_EXE_gateway"));
        command
            .args(["--no-auth", "--brokers", &self.brokers])
            .args(["--listen", &self.ports.public[number].to_string()])
            .args(["--admin", &self.ports.admin[number].to_string()])
            .args(["--store", &format!("sqlite:{}", self.store().display())])
            .args(["--worker-name", GATEWAYS[number]])
            .args([
                "--orderboard",
                &orderboard(0),
                "--orderboard",
                &orderboard(1),
            ])
            // As the examples say: longer than the balancers' checks take to notice.
            .args(["--pre-stop-delay", "3s", "--stop-within", "20s"])
            .env("RUST_LOG", "warn")
            .stderr(Stdio::inherit());
        ChildProcess::start(command).expect("the gateway is built")
    }

    /// Starts a gateway, and waits until it is ready.
    pub(super) async fn gateway(&self, number: usize) -> ChildProcess {
        let ready = format!("http://127.0.0.1:{}/readyz", self.ports.admin[number]);
        let start = async {
            loop {
                let mut process = self.spawn_gateway(number);
                while process.is_running() {
                    if is_ok(&ready).await {
                        return process;
                    }
                    sleep(POLL).await;
                }
                // A connection of another process may have taken the port for a moment.
                sleep(Duration::from_secs(1)).await;
            }
        };
        let started = timeout(WITHIN, start).await;
        started.expect("the gateway becomes ready")
    }

    /// Starts the balancer, and waits until it passes requests on.
    pub(super) async fn balancer(&self, balancer: &Balancer) -> ChildProcess {
        let directory = self.directory.path();
        let configuration = balancer.configuration(&self.ports);
        let written = std::fs::write(directory.join(balancer.example), configuration);
        written.expect("the folder is writable");
        let mut command = ChildProcess::command(balancer.program);
        command
            .args(balancer.arguments)
            .arg(balancer.example)
            .current_dir(directory);
        let mut process = ChildProcess::start(command).expect("it is installed");
        let served = format!("{}/openapi.json", self.url());
        let start = async {
            while process.is_running() {
                if is_ok(&served).await {
                    return true;
                }
                sleep(POLL).await;
            }
            false
        };
        let started = timeout(WITHIN, start).await;
        match started {
            Ok(true) => process,
            Ok(false) => {
                let ended = process.finished(WITHIN).await;
                panic!("{} ended: {ended}", balancer.program)
            }
            Err(_) => panic!("{} passes no request on", balancer.program),
        }
    }

    /// Waits until the brokers have everything, also what a killed gateway had leased.
    pub(super) async fn outbox_is_empty(&self) {
        let outbox = SqliteOutbox::open(&self.store()).await;
        let outbox = OutboxStore::from(outbox.expect("the store opens"));
        eventually("the outbox is empty", WITHIN, || async {
            let status = outbox.status().await.ok()?;
            (status.pending == 0).then_some(())
        })
        .await;
    }
}

/// Whether a GET is answered with success.
async fn is_ok(url: &str) -> bool {
    let answer = reqwest::get(url).await;
    answer.is_ok_and(|answer| answer.status().is_success())
}
