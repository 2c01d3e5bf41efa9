//! Apache Kafka in a container: the official image, or a local image of the same name.
//!
//! With the feature `testing` the container runs through testcontainers, otherwise through the `docker`
//! command, so that development tools need no more than that command.
//!
//! Two difficulties shape this file:
//! - Kafka must advertise the address under which clients reach it, and the port on this machine is
//!   known only after the container runs. So the container's command waits for a file with the
//!   address, and starts Kafka then.
//! - A container outlives the process that started it. So a reaper removes it when this process is
//!   gone, and is started before the container is created.

use super::broker::{HEAP, READY_LINE, SETTINGS, VERSION, cluster_id};
use super::cluster::{Backing, Freezer};
#[cfg(not(feature = "testing"))]
use super::docker_run::run_kafka;
#[cfg(feature = "testing")]
use super::testcontainer::run_kafka;
use crate::kafka::KafkaConfig;
use crate::telemetry::say;
use crate::testing::process::reaper::Reaper;
use crate::testing::process::subprocess;
use crate::testing::{KafkaKind, StartError, TestKafka, unique, wait};
use std::ffi::OsStr;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// The image's name without its tag. The tag is the version.
pub(super) const IMAGE: &str = "apache/kafka";

/// The container port that is mapped to a port of this machine.
pub(in crate::testing) const PORT: u16 = 9092;

/// Time limit of a connection attempt. A port of this machine answers immediately or not at all.
pub(super) const PROBE_LIMIT: Duration = Duration::from_millis(500);
const ENGINE_LIMIT: Duration = Duration::from_secs(10);
const PULL_LIMIT: Duration = Duration::from_secs(600);
pub(super) const START_LIMIT: Duration = Duration::from_secs(90);

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
pub(super) const RUN_WHEN_ADVERTISED: &str = "while [ ! -s /tmp/advertised ]; do sleep 0.05; done; \
    KAFKA_ADVERTISED_LISTENERS=$(cat /tmp/advertised) exec /etc/kafka/docker/run";

/// Writes the advertised listeners `$1` for the waiting command, atomically.
pub(super) const ADVERTISE: &str =
    r#"echo "$1" >/tmp/advertised.part && mv /tmp/advertised.part /tmp/advertised"#;

/// Starts a container, and returns when Kafka is ready.
pub(in crate::testing) async fn start() -> Result<TestKafka, StartError> {
    let engine = Engine::find().await?;
    let name = unique("evenkeel-kafka");
    // Started before the container exists, so that the container is removed even if we are killed
    // during its start.
    let reaper = Reaper::hold(REMOVE, [&name], Stdio::null())
        .map_err(|error| StartError::docker(error.to_string()))?;
    let brokers = run_kafka(&name).await?;
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
}
