//! Kafka's container through the `docker` command.

use super::docker::{
    ADVERTISE, PORT, PROBE_LIMIT, RUN_WHEN_ADVERTISED, advertised, await_ready,
    environment_arguments, image, run,
};
use crate::testing::StartError;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::Path;

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

/// The port to publish, as an argument of `--publish`: any free port of 127.0.0.1 only, because the
/// broker requires no password. Inside a container, or with a remote engine, that address may be
/// wrong; all addresses are bound then.
fn publish_argument() -> String {
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
async fn reachable_host(port: u16) -> String {
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
