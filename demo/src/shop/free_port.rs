//! Ports for daemons, each given once.

use rand::RngExt;
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// The ports that daemons listen on: below those that systems take for outgoing connections, which
/// could otherwise occupy a daemon's port before it starts, or while it is down.
const PORTS: Range<u16> = 20_000..32_000;

/// A port of 127.0.0.1 that is free now. A daemon keeps it across restarts. If another program
/// takes it in between, the daemon logs that and ends, which the run reports.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..1_000 {
        let port = rand::rng().random_range(PORTS);
        if given.insert(port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no port of {PORTS:?} is free on 127.0.0.1");
}
