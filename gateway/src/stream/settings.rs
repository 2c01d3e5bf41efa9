//! The bounds of streams.

use std::time::Duration;

/// The bounds of streams. [`StreamSettings::default`] has the defaults.
///
/// | setting | default | bounds |
/// |---|---|---|
/// | [`clients_max`](Self::clients_max) | 10,000 | open streams |
/// | [`ring_bytes_max`](Self::ring_bytes_max) | 16 MiB | shared events of a topic |
/// | [`ring_events_max`](Self::ring_events_max) | 65,536 | shared events of a topic |
/// | [`catch_ups_max`](Self::catch_ups_max) | 32 | streams that catch up at once |
/// | [`heartbeat`](Self::heartbeat) | 15 s | silence of a stream |
/// | [`slow_client_timeout`](Self::slow_client_timeout) | 10 s | a client that reads nothing |
/// | [`reader_idle`](Self::reader_idle) | 60 s | a reader without subscriptions |
/// | [`broker_timeout`](Self::broker_timeout) | 10 s | a request to the brokers |
/// | [`allowed_origins`](Self::allowed_origins) | none | pages of other sites |
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamSettings {
    /// Bounds the open streams of this gateway, of all protocols. Default 10,000. Above it a new
    /// one is refused with 503 and a `Retry-After` of 1 to 5 seconds.
    pub clients_max: usize,
    /// Bounds the bytes of the latest events of each topic in memory. Default 16 MiB. The oldest
    /// are dropped first; a client that needs them catches up from the brokers. One event that is
    /// larger is kept alone.
    pub ring_bytes_max: usize,
    /// Bounds the number of these events. Default 65,536.
    pub ring_events_max: usize,
    /// Bounds the streams that read old records from the brokers at once, each with a reader of
    /// its own (about 6 MiB). Default 32. Others wait in order; one turn takes at most 30 s, then
    /// the stream waits for another. Streams that are not behind are not concerned.
    pub catch_ups_max: usize,
    /// The interval of heartbeats. Default 15 s. Each carries the present cursor, so that a client
    /// that receives no event for hours still resumes at a recent position. At least 100 ms.
    pub heartbeat: Duration,
    /// How long a client may take to accept a frame. Default 10 s. Then the stream ends with
    /// [`Frame::Slow`](super::Frame::Slow), and the client may reconnect with its cursor.
    pub slow_client_timeout: Duration,
    /// How long the reader of a topic continues after its last subscription ended, so that clients
    /// that reconnect find the ring. Default 60 s.
    pub reader_idle: Duration,
    /// Bounds each request to the brokers. Default 10 s. A subscription that waits for them longer
    /// is refused with 503.
    pub broker_timeout: Duration,
    /// The origins (`https://shop.example`) of other sites whose pages may open streams. Default
    /// none: a WebSocket from a page of another host is refused with 403, and answers carry no
    /// CORS headers.
    pub allowed_origins: Vec<String>,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            clients_max: 10_000,
            ring_bytes_max: 16 << 20,
            ring_events_max: 65_536,
            catch_ups_max: 32,
            heartbeat: Duration::from_secs(15),
            slow_client_timeout: Duration::from_secs(10),
            reader_idle: Duration::from_secs(60),
            broker_timeout: Duration::from_secs(10),
            allowed_origins: Vec::new(),
        }
    }
}

impl StreamSettings {
    /// Sets [`clients_max`](Self::clients_max).
    #[must_use]
    pub fn with_clients_max(mut self, clients_max: usize) -> Self {
        self.clients_max = clients_max;
        self
    }

    /// Sets [`ring_bytes_max`](Self::ring_bytes_max).
    #[must_use]
    pub fn with_ring_bytes_max(mut self, bytes: usize) -> Self {
        self.ring_bytes_max = bytes;
        self
    }

    /// Sets [`ring_events_max`](Self::ring_events_max), at least 1.
    #[must_use]
    pub fn with_ring_events_max(mut self, events: usize) -> Self {
        self.ring_events_max = events.max(1);
        self
    }

    /// Sets [`catch_ups_max`](Self::catch_ups_max), at least 1.
    #[must_use]
    pub fn with_catch_ups_max(mut self, catch_ups: usize) -> Self {
        self.catch_ups_max = catch_ups.max(1);
        self
    }

    /// Sets [`heartbeat`](Self::heartbeat), at least 100 ms.
    #[must_use]
    pub fn with_heartbeat(mut self, heartbeat: Duration) -> Self {
        self.heartbeat = heartbeat.max(Duration::from_millis(100));
        self
    }

    /// Sets [`slow_client_timeout`](Self::slow_client_timeout).
    #[must_use]
    pub fn with_slow_client_timeout(mut self, timeout: Duration) -> Self {
        self.slow_client_timeout = timeout;
        self
    }

    /// Sets [`reader_idle`](Self::reader_idle).
    #[must_use]
    pub fn with_reader_idle(mut self, idle: Duration) -> Self {
        self.reader_idle = idle;
        self
    }

    /// Sets [`broker_timeout`](Self::broker_timeout).
    #[must_use]
    pub fn with_broker_timeout(mut self, timeout: Duration) -> Self {
        self.broker_timeout = timeout;
        self
    }

    /// Sets [`allowed_origins`](Self::allowed_origins).
    #[must_use]
    pub fn with_allowed_origins<T: Into<String>>(
        mut self,
        origins: impl IntoIterator<Item = T>,
    ) -> Self {
        self.allowed_origins = origins.into_iter().map(Into::into).collect();
        self
    }
}
