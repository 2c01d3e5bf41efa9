//! The client of the collector: sends batches of spans, and logs an outage once.
//!
//! The exporter's thread has no runtime. It hands each request to the program's, and waits for the
//! answer: no handler ever does.

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;

/// The most bytes of an answer that are read: it lists refused spans at most.
const ANSWER_MAX: usize = 64 << 10;

/// A client of the collector. Clones share the memory of an outage.
#[derive(Debug, Clone)]
pub(super) struct Collector {
    client: reqwest::Client,
    runtime: Handle,
    outage: Arc<Outage>,
}

/// Whether the collector has refused the last batch.
#[derive(Debug, Default)]
struct Outage(AtomicBool);

impl Collector {
    /// Creates a client that waits `timeout` for each answer. Must be called inside a runtime.
    ///
    /// # Errors
    /// If the client cannot be created: its TLS cannot be initialised.
    pub(super) fn new(timeout: Duration) -> reqwest::Result<Self> {
        let client = reqwest::Client::builder()
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            client,
            runtime: Handle::current(),
            outage: Arc::default(),
        })
    }
}

#[async_trait::async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sending = send(self.client.clone(), request);
        // Fails when the runtime has ended, with the process.
        let sent = self.runtime.spawn(sending).await?;
        match &sent {
            Ok(response) if response.status().is_success() => self.outage.ended(),
            Ok(response) => self.outage.noticed(&response.status()),
            Err(error) => self.outage.noticed(error),
        }
        Ok(sent?)
    }
}

/// One request. Errors name no URL, which may contain a password.
async fn send(
    client: reqwest::Client,
    request: Request<Bytes>,
) -> reqwest::Result<Response<Bytes>> {
    let request = reqwest::Request::try_from(request)?;
    let sent = client.execute(request).await;
    let mut received = sent.map_err(reqwest::Error::without_url)?;
    let mut answer = Vec::new();
    while answer.len() < ANSWER_MAX
        && let Some(chunk) = received
            .chunk()
            .await
            .map_err(reqwest::Error::without_url)?
    {
        answer.extend_from_slice(&chunk);
    }
    let mut response = Response::new(Bytes::from(answer));
    *response.status_mut() = received.status();
    *response.headers_mut() = received.headers().clone();
    Ok(response)
}

impl Outage {
    /// A batch was refused or lost. Logs the first.
    fn noticed(&self, reason: &dyn std::fmt::Display) {
        if !self.0.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %reason,
                "the collector does not accept spans; they are dropped while that lasts"
            );
        }
    }

    /// A batch was accepted. Logs the first after an outage.
    fn ended(&self) {
        if self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed) {
            tracing::info!("spans are exported again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::captured_log::capture;

    #[test]
    fn an_outage_is_logged_at_its_beginning_and_end() {
        let log = capture(tracing_subscriber::fmt().without_time(), || {
            let outage = Outage::default();
            outage.ended();
            outage.noticed(&"refused");
            outage.noticed(&"refused");
            outage.ended();
            outage.ended();
        });
        assert_eq!(log.lines().count(), 2, "{log}");
        assert!(log.contains("reason=refused"), "{log}");
        assert!(log.contains("exported again"), "{log}");
    }

    #[tokio::test]
    async fn an_absent_collector_is_an_error_without_its_address() {
        let collector = Collector::new(Duration::from_secs(5)).expect("a client");
        // Nothing listens at a port that was free a moment ago.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        drop(listener);
        let url = format!("http://jane:hunter2@127.0.0.1:{port}/v1/traces");
        let mut request = Request::new(Bytes::from_static(b"spans"));
        *request.uri_mut() = url.parse().expect("a URL");
        let sent = collector.send_bytes(request).await;
        let error = sent.expect_err("nobody listens").to_string();
        assert!(!error.contains("hunter2"), "{error}");
        assert!(collector.outage.0.load(Ordering::Relaxed));
    }
}
