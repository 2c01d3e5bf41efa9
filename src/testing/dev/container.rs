//! The development Kafka as a container that outlives this process.

use super::record::{Record, Running};
use crate::testing::StartError;
use crate::testing::kafka::broker::VERSION;
use crate::testing::kafka::container::docker::{self, Engine};

/// Starts the container, and returns when Kafka is ready. Removes it again if Kafka does not start.
pub(super) async fn start(port: u16) -> Result<Record, StartError> {
    let engine = Engine::find().await?;
    let name = format!("evenkeel-dev-kafka-{port}");
    let mut arguments = vec!["run".to_owned(), "--detach".to_owned()];
    arguments.push(format!("--name={name}"));
    arguments.push(format!("--publish=127.0.0.1:{port}:{}", docker::PORT));
    arguments.extend(docker::environment_arguments());
    let advertised = docker::advertised("127.0.0.1", port);
    arguments.push(format!("--env=KAFKA_ADVERTISED_LISTENERS={advertised}"));
    arguments.push(docker::image());
    docker::run(&arguments).await?;
    if let Err(error) = docker::await_ready(&name).await {
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
    if docker::exists(name, "--all").await? {
        docker::run(&["rm", "--force", "--volumes", name]).await?;
    }
    Ok(())
}
