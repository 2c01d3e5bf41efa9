//! Kafka's container through the `docker` command.

use super::docker::{
    ADVERTISE, PORT, RUN_WHEN_ADVERTISED, advertised, await_ready, environment_arguments, image,
    is_in_container, is_reached_at_loopback, publish_address, remote_engine, run,
};
use crate::testing::StartError;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Runs a container of this name, and returns Kafka's address when it is ready.
pub(super) async fn run_kafka(name: &str) -> Result<String, StartError> {
    let mut arguments = vec!["run".to_owned(), "--detach".to_owned()];
    arguments.push(format!("--name={name}"));
    arguments.push(format!("--publish={}", publish_argument()));
    arguments.extend(environment_arguments());
    arguments.push(image());
    arguments.extend(["sh", "-c", RUN_WHEN_ADVERTISED].map(str::to_owned));
    run(&arguments).await?;
    let port = published_port(name).await?;
    let host = reachable_host(port).await;
    let listeners = advertised(&host, port);
    run(&["exec", name, "sh", "-c", ADVERTISE, "sh", &listeners]).await?;
    await_ready(name).await?;
    Ok(format!("{host}:{port}"))
}

/// The port to publish, as an argument of `--publish`: any free port of [`publish_address`].
fn publish_argument() -> String {
    match publish_address() {
        Some(address) => format!("{address}::{PORT}"),
        None => PORT.to_string(),
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

/// The address of a published port: that of a remote engine, else 127.0.0.1 if it is reached there,
/// else the gateway of Docker's bridge.
async fn reachable_host(port: u16) -> String {
    if let Some(host) = remote_engine() {
        return host;
    }
    let gateway = match is_reached_at_loopback(port, is_in_container()) {
        true => None,
        false => bridge_gateway().await,
    };
    gateway.unwrap_or_else(|| Ipv4Addr::LOCALHOST.to_string())
}

async fn bridge_gateway() -> Option<String> {
    const GATEWAYS: &str = "--format={{range .IPAM.Config}}{{.Gateway}} {{end}}";
    let printed = run(&["network", "inspect", "bridge", GATEWAYS])
        .await
        .ok()?;
    printed.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mapped_port_is_that_of_an_ipv4_address() {
        assert_eq!(mapped_port("127.0.0.1:32768\n"), Some(32768));
        assert_eq!(mapped_port("[::]:32769\n0.0.0.0:32768\n"), Some(32768));
        assert_eq!(mapped_port(":::32769\n"), None);
        assert_eq!(mapped_port(""), None);
    }
}
