//! The open connections: their number, which make room, and which are closed.
//!
//! Owns the table. A connection enters it by [`OpenConnections::admit`] and leaves it when its
//! [`Admitted`] is dropped, with its socket.

use super::activity::{Activity, CLOSED_TOTAL, CloseReason, OPEN};
use super::limits::ConnectionLimits;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The longest time between two sweeps.
const SWEEP_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// When there is no room, one in so many connections is closed at once, so that the table is not
/// searched for each new connection.
const ROOM_DIVISOR: usize = 100;

/// The table of open connections.
#[derive(Debug)]
pub(super) struct OpenConnections {
    limits: ConnectionLimits,
    table: Mutex<Table>,
    /// The number of entries, for those that wait for the end of all.
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Table {
    next_id: u64,
    entries: HashMap<u64, Entry>,
    /// Connections by address; empty without a bound per address.
    by_ip: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Entry {
    activity: Arc<Activity>,
    close: CancellationToken,
}

/// A connection's place in the table, released when it is dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    open: Arc<OpenConnections>,
    id: u64,
    ip: IpAddr,
    /// What the connection does.
    pub(super) activity: Arc<Activity>,
    /// Cancelled to close the connection.
    pub(super) close: CancellationToken,
}

impl OpenConnections {
    /// An empty table with these bounds.
    pub(super) fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            table: Mutex::default(),
            count: watch::Sender::new(0),
        })
    }

    /// The bounds.
    pub(super) fn limits(&self) -> &ConnectionLimits {
        &self.limits
    }

    /// Gives a new connection a place. Closes idle ones for it if there is none. `None` if the
    /// connection has to be closed: all others have requests, or its address has too many.
    pub(super) fn admit(self: &Arc<Self>, ip: IpAddr, now: Instant) -> Option<Admitted> {
        let mut table = self.lock();
        if let Some(max) = self.limits.connections_per_ip_max {
            let of_ip = table.by_ip.get(&ip).copied().unwrap_or_default();
            if of_ip >= max {
                return None;
            }
        }
        if table.entries.len() >= self.limits.connections_max && !table.make_room(&self.limits) {
            return None;
        }
        if self.limits.connections_per_ip_max.is_some() {
            *table.by_ip.entry(ip).or_default() += 1;
        }
        let id = table.next_id;
        table.next_id += 1;
        let activity = Arc::new(Activity::new(now));
        let close = CancellationToken::new();
        let entry = Entry {
            activity: Arc::clone(&activity),
            close: close.clone(),
        };
        table.entries.insert(id, entry);
        self.count.send_replace(table.entries.len());
        Some(Admitted {
            open: Arc::clone(self),
            id,
            ip,
            activity,
            close,
        })
    }

    /// Closes the connections whose time is over, again and again, until the future is dropped.
    pub(super) async fn sweep_regularly(&self) {
        let limits = &self.limits;
        let shortest = limits.head_within.min(limits.idle_max);
        let shortest = shortest.min(limits.write_stalled_max);
        let interval = (shortest / 4).clamp(Duration::from_millis(10), SWEEP_INTERVAL_MAX);
        let mut due = tokio::time::interval(interval);
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            metrics::gauge!(OPEN).set(self.count() as f64);
            for (reason, count) in self.sweep(Instant::now()) {
                metrics::counter!(CLOSED_TOTAL, "reason" => reason.name()).increment(count);
                tracing::debug!(reason = reason.name(), count, "connections closed");
            }
        }
    }

    /// Closes the connections whose time is over. Returns their number by reason.
    fn sweep(&self, now: Instant) -> Vec<(CloseReason, u64)> {
        let mut closed: Vec<(CloseReason, u64)> = Vec::new();
        for entry in self.lock().entries.values() {
            let Some(reason) = entry.activity.verdict(&self.limits, now) else {
                continue;
            };
            // One that was closed as idle may have a request since, and its client read nothing.
            let is_known = match reason {
                CloseReason::Idle => entry.close.is_cancelled(),
                CloseReason::SlowHead | CloseReason::SlowReader => entry.activity.is_cut(),
            };
            if is_known {
                continue;
            }
            if reason != CloseReason::Idle {
                entry.activity.cut();
            }
            entry.close.cancel();
            match closed.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, count)) => *count += 1,
                None => closed.push((reason, 1)),
            }
        }
        closed
    }

    /// The number of requests under way, and WebSockets.
    pub(super) fn requests(&self) -> usize {
        let table = self.lock();
        let entries = table.entries.values();
        entries.map(|entry| entry.activity.requests()).sum()
    }

    /// The number of open connections.
    pub(super) fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Closes all connections, whatever requests they have.
    pub(super) fn close_all(&self) {
        for entry in self.lock().entries.values() {
            entry.activity.cut();
            entry.close.cancel();
        }
    }

    /// Waits until no connection is open. Cancel-safe.
    pub(super) async fn all_closed(&self) {
        let mut count = self.count.subscribe();
        // The sender is a field of this value, so the wait cannot fail.
        let _ = count.wait_for(|count| *count == 0).await;
    }

    /// No entry can be half written, so a panic elsewhere does no harm.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Closes the connections that have been idle for the longest time. False if none is idle. A
    /// closed one leaves the table here, although its socket closes a moment later.
    fn make_room(&mut self, limits: &ConnectionLimits) -> bool {
        let idle = self.entries.iter().filter_map(|(id, entry)| {
            let since = entry.activity.idle_since()?;
            Some((since, *id))
        });
        let mut idle: Vec<_> = idle.collect();
        idle.sort_unstable();
        idle.truncate((limits.connections_max / ROOM_DIVISOR).max(1));
        for (_, id) in &idle {
            if let Some(entry) = self.entries.remove(id) {
                entry.activity.cut();
                entry.close.cancel();
            }
        }
        let closed = idle.len();
        metrics::counter!(CLOSED_TOTAL, "reason" => "replaced").increment(closed as u64);
        closed > 0
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut table = self.open.lock();
        table.entries.remove(&self.id);
        if let Some(of_ip) = table.by_ip.get_mut(&self.ip) {
            *of_ip = of_ip.saturating_sub(1);
            if *of_ip == 0 {
                table.by_ip.remove(&self.ip);
            }
        }
        self.open.count.send_replace(table.entries.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const IP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_connection_makes_room() {
        let open = OpenConnections::new(ConnectionLimits::default().with_connections_max(2));
        let admit = || open.admit(IP, Instant::now());
        let first = admit().expect("there is room");
        tokio::time::advance(Duration::from_secs(1)).await;
        let second = admit().expect("there is room");
        tokio::time::advance(Duration::from_secs(1)).await;
        let third = admit().expect("the first makes room");
        assert!(first.close.is_cancelled());
        assert!(!second.close.is_cancelled());
        for busy in [&second, &third] {
            busy.activity.request_started(Some(0));
        }
        assert!(admit().is_none(), "all have requests");
        drop(first);
        assert!(admit().is_none(), "its place was given away before");
        drop(second);
        assert!(admit().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_has_a_bound_of_its_own() {
        let limits = ConnectionLimits::default().with_connections_per_ip_max(1);
        let open = OpenConnections::new(limits);
        let admit = |ip: [u8; 4]| open.admit(IpAddr::from(ip), Instant::now());
        let first = admit([10, 0, 0, 1]).expect("there is room");
        assert!(admit([10, 0, 0, 1]).is_none());
        assert!(admit([10, 0, 0, 2]).is_some());
        drop(first);
        assert!(admit([10, 0, 0, 1]).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_last_connection_is_noticed() {
        let open = OpenConnections::new(ConnectionLimits::default());
        let first = open.admit(IP, Instant::now()).expect("there is room");
        let waiting = tokio::spawn({
            let open = Arc::clone(&open);
            async move { open.all_closed().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.expect("it does not panic");
        assert_eq!(open.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sweep_closes_each_connection_once() {
        let open = OpenConnections::new(ConnectionLimits::default());
        let first = open.admit(IP, Instant::now()).expect("there is room");
        let later = Instant::now() + Duration::from_secs(60);
        assert_eq!(open.sweep(later), [(CloseReason::Idle, 1)]);
        assert!(first.close.is_cancelled());
        assert_eq!(open.sweep(later), []);
        assert!(
            !first.activity.is_cut(),
            "a request may have come meanwhile"
        );
        first.activity.request_started(Some(0));
        first.activity.wrote(false, later);
        let latest = later + Duration::from_secs(60);
        assert_eq!(open.sweep(latest), [(CloseReason::SlowReader, 1)]);
        assert!(first.activity.is_cut());
        assert_eq!(open.sweep(latest), []);
    }
}
