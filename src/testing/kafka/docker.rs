//! Apache Kafka in a container: the official image, or a local image of the same name. Uses the
//! `docker` command.
//!
//! Two difficulties shape this file:
//! - Kafka must advertise the address under which clients reach it, and the port on this machine is
//!   known only after the container runs. So the container's command waits for a file with the
//!   address, and starts Kafka then.
//! - A container outlives the process that started it. So a reaper removes it when this process is
//!   gone, and is started before the container is created.

use super::broker::{HEAP, READY_LINE, SETTINGS, VERSION, cluster_id};
use super::cluster::{Backing, Freezer};
use crate::kafka::KafkaConfig;
use crate::telemetry::say;
use crate::testing::process::reaper::Reaper;
use crate::testing::process::subprocess;
use crate::testing::{KafkaKind, StartError, TestKafka, unique, wait};
use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// The image's name without its tag. The tag is the version.
const IMAGE: &str = "apache/kafka";

/// The container port that is mapped to a port of this machine.
pub(in crate::testing) const PORT: u16 = 9092;

/// Time limit of a connection attempt. A port of this machine answers immediately or not at all.
const PROBE_LIMIT: Duration = Duration::from_millis(500);
const ENGINE_LIMIT: Duration = Duration::from_secs(10);
const PULL_LIMIT: Duration = Duration::from_secs(600);
const START_LIMIT: Duration = Duration::from_secs(90);

/// Time limit of a command. A busy engine creates a container slowly.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// Removes the container `$1` when our end of the pipe closes. Retries in the background until one
/// removal succeeds: a busy engine may fail to kill in time, and a container whose creation was in
/// progress when we were killed appears later.
const REMOVE: &str = r#"read -r _
removed() { [ -n "$(docker rm --force --volumes "$1")" ]; }
removed "$1" && exit
for pause in 1 2 4 8 15 30 60; do
  sleep "$pause"
  removed "$1" && exit
done &"#;

/// The container's command. Kafka must know its port on this machine, which is mapped only after
/// the container runs.
const RUN_WHEN_ADVERTISED: &str = "while [ ! -s /tmp/advertised ]; do sleep 0.05; done; \
    KAFKA_ADVERTISED_LISTENERS=$(cat /tmp/advertised) exec /etc/kafka/docker/run";

/// Writes the advertised listeners `$1` for the waiting command, atomically.
const ADVERTISE: &str =
    r#"echo "$1" >/tmp/advertised.part && mv /tmp/advertised.part /tmp/advertised"#;

/// Starts a container, and returns when Kafka is ready.
pub(in crate::testing) async fn start() -> Result<TestKafka, StartError> {
    let engine = Engine::find().await?;
    let name = unique("evenkeel-kafka");
    // Started before the container exists, so that the container is removed even if we are killed
    // during its start.
    let reaper = Reaper::hold(REMOVE, [&name], Stdio::null())
        .map_err(|error| StartError::docker(error.to_string()))?;
    let mut arguments = vec!["run".to_owned(), "--detach".to_owned()];
    arguments.push(format!("--name={name}"));
    arguments.push(format!("--publish={}", publication()));
    arguments.extend(environment_arguments());
    arguments.push(image());
    arguments.extend(["sh", "-c", RUN_WHEN_ADVERTISED].map(str::to_owned));
    run(&arguments).await?;
    let port = published_port(&name).await?;
    let host = reachable(port).await;
    let listeners = advertised(&host, port);
    run(&["exec", &name, "sh", "-c", ADVERTISE, "sh", &listeners]).await?;
    await_ready(&name).await?;

    let brokers = format!("{host}:{port}");
    Ok(TestKafka {
        kind: KafkaKind::Docker,
        description: format!("Apache Kafka {VERSION} in {engine} at {brokers}"),
        config: KafkaConfig::new(brokers),
        backing: Backing::Started {
            _reaper: reaper,
            freezer: Freezer::Container(name),
        },
    })
}

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
            let reason = subprocess::last_words(&log, "");
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
fn environment() -> Vec<(String, String)> {
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

/// The port to publish, as an argument of `--publish`: any free port of 127.0.0.1 only, because the
/// broker requires no password. Inside a container, or with a remote engine, that address may be
/// wrong; all addresses are bound then.
fn publication() -> String {
    if remote_engine().is_some() || is_in_container() {
        PORT.to_string()
    } else {
        format!("{}::{PORT}", Ipv4Addr::LOCALHOST)
    }
}

/// The port of the engine's machine that is mapped to Kafka's port.
async fn published_port(name: &str) -> Result<u16, StartError> {
    let printed = run(&["port", name, &format!("{PORT}/tcp")]).await?;
    mapped_port(&printed).ok_or_else(|| {
        let mappings = printed.trim();
        StartError::docker(format!("no IPv4 port is mapped to {PORT}: {mappings:?}"))
    })
}

/// `32768` from the line `127.0.0.1:32768`.
fn mapped_port(printed: &str) -> Option<u16> {
    let mut mappings = printed.lines().map(str::trim);
    let mapping: SocketAddrV4 = mappings.find_map(|line| line.parse().ok())?;
    Some(mapping.port())
}

/// The address of a published port: that of a remote engine, else 127.0.0.1 if it answers there,
/// else the gateway of Docker's bridge.
///
/// If this process runs in a container, the engine may run in the same container, and then
/// 127.0.0.1 works; or outside of it, and then only the gateway does. Docker listens before Kafka
/// does.
async fn reachable(port: u16) -> String {
    if let Some(host) = remote_engine() {
        return host;
    }
    let loopback = Ipv4Addr::LOCALHOST;
    let answers = || TcpStream::connect_timeout(&(loopback, port).into(), PROBE_LIMIT).is_ok();
    let gateway = match is_in_container() && !answers() {
        true => bridge_gateway().await,
        false => None,
    };
    gateway.unwrap_or_else(|| loopback.to_string())
}

async fn bridge_gateway() -> Option<String> {
    const GATEWAYS: &str = "--format={{range .IPAM.Config}}{{.Gateway}} {{end}}";
    let printed = run(&["network", "inspect", "bridge", GATEWAYS])
        .await
        .ok()?;
    printed.split_whitespace().next().map(str::to_owned)
}

/// The host of the engine if `DOCKER_HOST` names one that is reached by TCP.
fn remote_engine() -> Option<String> {
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

fn is_in_container() -> bool {
    Path::new("/.dockerenv").exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::eventually;
    use std::os::unix::fs::PermissionsExt;

    /// A fake `docker` whose first removal removes nothing.
    const BUSY_ONCE: &str = "#!/bin/sh
        dir=$(dirname \"$0\")
        [ \"$*\" = 'rm --force --volumes a-name' ] || exit 1
        if [ -e \"$dir/asked\" ]; then echo a-name; : >\"$dir/removed\"; fi
        : >\"$dir/asked\"
    ";

    #[tokio::test]
    async fn a_container_that_a_busy_engine_keeps_is_removed_later() {
        let dir = tempfile::tempdir().unwrap();
        let docker = dir.path().join("docker");
        std::fs::write(&docker, BUSY_ONCE).unwrap();
        std::fs::set_permissions(&docker, PermissionsExt::from_mode(0o755)).unwrap();
        let path = format!("{}:/usr/bin:/bin", dir.path().display());
        let removing = std::process::Command::new("sh")
            .args(["-c", REMOVE, "sh", "a-name"])
            .env("PATH", path)
            .stdin(Stdio::null())
            .status();
        assert!(removing.unwrap().success());
        assert!(
            dir.path().join("asked").exists(),
            "nobody waits for an engine that is busy"
        );
        assert!(!dir.path().join("removed").exists());
        eventually(
            "the container is removed",
            Duration::from_secs(60),
            async || dir.path().join("removed").exists().then_some(()),
        )
        .await;
    }

    #[test]
    fn the_mapped_port_is_that_of_an_ipv4_address() {
        assert_eq!(mapped_port("127.0.0.1:32768\n"), Some(32768));
        assert_eq!(mapped_port("[::]:32769\n0.0.0.0:32768\n"), Some(32768));
        assert_eq!(mapped_port(":::32769\n"), None);
        assert_eq!(mapped_port(""), None);
    }

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
