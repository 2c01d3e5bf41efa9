//! The Docker engine, the image of Apache Kafka with its environment, and the `docker` command.

use crate::telemetry::say;
use crate::testing::kafka::broker::{HEAP, READY_LINE, SETTINGS, VERSION, cluster_id};
use crate::testing::process::subprocess;
use crate::testing::{StartError, wait};
use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// The image's name without its tag. The tag is the version.
pub(super) const IMAGE: &str = "apache/kafka";

/// The container port that is mapped to a port of this machine.
pub(in crate::testing) const PORT: u16 = 9092;

/// Time limit of a connection attempt. A port of this machine answers immediately or not at all.
const PROBE_LIMIT: Duration = Duration::from_millis(500);
const ENGINE_LIMIT: Duration = Duration::from_secs(10);
const PULL_LIMIT: Duration = Duration::from_secs(600);
pub(super) const START_LIMIT: Duration = Duration::from_secs(90);

/// Time limit of a command. A busy engine creates a container slowly.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// The container's command. Kafka must know its port on this machine, which is mapped only after
/// the container runs.
pub(super) const RUN_WHEN_ADVERTISED: &str = "while [ ! -s /tmp/advertised ]; do sleep 0.05; done; \
    KAFKA_ADVERTISED_LISTENERS=$(cat /tmp/advertised) exec /etc/kafka/docker/run";

/// Writes the advertised listeners `$1` for the waiting command, atomically.
pub(super) const ADVERTISE: &str =
    r#"echo "$1" >/tmp/advertised.part && mv /tmp/advertised.part /tmp/advertised"#;

/// Runs the `docker` command. Returns its standard output.
pub(in crate::testing) async fn run(arguments: &[impl AsRef<OsStr>]) -> Result<String, StartError> {
    subprocess::output("docker", arguments, COMMAND_LIMIT)
        .await
        .map_err(StartError::docker)
}

/// Whether there is a container of this name among those that `which` selects, an argument of
/// `docker ps`.
pub(in crate::testing) async fn exists(name: &str, which: &str) -> Result<bool, StartError> {
    let filter = format!("--filter=name=^{name}$");
    let found = run(&["ps", which, "--quiet", &filter]).await?;
    Ok(!found.trim().is_empty())
}

pub(in crate::testing) async fn is_running(name: &str) -> Result<bool, StartError> {
    exists(name, "--filter=status=running").await
}

/// Waits until Kafka in the container is ready.
pub(in crate::testing) async fn await_ready(name: &str) -> Result<(), StartError> {
    let started = Instant::now();
    loop {
        let running = is_running(name).await?;
        let log = run(&["logs", name]).await?;
        if log.contains(READY_LINE) {
            return Ok(());
        }
        if !running || started.elapsed() > START_LIMIT {
            let reason = subprocess::last_line(&log, "");
            return Err(StartError::docker(format!("Kafka did not start: {reason}")));
        }
        tokio::time::sleep(10 * wait::POLL_INTERVAL).await;
    }
}

/// A Docker engine that answers and has the image.
pub(in crate::testing) struct Engine {
    version: String,
    image_origin: &'static str,
}

impl Engine {
    /// Connects to the engine and finds the image. Pulls the image if it is missing.
    pub(in crate::testing) async fn find() -> Result<Self, StartError> {
        let version = subprocess::output(
            "docker",
            ["version", "--format", "{{.Server.Version}}"],
            ENGINE_LIMIT,
        )
        .await
        .map_err(StartError::docker)?;
        let image = image();
        let inspected =
            subprocess::output("docker", ["image", "inspect", &image], ENGINE_LIMIT).await;
        let image_origin = if inspected.is_ok() {
            "found locally"
        } else {
            say(&format!("pulling the image {image}, once"));
            subprocess::output("docker", ["pull", "--quiet", &image], PULL_LIMIT)
                .await
                .map_err(|reason| StartError::docker(format!("no image {image}: {reason}")))?;
            "pulled"
        };
        Ok(Self {
            version: version.trim().to_owned(),
            image_origin,
        })
    }
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Docker {}, image {} {}",
            self.version,
            image(),
            self.image_origin
        )
    }
}

/// The image's name with its tag.
pub(in crate::testing) fn image() -> String {
    format!("{IMAGE}:{VERSION}")
}

/// The environment from which the image's wrapper writes our `server.properties`.
pub(super) fn environment() -> Vec<(String, String)> {
    let listeners = format!("PLAINTEXT://:{PORT},BROKER://:9093,CONTROLLER://:9094");
    let mut variables = vec![
        ("CLUSTER_ID".to_owned(), cluster_id()),
        ("KAFKA_HEAP_OPTS".to_owned(), HEAP.join(" ")),
        ("KAFKA_LISTENERS".to_owned(), listeners),
        (
            "KAFKA_CONTROLLER_QUORUM_VOTERS".to_owned(),
            "1@localhost:9094".to_owned(),
        ),
    ];
    for (name, value) in SETTINGS {
        let variable = format!("KAFKA_{}", name.to_uppercase().replace('.', "_"));
        variables.push((variable, value.to_owned()));
    }
    variables
}

/// [`environment`] as arguments of `docker run`.
pub(in crate::testing) fn environment_arguments() -> impl Iterator<Item = String> {
    environment()
        .into_iter()
        .map(|(variable, value)| format!("--env={variable}={value}"))
}

/// The advertised listeners, for clients on this machine and for Kafka inside the container.
pub(in crate::testing) fn advertised(host: &str, port: u16) -> String {
    format!("PLAINTEXT://{host}:{port},BROKER://localhost:9093")
}

/// The only address of the engine's machine on which the port is published: 127.0.0.1, because the
/// broker requires no password. None for all addresses: inside a container, or with a remote
/// engine, 127.0.0.1 may be wrong.
pub(super) fn publish_address() -> Option<Ipv4Addr> {
    let may_be_elsewhere = remote_engine().is_some() || is_in_container();
    (!may_be_elsewhere).then_some(Ipv4Addr::LOCALHOST)
}

/// Whether a published port is reached at 127.0.0.1. `may_be_elsewhere`: the caller knows another
/// address that may be the right one, so 127.0.0.1 is tried. Never with a remote engine.
///
/// If this process runs in a container, the engine may run in the same container, and then
/// 127.0.0.1 works; or outside of it, and then only the gateway of Docker's bridge does. Docker
/// listens before Kafka does.
pub(super) fn is_reached_at_loopback(port: u16, may_be_elsewhere: bool) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let answers = || TcpStream::connect_timeout(&address, PROBE_LIMIT).is_ok();
    remote_engine().is_none() && (!may_be_elsewhere || answers())
}

/// The host of the engine if `DOCKER_HOST` names one that is reached by TCP.
pub(super) fn remote_engine() -> Option<String> {
    host_of(&std::env::var("DOCKER_HOST").ok()?)
}

/// `engine.test` from `tcp://engine.test:2375`.
fn host_of(engine: &str) -> Option<String> {
    let address = engine.strip_prefix("tcp://")?;
    let address = address.split('/').next().unwrap_or_default();
    let host = match address.rsplit_once(':') {
        // Not a colon of an IPv6 address without a port.
        Some((host, port)) if !port.ends_with(']') => host,
        _ => address,
    };
    Some(host.to_owned())
}

/// Whether this process runs in a container of Docker.
pub(super) fn is_in_container() -> bool {
    Path::new("/.dockerenv").exists()
}

#[cfg(test)]
mod tests {
    use super::host_of;

    #[test]
    fn a_remote_engine_is_named_by_its_host() {
        assert_eq!(
            host_of("tcp://engine.test:2375").as_deref(),
            Some("engine.test")
        );
        assert_eq!(host_of("tcp://10.0.0.1").as_deref(), Some("10.0.0.1"));
        assert_eq!(
            host_of("tcp://[fd00::1]:2376/").as_deref(),
            Some("[fd00::1]")
        );
        assert_eq!(host_of("tcp://[fd00::1]").as_deref(), Some("[fd00::1]"));
        assert_eq!(host_of("unix:///var/run/docker.sock"), None);
    }
}
