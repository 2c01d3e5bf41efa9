//! Kafka's container through testcontainers.

use super::docker::{
    ADVERTISE, IMAGE, PORT, RUN_WHEN_ADVERTISED, START_LIMIT, advertised, environment,
    is_reached_at_loopback, publish_address,
};
use crate::testing::StartError;
use crate::testing::kafka::broker::{READY_LINE, VERSION};
use std::borrow::Cow;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use testcontainers::bollard::models::{HostConfig, PortBinding};
use testcontainers::core::{ContainerPort, ContainerState, ExecCommand, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{Image, ImageExt, TestcontainersError};

/// Runs a container of this name, and returns Kafka's address when it is ready.
pub(super) async fn run_kafka(name: &str) -> Result<String, StartError> {
    let container = KafkaImage
        .with_container_name(name)
        .with_startup_timeout(START_LIMIT)
        .with_host_config_modifier(bind_to_loopback)
        .start()
        .await
        .map_err(failed)?;
    let port = container.get_host_port_ipv4(PORT).await.map_err(failed)?;
    let host = container.get_host().await.map_err(failed)?.to_string();
    // Its drop needs a runtime, and a static is never dropped. The reaper removes the container in
    // every case.
    std::mem::forget(container);
    Ok(format!("{}:{port}", reachable_host(&host, port)))
}

/// Binds the port to [`publish_address`].
fn bind_to_loopback(host: &mut HostConfig) {
    let Some(address) = publish_address() else {
        return;
    };
    let binding = PortBinding {
        host_ip: Some(address.to_string()),
        host_port: None,
    };
    host.publish_all_ports = Some(false);
    host.port_bindings = Some(HashMap::from([(
        format!("{PORT}/tcp"),
        Some(vec![binding]),
    )]));
}

/// The address of a published port: 127.0.0.1 if it is reached there, else the address from
/// testcontainers, which is the bridge's gateway if this process runs in a container.
fn reachable_host(host: &str, port: u16) -> String {
    match is_reached_at_loopback(port, host != "localhost") {
        true => Ipv4Addr::LOCALHOST.to_string(),
        false => host.to_owned(),
    }
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
        let host = reachable_host(&state.host().to_string(), port);
        let listeners = advertised(&host, port);
        Ok(vec![ExecCommand::new([
            "sh", "-c", ADVERTISE, "sh", &listeners,
        ])])
    }
}
