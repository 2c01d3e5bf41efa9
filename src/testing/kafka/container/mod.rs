//! Apache Kafka in a container: the official image, or a local image of the same name.
//!
//! With the feature `testing` the container runs through testcontainers ([`testcontainer`]), otherwise
//! through the `docker` command ([`command`]), so that development tools need no more than that command.
//!
//! Two difficulties shape this module:
//! - Kafka must advertise the address under which clients reach it, and the port on this machine is
//!   known only after the container runs. So the container's command waits for a file with the
//!   address, and starts Kafka then.
//! - A container outlives the process that started it. So a reaper removes it when this process is
//!   gone, and is started before the container is created.

#[cfg(any(not(feature = "testing"), test))]
#[cfg_attr(
    feature = "testing",
    allow(dead_code, reason = "its unit tests run with the feature testing")
)]
mod command;
pub(in crate::testing) mod docker;
#[cfg(feature = "testing")]
mod testcontainer;

use super::broker::VERSION;
use super::cluster::{ClusterOwner, Freezer};
use crate::kafka::KafkaConfig;
use crate::testing::process::reaper::Reaper;
use crate::testing::{KafkaKind, StartError, TestKafka, unique};
use docker::Engine;
use std::process::Stdio;

#[cfg(not(feature = "testing"))]
use command::run_kafka;
#[cfg(feature = "testing")]
use testcontainer::run_kafka;

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

/// Starts a container, and returns when Kafka is ready.
pub(in crate::testing) async fn start() -> Result<TestKafka, StartError> {
    let engine = Engine::find().await?;
    let name = unique("evenkeel-kafka");
    // Started before the container exists, so that the container is removed even if we are killed
    // during its start.
    let reaper = Reaper::spawn(REMOVE, [&name], Stdio::null())
        .map_err(|error| StartError::docker(error.to_string()))?;
    let brokers = run_kafka(&name).await?;
    Ok(TestKafka {
        kind: KafkaKind::Docker,
        description: format!("Apache Kafka {VERSION} in {engine} at {brokers}"),
        config: KafkaConfig::new(brokers),
        backing: ClusterOwner::Started {
            _reaper: reaper,
            freezer: Freezer::Container(name),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::eventually;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

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
