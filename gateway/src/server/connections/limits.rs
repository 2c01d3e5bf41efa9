//! The bounds of the public listener's connections, and that of the process's open files.

use std::time::Duration;

/// The open files that are kept for the store, the brokers and the process's own files.
const OTHER_FILES: usize = 256;

/// The bounds of connections. [`ConnectionLimits::default`] has the defaults.
///
/// | bound | default | at the bound |
/// |---|---|---|
/// | [`connections_max`](Self::connections_max) | 10,000 | the longest idle ones are closed |
/// | [`connections_per_ip_max`](Self::connections_per_ip_max) | none | a new one is closed |
/// | [`head_within`](Self::head_within) | 8 s | the connection is closed |
/// | [`idle_max`](Self::idle_max) | 60 s | the connection is closed |
/// | [`write_stalled_max`](Self::write_stalled_max) | 60 s | the connection is closed |
/// | [`handshake_within`](Self::handshake_within) | 10 s | the connection is closed |
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct ConnectionLimits {
    /// Bounds the open connections. Default 10,000. One of HTTP/1.1 has at most about 40 KiB of
    /// buffers; one of HTTP/2 has 256 KiB for bodies that wait, and 80 KiB for the answer of each
    /// of its 256 streams, if a client uses them. An answer that is made as a whole is kept as a
    /// whole until its last bytes have room there. At the bound, the connections that have been
    /// without a request for the longest time make room. If all have requests, a new connection is
    /// accepted and closed: a balancer learns from it sooner than from a connection that is not
    /// accepted. On Linux at most the process's limit of open files, less 256.
    pub connections_max: usize,
    /// Bounds the open connections of one address. Default none: behind a balancer, all
    /// connections have its address.
    pub connections_per_ip_max: Option<usize>,
    /// How long the head of an HTTP/1.1 request may take from its first byte on. Default 8 s: with
    /// the check of connections each second and the close, none lasts longer than 10 s. A head that
    /// begins while another request is read or answered has this time from the end of that answer
    /// on. After a post that is sent behind another request without a wait for its answer, the
    /// connection has no more than this until its next request.
    pub head_within: Duration,
    /// How long a connection may be without a request, from its start or from the end of the last
    /// answer on, of which at most 80 KiB may still wait for the socket. Default 60 s. Bounds also
    /// what never becomes a request: silence, or an HTTP/2 connection that only pings. Must be
    /// longer than the idle time of a balancer's pool, or that balancer sometimes sends a request
    /// to a connection that closes.
    pub idle_max: Duration,
    /// How long a client may read nothing although an answer waits for it. Default 60 s. Of several
    /// answers on an HTTP/2 connection it must read one: a client behind a balancer that reads
    /// nothing does not end the answers of others. There a client reads if it makes room for the
    /// first 16 KiB of an answer, or for all of a smaller one, and then for each further 16 KiB.
    /// Requests do not begin this time again, be they new, without a body in their answer, or
    /// reset; one that is not answered yet at its end doubles it.
    pub write_stalled_max: Duration,
    /// How long a TLS handshake may take. Default 10 s.
    pub handshake_within: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            connections_per_ip_max: None,
            head_within: Duration::from_secs(8),
            idle_max: Duration::from_secs(60),
            write_stalled_max: Duration::from_secs(60),
            handshake_within: Duration::from_secs(10),
        }
    }
}

impl ConnectionLimits {
    /// Sets the most open connections, at least 1.
    pub fn with_connections_max(mut self, connections_max: usize) -> Self {
        self.connections_max = connections_max.max(1);
        self
    }

    /// Sets the most open connections of one address.
    pub fn with_connections_per_ip_max(mut self, max: impl Into<Option<usize>>) -> Self {
        self.connections_per_ip_max = max.into();
        self
    }

    /// Sets how long a request's head may take.
    pub fn with_head_within(mut self, head_within: Duration) -> Self {
        self.head_within = head_within;
        self
    }

    /// Sets how long a connection may be without a request.
    pub fn with_idle_max(mut self, idle_max: Duration) -> Self {
        self.idle_max = idle_max;
        self
    }

    /// Sets how long a client may read nothing.
    pub fn with_write_stalled_max(mut self, write_stalled_max: Duration) -> Self {
        self.write_stalled_max = write_stalled_max;
        self
    }

    /// Sets how long a TLS handshake may take.
    pub fn with_handshake_within(mut self, handshake_within: Duration) -> Self {
        self.handshake_within = handshake_within;
        self
    }

    /// The bounds with as many connections as the process may open files for. Logs a warning if
    /// these are fewer.
    pub(super) fn within_open_files(mut self) -> Self {
        let limits = std::fs::read_to_string("/proc/self/limits").ok();
        let Some(open_files_max) = limits.as_deref().and_then(open_files_max) else {
            return self;
        };
        let connections_max = connections_for(open_files_max);
        if connections_max < self.connections_max {
            tracing::warn!(
                open_files_max,
                connections_max,
                configured = self.connections_max,
                "the process may not open enough files for all connections: raise the limit \
                 (LimitNOFILE= of systemd, ulimit -n), or lower connections_max"
            );
            self.connections_max = connections_max;
        }
        self
    }
}

/// The soft limit of open files in the text of `/proc/self/limits`. None if there is none.
fn open_files_max(limits: &str) -> Option<usize> {
    let mut lines = limits.lines();
    let limits = lines.find_map(|line| line.strip_prefix("Max open files"))?;
    limits.split_whitespace().next()?.parse().ok()
}

/// The connections that have room within so many open files.
fn connections_for(open_files_max: usize) -> usize {
    let others = OTHER_FILES.min(open_files_max / 2);
    (open_files_max - others).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_bounds_the_connections() {
        let text = |soft: &str| {
            format!(
                "Limit                     Soft Limit           Hard Limit           Units\n\
                 Max processes             63304                63304                processes\n\
                 Max open files            {soft}                 524288               files\n"
            )
        };
        assert_eq!(open_files_max(&text("1024")), Some(1_024));
        assert_eq!(open_files_max(&text("unlimited")), None);
        assert_eq!(open_files_max(""), None);
        for (open_files, expected) in [(1_024, 768), (524_288, 524_032), (100, 50), (0, 1)] {
            assert_eq!(connections_for(open_files), expected, "{open_files}");
        }
    }
}
