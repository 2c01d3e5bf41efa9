//! Names that do not collide between tests, runs and machines, and free ports.

use std::collections::BTreeSet;
use std::io::{Error, ErrorKind};
use std::net::TcpListener;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// A name that no other test uses: `prefix`, a hyphen and twelve random hexadecimal digits.
///
/// Valid as a topic and as a group if `prefix` is. Use one for every topic, group and key prefix of
/// a test: tests run at the same time, on a server that may be older than the run.
///
/// ```
/// let topic = evenkeel::testing::unique("orders");
/// assert!(topic.starts_with("orders-") && topic.len() == 19);
/// ```
pub fn unique(prefix: &str) -> String {
    let digits = rand::random::<u64>() & 0xffff_ffff_ffff;
    format!("{prefix}-{digits:012x}")
}

/// The ports of servers: below those that systems take for outgoing connections, which could occupy
/// a port between the call and the start of its server.
const PORTS: Range<u16> = 20_000..32_000;

/// A port of 127.0.0.1 that was free at the time of the call, for a server that is told its port.
///
/// A process gets each one once, so that a server keeps its port across restarts. It is from 20000
/// to 31999, below the ports that systems take for outgoing connections. Another process may still
/// take it before the server binds it: then the server does not start, and is to be started with
/// another one.
///
/// ```
/// # fn example() -> std::io::Result<()> {
/// let address = format!("127.0.0.1:{}", evenkeel::testing::free_port()?);
/// # drop(address);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`AddrInUse`](ErrorKind::AddrInUse) if each of these ports is in use or was given to this
/// process.
pub fn free_port() -> std::io::Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    take_port(PORTS, &mut given)
}

/// Takes a free port of this range that was not given, and adds it to those.
fn take_port(ports: Range<u16>, given: &mut BTreeSet<u16>) -> std::io::Result<u16> {
    // Any of them, so that processes that start together rarely meet.
    let first = rand::random_range(ports.clone());
    let free = (first..ports.end)
        .chain(ports.start..first)
        .find(|port| !given.contains(port) && TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let port = free.ok_or_else(|| {
        let (start, last) = (ports.start, ports.end - 1);
        let reason = format!("each port from {start} to {last} is in use or was given");
        Error::new(ErrorKind::AddrInUse, reason)
    })?;
    given.insert(port);
    Ok(port)
}

#[cfg(test)]
mod tests {
    use super::{PORTS, free_port, take_port, unique};
    use std::collections::BTreeSet;
    use std::io::ErrorKind;
    use std::net::TcpListener;

    #[test]
    fn free_ports_differ() {
        let ports: BTreeSet<u16> = (0..10).filter_map(|_| free_port().ok()).collect();
        assert_eq!(ports.len(), 10);
        assert!(ports.iter().all(|port| PORTS.contains(port)), "{ports:?}");
    }

    #[test]
    fn a_port_is_given_once_and_only_while_it_is_free() {
        let port = free_port().expect("a free port");
        let mut given = BTreeSet::new();
        let mut take = || take_port(port..port + 1, &mut given).map_err(|error| error.kind());
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("it is free");
        assert_eq!(take(), Err(ErrorKind::AddrInUse), "in use");
        drop(listener);
        assert_eq!(take(), Ok(port));
        assert_eq!(take(), Err(ErrorKind::AddrInUse), "given");
    }

    #[test]
    fn two_names_of_one_prefix_differ_and_are_legal_topics() {
        let (first, second) = (unique("orders"), unique("orders"));
        assert_ne!(first, second);
        for name in [first, second] {
            let suffix = name.strip_prefix("orders-").expect("keeps its prefix");
            assert_eq!(suffix.len(), 12);
            assert!(suffix.chars().all(|c| c.is_ascii_hexdigit()), "{name}");
        }
    }
}
