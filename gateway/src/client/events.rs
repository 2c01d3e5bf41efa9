//! Reads a stream, and resumes it where it was cut.

use super::post::{Client, ClientError, retry_after, unsendable};
use super::retry::{Next, next};
use super::sse::{SseEvent, SseParser};
use rand::RngExt;
use reqwest::header::RETRY_AFTER;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// A stream without any frame for this time is cut: the gateway sends a heartbeat every 15 seconds.
/// Also the longest wait for the head of an answer, and for the text of a refusal.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// The longest reconnection time that is obeyed.
const RECONNECTION_MAX: Duration = Duration::from_secs(60);
/// The longest `Retry-After` that is obeyed. A gateway sends no longer one than 72 s.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// The most bytes of one event.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// A frame of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Streamed {
    /// An event.
    Event {
        /// Its type.
        ty: String,
        /// The event in the JSON format of CloudEvents.
        data: String,
        /// The cursor after it: the stream resumes there.
        cursor: String,
    },
    /// Events that cannot be read: retention deleted them, or their batch is unreadable. With `to`
    /// at or below `from` the log was cut there, or its topic created again.
    Gap {
        /// What is missing, as JSON.
        detail: String,
        /// The cursor after the gap.
        cursor: String,
    },
}

/// A stream of events. It connects with the first [`next`](Self::next), and again after each cut.
#[derive(Debug)]
pub struct EventStream {
    client: Client,
    types: Vec<String>,
    key: Option<String>,
    cursor: Option<String>,
    response: Option<reqwest::Response>,
    parser: SseParser,
    ready: VecDeque<SseEvent>,
    failures: u32,
    /// The least pause before a reconnect, as the gateway told.
    reconnection: Duration,
    /// No connection is opened before, also if the wait for it was cancelled.
    resume_at: Option<Instant>,
}

impl Client {
    /// Reads events of these types, with this key if one is given, from now on, or after a cursor.
    pub fn events(&self, types: &[&str], key: Option<&str>, after: Option<String>) -> EventStream {
        let types = types.iter().map(|ty| (*ty).to_owned()).collect();
        EventStream::new(self.clone(), types, key.map(str::to_owned), after)
    }
}

impl EventStream {
    pub(super) fn new(
        client: Client,
        types: Vec<String>,
        key: Option<String>,
        cursor: Option<String>,
    ) -> Self {
        Self {
            client,
            types,
            key,
            cursor,
            response: None,
            parser: SseParser::default(),
            ready: VecDeque::new(),
            failures: 0,
            reconnection: Duration::ZERO,
            resume_at: None,
        }
    }

    /// The cursor after the last frame, with which another stream can go on.
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// Cuts the connection. The next frame is read over a new one.
    pub fn cut(&mut self) {
        self.response = None;
        self.parser = SseParser::default();
        self.ready.clear();
    }

    /// The next event or gap. Reconnects for ever while there is no final refusal. Cancel-safe: no
    /// event is lost, and a pause before a reconnect is kept.
    ///
    /// # Errors
    /// If a gateway refuses the stream for good, such as an unknown type, or a cursor whose events
    /// retention has deleted: then [`ClientError::earliest_cursor`] has the first one that is left.
    pub async fn next(&mut self) -> Result<Streamed, ClientError> {
        loop {
            while let Some(event) = self.ready.pop_front() {
                if !event.id.is_empty() {
                    self.cursor = Some(event.id.clone());
                }
                if let Some(streamed) = streamed(event) {
                    return Ok(streamed);
                }
            }
            match self.read().await {
                Ok(()) => self.failures = 0,
                Err(Cut::For(pause)) => {
                    self.cut();
                    self.failures = self.failures.saturating_add(1);
                    self.resume_at = Instant::now().checked_add(pause);
                }
                Err(Cut::Final(error)) => return Err(error),
            }
        }
    }

    /// Reads the next bytes.
    async fn read(&mut self) -> Result<(), Cut> {
        if self.response.is_none() {
            if let Some(resume_at) = self.resume_at {
                sleep_until(resume_at).await;
                self.resume_at = None;
            }
            self.response = Some(self.connect().await?);
            self.parser = SseParser::default();
        }
        let Some(response) = &mut self.response else {
            return Ok(());
        };
        let chunk = timeout(SILENCE_MAX, response.chunk()).await;
        let Ok(Ok(Some(bytes))) = chunk else {
            return Err(self.cut_without_status());
        };
        self.ready.extend(self.parser.push(&bytes));
        if let Some(told) = self.parser.retry() {
            self.reconnection = told.min(RECONNECTION_MAX);
        }
        if self.parser.buffered() > EVENT_BYTES_MAX {
            let detail = format!("an event has more than {EVENT_BYTES_MAX} bytes");
            return Err(Cut::Final(ClientError::Invalid(detail)));
        }
        Ok(())
    }

    async fn connect(&self) -> Result<reqwest::Response, Cut> {
        let Some(url) = self.client.url("/events") else {
            let detail = "the client has no URL".to_owned();
            return Err(Cut::Final(ClientError::Invalid(detail)));
        };
        let types = self.types.iter().map(|ty| ("type", ty.as_str()));
        let key = self.key.iter().map(|key| ("key", key.as_str()));
        let query: Vec<(&str, &str)> = types.chain(key).collect();
        let request = self.client.shared.http.get(url).query(&query);
        let mut request = self
            .client
            .authorized(request)
            .header("accept", "text/event-stream");
        if let Some(cursor) = &self.cursor {
            request = request.header("last-event-id", cursor);
        }
        let response = match timeout(SILENCE_MAX, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if error.is_builder() => return Err(Cut::Final(unsendable(error))),
            Ok(Err(_)) | Err(_) => return Err(self.cut_without_status()),
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let told = retry_after(response.headers().get(RETRY_AFTER));
        let jitter = rand::rng().random_range(0.0..1.0);
        match next(Some(status.as_u16()), told, self.failures, jitter) {
            Next::RetryAfter(pause) => Err(Cut::For(pause.min(RETRY_AFTER_MAX))),
            Next::Final => {
                let text = timeout(SILENCE_MAX, response.text()).await;
                Err(Cut::Final(ClientError::Refused {
                    status: status.as_u16(),
                    problem: text.ok().and_then(Result::ok).unwrap_or_default(),
                }))
            }
        }
    }

    fn cut_without_status(&self) -> Cut {
        match next(
            None,
            None,
            self.failures,
            rand::rng().random_range(0.0..1.0),
        ) {
            Next::RetryAfter(pause) => Cut::For(pause.max(self.reconnection)),
            Next::Final => Cut::For(Duration::from_secs(1)),
        }
    }
}

/// Why reading stopped.
enum Cut {
    /// To be resumed after this time.
    For(Duration),
    Final(ClientError),
}

/// The frame of an event. None for those that only carry a cursor, or announce the end.
fn streamed(event: SseEvent) -> Option<Streamed> {
    match event.name.as_str() {
        "heartbeat" | "slow" | "reconnect" | "failed" => None,
        "gap" => Some(Streamed::Gap {
            detail: event.data,
            cursor: event.id,
        }),
        _ => Some(Streamed::Event {
            ty: event.name,
            data: event.data,
            cursor: event.id,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cancelled_wait_does_not_shorten_the_pause() {
        // Nothing listens there.
        let client = Client::new(["http://127.0.0.1:1"]);
        let mut stream = client.events(&["shop.order-placed.v1"], None, None);
        for _ in 0..20 {
            let next = timeout(Duration::from_millis(20), stream.next()).await;
            assert!(next.is_err(), "{next:?}");
        }
        // The pauses double, from at least 50 ms on: without them there would be 20.
        assert!((1..10).contains(&stream.failures), "{}", stream.failures);
    }
}
