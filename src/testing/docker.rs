//! Apache Kafka in a container: its official image, or one that was built on this machine under the same name.

use super::broker::{HEAP, READY_LINE, SETTINGS, VERSION, cluster_id};
use super::leash::Leash;
use super::{Backing, Freezer, KafkaKind, StartError, TestKafka, shared, tool, unique};
use crate::kafka::KafkaConfig;
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

/// The image's name without its tag, which is the version.
const IMAGE: &str = "apache/kafka";

/// The port inside the container that is mapped to one of this machine.
pub(super) const PORT: u16 = 9092;

/// A port of this machine answers at once or not at all.
const PROBE_LIMIT: Duration = Duration::from_millis(500);
const ENGINE_LIMIT: Duration = Duration::from_secs(10);
const PULL_LIMIT: Duration = Duration::from_secs(600);
const START_LIMIT: Duration = Duration::from_secs(90);

/// Removes the container `$1` when our end of the pipe closes, and tries again in the background until one was removed: a busy
/// engine gives up on a kill that takes long, and a container that was being created when we were killed appears later.
const REMOVE: &str = r#"read -r _
removed() { [ -n "$(docker rm --force --volumes "$1")" ]; }
removed "$1" && exit
for pause in 1 2 4 8 15 30 60; do
  sleep "$pause"
  removed "$1" && exit
done &"#;

/// The container's command: Kafka must know its port on this machine, which is only mapped once the container runs.
const RUN_WHEN_ADVERTISED: &str = "while [ ! -s /tmp/advertised ]; do sleep 0.05; done; \
    KAFKA_ADVERTISED_LISTENERS=$(cat /tmp/advertised) exec /etc/kafka/docker/run";

/// Tells the waiting command the listeners `$1`, all at once.
const ADVERTISE: &str =
    r#"echo "$1" >/tmp/advertised.part && mv /tmp/advertised.part /tmp/advertised"#;

pub(super) async fn start() -> Result<TestKafka, StartError> {
    let engine = Engine::find().await?;
    let name = unique("evenkeel-kafka");
    // Held before the container exists, so that it goes even when we are killed while it starts.
    let leash = Leash::hold(REMOVE, [&name], Stdio::null())
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
    // Its drop needs a runtime, and a static is never dropped: the leash ends the container in every case.
    std::mem::forget(container);

    let brokers = format!("{}:{port}", reachable(&host, port));
    Ok(TestKafka {
        kind: KafkaKind::Docker,
        description: format!("Apache Kafka {VERSION} in {engine} at {brokers}"),
        config: KafkaConfig::new(brokers),
        backing: Backing::Leashed {
            _leash: leash,
            freezer: Freezer::Container(name),
        },
    })
}

/// A Docker engine that answers and has the image.
pub(super) struct Engine {
    version: String,
    image_origin: &'static str,
}

impl Engine {
    /// Looks for the engine and the image, which is pulled when it is not there.
    pub(super) async fn find() -> Result<Self, StartError> {
        let version = tool::output(
            "docker",
            ["version", "--format", "{{.Server.Version}}"],
            ENGINE_LIMIT,
        )
        .await
        .map_err(StartError::docker)?;
        let image = image();
        let inspected = tool::output("docker", ["image", "inspect", &image], ENGINE_LIMIT).await;
        let image_origin = if inspected.is_ok() {
            "found locally"
        } else {
            shared::say(&format!("pulling the image {image}, once"));
            tool::output("docker", ["pull", "--quiet", &image], PULL_LIMIT)
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

/// The image with its tag.
pub(super) fn image() -> String {
    format!("{IMAGE}:{VERSION}")
}

/// The environment that makes the image's wrapper write our `server.properties`.
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

/// What a client on this machine, and Kafka inside the container, find Kafka under.
pub(super) fn advertised(host: &str, port: u16) -> String {
    format!("PLAINTEXT://{host}:{port},BROKER://localhost:9093")
}

/// Maps the port to a free one of 127.0.0.1 instead of every address: the broker asks nobody for a password. Inside a
/// container and with an engine on another machine that address may be the wrong one, so all are taken.
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

/// The address for a published port: this machine's own where it answers there, else what testcontainers says.
///
/// The engine may run beside us in a container, where testcontainers names the bridge's gateway though 127.0.0.1 serves,
/// or outside of it, where only the gateway does. Docker listens before Kafka does.
fn reachable(host: &str, port: u16) -> String {
    let loopback = Ipv4Addr::LOCALHOST;
    let answers = || TcpStream::connect_timeout(&(loopback, port).into(), PROBE_LIMIT).is_ok();
    if !engine_is_remote() && (host == "localhost" || answers()) {
        loopback.to_string()
    } else {
        host.to_owned()
    }
}

fn engine_is_remote() -> bool {
    std::env::var("DOCKER_HOST").is_ok_and(|engine| engine.starts_with("tcp://"))
}

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

    /// A `docker` whose first removal removes nothing.
    const BUSY_ONCE: &str = "#!/bin/sh
        dir=$(dirname \"$0\")
        [ \"$*\" = 'rm --force --volumes a-name' ] || exit 1
        if [ -e \"$dir/asked\" ]; then echo a-name; : >\"$dir/removed\"; fi
        : >\"$dir/asked\"
    ";

    #[tokio::test]
    async fn a_container_that_an_engine_does_not_remove_at_once_is_removed_later() {
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
