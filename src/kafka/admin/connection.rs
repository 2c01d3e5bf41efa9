//! The admin's connection: the client's handles and the deadline of the request under way.
//!
//! Owns how long a request may take and what is known about a connection that failed. Knows no topic and no group.

use crate::durations::CALL_MAX;
use crate::kafka::error::{failed, unanswered, unreachable};
use crate::kafka::{KafkaConfig, KafkaError, log};
use rdkafka::ClientContext;
use rdkafka::admin::AdminClient;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};
use rdkafka::metadata::Metadata;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long one attempt to connect may take before the client's errors are looked at.
const ATTEMPT: Duration = Duration::from_millis(500);

/// How long events are listened for after a failed attempt.
const EVENTS_WAIT: Duration = Duration::from_millis(5);

/// The last error of a connection, for the message of the request that needed it.
#[derive(Clone, Default)]
pub(super) struct LastError {
    last: Arc<Mutex<Option<ConnectionError>>>,
}

#[derive(Clone)]
struct ConnectionError {
    code: Option<Code>,
    reason: String,
}

impl ClientContext for LastError {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log::forward(level, facility, message);
    }

    fn error(&self, error: ClientError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
        // "All brokers are down" follows the errors of the single brokers, which say more.
        if error.rdkafka_error_code() != Some(Code::AllBrokersDown) {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            *last = Some(ConnectionError {
                code: error.rdkafka_error_code(),
                reason: reason.to_owned(),
            });
        }
    }
}

impl ConsumerContext for LastError {}

/// The client's handles, made once.
struct Handles {
    config: KafkaConfig,
    timeout: Duration,
    /// Asks for metadata, offsets and groups. Belongs to no group. There until the drop.
    client: Option<BaseConsumer<LastError>>,
    last_error: LastError,
    /// Creates topics and reads their settings; started when first needed.
    admin: OnceLock<AdminClient<log::LoggingContext>>,
}

impl Drop for Handles {
    fn drop(&mut self) {
        // Ending the clients waits for their threads, which must not hold up a task of the runtime. Without a thread it does.
        let clients = (self.client.take(), self.admin.take());
        let _ = std::thread::Builder::new()
            .name("evenkeel-admin-end".to_owned())
            .spawn(move || drop(clients));
    }
}

/// The handles and the deadline of one request.
pub(super) struct Connection {
    handles: Arc<Handles>,
    deadline: Instant,
}

impl Connection {
    /// Connects and asks for metadata once, so that a wrong address is known now. Blocks.
    pub(super) fn open(config: KafkaConfig, timeout: Duration) -> Result<Self, KafkaError> {
        let timeout = timeout.min(CALL_MAX);
        let last_error = LastError::default();
        let client = config
            .client()?
            .create_with_context(last_error.clone())
            .map_err(|error| failed("creating a client", error))?;
        let handles = Handles {
            config,
            timeout,
            client: Some(client),
            last_error,
            admin: OnceLock::new(),
        };
        let connection = Self {
            handles: Arc::new(handles),
            deadline: Instant::now() + timeout,
        };
        connection.wait_for_answer()?;
        Ok(connection)
    }

    /// The same handles with a deadline that starts now.
    pub(super) fn begin(&self) -> Self {
        Self {
            handles: Arc::clone(&self.handles),
            deadline: Instant::now() + self.handles.timeout,
        }
    }

    pub(super) fn config(&self) -> &KafkaConfig {
        &self.handles.config
    }

    pub(super) fn client(&self) -> &BaseConsumer<LastError> {
        let client = self.handles.client.as_ref();
        client.expect("the client is there until the drop")
    }

    /// The client that creates topics.
    pub(super) fn admin(&self) -> Result<&AdminClient<log::LoggingContext>, KafkaError> {
        if let Some(admin) = self.handles.admin.get() {
            return Ok(admin);
        }
        let admin = self
            .config()
            .client()?
            .create_with_context(log::LoggingContext)
            .map_err(|error| failed("creating an admin client", error))?;
        Ok(self.handles.admin.get_or_init(|| admin))
    }

    /// What is left of the time, for the request `what` that comes next.
    pub(super) fn left(&self, what: &str) -> Result<Duration, KafkaError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        // The client counts in milliseconds and takes none as "answer from memory".
        if left < Duration::from_millis(1) {
            return Err(KafkaError::Timeout {
                what: what.to_owned(),
                seconds: self.handles.timeout.as_secs(),
            });
        }
        Ok(left)
    }

    /// The cluster's metadata: of one topic, or of all.
    pub(super) fn metadata(&self, topic: Option<&str>) -> Result<Metadata, KafkaError> {
        let what = "asking for metadata";
        self.client()
            .fetch_metadata(topic, self.left(what)?)
            .map_err(|error| self.unanswered(what, error))
    }

    /// The error of a request that needed a connection.
    pub(super) fn unanswered(&self, what: &str, error: ClientError) -> KafkaError {
        let config = self.config();
        unanswered(&config.brokers, what, self.handles.timeout, error)
    }

    fn wait_for_answer(&self) -> Result<(), KafkaError> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let attempt = self
                .client()
                .fetch_metadata(None, left.min(ATTEMPT).max(Duration::from_millis(1)));
            let Err(error) = attempt else {
                return Ok(());
            };
            self.serve_events();
            let last = self.handles.last_error.last.lock();
            let last = last.unwrap_or_else(PoisonError::into_inner).clone();
            match last {
                // Trying again with the same credentials only locks accounts.
                Some(ConnectionError {
                    code: Some(Code::Authentication | Code::SaslAuthenticationFailed),
                    reason,
                }) => {
                    return Err(KafkaError::Refused {
                        what: format!("connecting to {}", self.config().brokers),
                        cause: reason,
                    });
                }
                _ if left > ATTEMPT => {}
                Some(ConnectionError { reason, .. }) => {
                    let brokers = &self.config().brokers;
                    return Err(unreachable(brokers, self.handles.timeout, &reason));
                }
                None => return Err(self.unanswered("connecting", error)),
            }
        }
    }

    /// Lets the client report errors and log lines; it does so only when polled.
    fn serve_events(&self) {
        // A poll without a wait would end at the first log line.
        while self.client().poll(EVENTS_WAIT).is_some() {}
    }

    /// Says early what librdkafka's mock cluster cannot do: it has no controller, so that the client would wait for one
    /// until the time is up.
    pub(super) fn beyond_mock(&self, what: &str) -> Result<(), KafkaError> {
        let id = self.client().client().fetch_cluster_id(self.left(what)?);
        if id.is_some_and(|id| id.starts_with("mockCluster")) {
            return Err(KafkaError::Unsupported {
                what: what.to_owned(),
                cause: "this is librdkafka's mock cluster".to_owned(),
            });
        }
        Ok(())
    }
}

/// Runs blocking calls on a thread that may block.
///
/// The client's bindings panic where a broker sends a name that is not UTF-8; that ends here, as an error.
pub(super) async fn blocking<T: Send + 'static>(
    what: &str,
    ask: impl FnOnce() -> Result<T, KafkaError> + Send + 'static,
) -> Result<T, KafkaError> {
    match tokio::task::spawn_blocking(ask).await {
        Ok(answer) => answer,
        Err(error) => Err(KafkaError::Unreadable {
            what: what.to_owned(),
            cause: error.to_string(),
        }),
    }
}
