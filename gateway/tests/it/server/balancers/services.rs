//! The shop's services behind the gateways: two of each, which share a group and a store.
//!
//! Knows how they are started, and that each order has one effect in the inventory. They are the
//! binaries of `shop-consumers`, beside that of the gateway.

use super::processes::{Place, WITHIN, required};
use evenkeel::testing::ChildProcess;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// The service that answers `GET /orders/{id}`.
const ORDERBOARD: &str = "orderboard";
const SERVICES: [&str; 5] = [
    "payments",
    "inventory",
    "shipping",
    "notifications",
    ORDERBOARD,
];

/// Two processes of each service.
pub(super) struct Services(Vec<ChildProcess>);

fn program(service: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_gateway")).with_file_name(service)
}

impl Services {
    /// Starts them. None where they are not built: then there is nothing to be said of effects.
    pub(super) fn start(place: &Place) -> Option<Self> {
        let missing = SERVICES.iter().find(|service| !program(service).exists());
        if let Some(service) = missing {
            let text = format!("`{service}` is not built: cargo build -p shop-consumers --bins");
            return required(Err(text));
        }
        let mut processes = Vec::new();
        for service in SERVICES {
            for number in 0..2 {
                processes.push(start(service, number, place));
            }
        }
        Some(Self(processes))
    }

    /// Stops them. Each has handled and committed what it began.
    pub(super) async fn stop(self) {
        for process in &self.0 {
            process.signal("TERM");
        }
        for process in self.0 {
            process.finished(WITHIN).await.code(0);
        }
    }
}

fn start(service: &str, number: usize, place: &Place) -> ChildProcess {
    let mut command = ChildProcess::command(program(service));
    command
        .args(["--brokers", place.brokers(), "--drain-timeout", "10s"])
        // The services are not killed here, and there is no power failure.
        .args(["--durability", "process-crash", "--store"])
        .arg(place.file(&format!("{service}.db")))
        .env("RUST_LOG", "warn")
        .stderr(Stdio::inherit());
    if service == ORDERBOARD {
        let port = place.ports.orderboard[number];
        command.args(["--api", &format!("127.0.0.1:{port}")]);
    }
    ChildProcess::start(command).expect("the service is built")
}
