//! The development Kafka as a container that outlives this process. Uses the `docker` command,
//! because testcontainers would remove the container.

use super::record::{Record, Running};
use crate::testing::kafka::broker::{READY_LINE, VERSION};
use crate::testing::kafka::docker::{self, Engine};
use crate::testing::process::subprocess;
use crate::testing::{StartError, wait};
use std::time::{Duration, Instant};

const COMMAND_LIMIT: Duration = Duration::from_secs(60);
const START_LIMIT: Duration = Duration::from_secs(90);

/// Starts the container, and returns when Kafka is ready. Removes it again if Kafka does not start.
pub(super) async fn start(port: u16) -> Result<Record, StartError> {
    let engine = Engine::find().await?;
    let name = format!("evenkeel-dev-kafka-{port}");
    let mut arguments = vec![
        "run".to_owned(),
        "--detach".to_owned(),
        "--name".to_owned(),
        name.clone(),
    ];
    arguments.push(format!("--publish=127.0.0.1:{port}:{}", docker::PORT));
    let advertised = (
        "KAFKA_ADVERTISED_LISTENERS".to_owned(),
        docker::advertised("127.0.0.1", port),
    );
    for (variable, value) in docker::environment().into_iter().chain([advertised]) {
        arguments.push(format!("--env={variable}={value}"));
    }
    arguments.push(docker::image());
    run(&arguments).await?;
    if let Err(error) = await_ready(&name).await {
        stop(&name).await?;
        return Err(error);
    }
    let brokers = format!("127.0.0.1:{port}");
    Ok(Record {
        description: format!(
            "Apache Kafka {VERSION} in {engine} at {brokers}, log: docker logs {name}"
        ),
        running: Running::Container { name },
        brokers,
    })
}

/// Removes the container and its data. A missing container is no error.
pub(super) async fn stop(name: &str) -> Result<(), StartError> {
    if exists(name, "--all").await? {
        run(&["rm", "--force", "--volumes", name]).await?;
    }
    Ok(())
}

pub(super) async fn is_running(name: &str) -> Result<bool, StartError> {
    exists(name, "--filter=status=running").await
}

/// Whether a container of this name exists among those that `which`, a flag of `docker ps`,
/// selects.
async fn exists(name: &str, which: &str) -> Result<bool, StartError> {
    let filter = format!("--filter=name=^{name}$");
    let found = run(&["ps", which, "--quiet", &filter]).await?;
    Ok(!found.trim().is_empty())
}

/// Waits for the line in the container's log. Fails as soon as the container has ended.
async fn await_ready(name: &str) -> Result<(), StartError> {
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

async fn run(arguments: &[impl AsRef<std::ffi::OsStr>]) -> Result<String, StartError> {
    subprocess::output("docker", arguments, COMMAND_LIMIT)
        .await
        .map_err(StartError::docker)
}
