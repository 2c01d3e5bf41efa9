//! Apache Kafka in a container: the official image, or a local image of the same name.
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
use crate::testing::process::reaper::Reaper;
use crate::testing::process::subprocess;
use crate::testing::required::say;
use crate::testing::{KafkaKind, StartError, TestKafka, unique};
use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use testcontainers::bollard::models::{HostConfig, PortBinding};
use testcontainers::core::{ContainerPort, ContainerState, ExecCommand, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{Image, ImageExt, TestcontainersError};

/// The image's name without its tag. The tag is the version.
const IMAGE: &str = "apache/kafka";

/// The container port that is mapped to a port of this machine.
pub(in crate::testing) const PORT: u16 = 9092;

/// Time limit of a connection attempt. A port of this machine answers immediately or not at all.
const PROBE_LIMIT: Duration = Duration::from_millis(500);
const ENGINE_LIMIT: Duration = Duration::from_secs(10);
const PULL_LIMIT: Duration = Duration::from_secs(600);
const START_LIMIT: Duration = Duration::from_secs(90);

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
    let container = KafkaImage
        .with_container_name(&name)
        .with_startup_timeout(START_LIMIT)
        .with_host_config_modifier(publish_narrowly)
        .start()
        .await
        .map_err(failed)?;
    let port = container.get_host_port_ipv4(PORT).await.map_err(failed)?;
    let host = container.get_host().await.map_err(failed)?.to_string();
    // Its drop needs a runtime, and a static is never dropped. The reaper removes the container in
    // every case.
    std::mem::forget(container);

    let brokers = format!("{}:{port}", reachable(&host, port));
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
pub(in crate::testing) fn environment() -> Vec<(String, String)> {
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

/// The advertised listeners, for clients on this machine and for Kafka inside the container.
pub(in crate::testing) fn advertised(host: &str, port: u16) -> String {
    format!("PLAINTEXT://{host}:{port},BROKER://localhost:9093")
}

/// Binds the port to 127.0.0.1 only: the broker requires no password. Inside a container, or with a
/// remote engine, that address may be wrong; all addresses are bound then.
fn publish_narrowly(host: &mut HostConfig) {
    if engine_is_remote() || Path::new("/.dockerenv").exists() {
        return;
    }
    let binding = PortBinding {
        host_ip: Some(Ipv4Addr::LOCALHOST.to_string()),
        host_port: None,
    };
    host.publish_all_ports = Some(false);
    host.port_bindings = Some(HashMap::from([(
        format!("{PORT}/tcp"),
        Some(vec![binding]),
    )]));
}

/// The address of a published port: 127.0.0.1 if it answers there, else the address from
/// testcontainers.
///
/// If this process runs in a container, testcontainers returns the bridge's gateway. The engine may
/// run in the same container, and then 127.0.0.1 works; or outside of it, and then only the gateway
/// does. Docker listens before Kafka does.
fn reachable(host: &str, port: u16) -> String {
    let loopback = Ipv4Addr::LOCALHOST;
    let answers = || TcpStream::connect_timeout(&(loopback, port).into(), PROBE_LIMIT).is_ok();
    if !engine_is_remote() && (host == "localhost" || answers()) {
        loopback.to_string()
    } else {
        host.to_owned()
    }
}

/// Whether the Docker engine is on another machine, by `DOCKER_HOST`.
fn engine_is_remote() -> bool {
    std::env::var("DOCKER_HOST").is_ok_and(|engine| engine.starts_with("tcp://"))
}

/// The error of testcontainers, with the texts of its sources that it does not repeat itself.
fn failed(error: TestcontainersError) -> StartError {
    let mut reason = error.to_string();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&error);
    while let Some(source) = cause {
        let text = source.to_string();
        if !reason.contains(&text) {
            reason += &format!(": {text}");
        }
        cause = source.source();
    }
    StartError::docker(reason)
}

/// The image as testcontainers needs it described.
struct KafkaImage;

impl Image for KafkaImage {
    fn name(&self) -> &str {
        IMAGE
    }

    fn tag(&self) -> &str {
        VERSION
    }

    fn ready_conditions(&self) -> Vec<WaitFor> {
        vec![WaitFor::message_on_stdout(READY_LINE)]
    }

    fn env_vars(
        &self,
    ) -> impl IntoIterator<Item = (impl Into<Cow<'_, str>>, impl Into<Cow<'_, str>>)> {
        environment()
    }

    fn cmd(&self) -> impl IntoIterator<Item = impl Into<Cow<'_, str>>> {
        ["sh", "-c", RUN_WHEN_ADVERTISED]
    }

    fn expose_ports(&self) -> &[ContainerPort] {
        &[ContainerPort::Tcp(PORT)]
    }

    fn exec_before_ready(
        &self,
        state: ContainerState,
    ) -> Result<Vec<ExecCommand>, TestcontainersError> {
        let port = state.host_port_ipv4(ContainerPort::Tcp(PORT))?;
        let host = reachable(&state.host().to_string(), port);
        let listeners = advertised(&host, port);
        Ok(vec![ExecCommand::new([
            "sh", "-c", ADVERTISE, "sh", &listeners,
        ])])
    }
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
