//! The admin's connection: the client's handles and the deadline of the current request.
//!
//! Owns the time limits of requests and the known causes of a failed connection. Knows no topic and
//! no group.
//!
//! A [`Connection`] is the handles and one deadline. [`Connection::begin`] makes another one for
//! each request, so that a request of several steps has one limit for all of them: each step takes
//! [`Connection::left`] as its timeout.
//!
//! [`Connection::serve`] polls the client around a request: otherwise its log lines and errors
//! would queue for as long as it lives.
//!
//! librdkafka retries a failed connection for ever and reports the cause in an event, not in the
//! result of the request. So `wait_for_answer` tries in steps of half a second and looks for a
//! reported cause after each. A rejected login ends the wait at once: a further attempt might lock
//! the account.

use super::offset_client::{OffsetClient, OffsetClients};
use crate::durations::CALL_MAX;
use crate::kafka::error::connection_fault::{LastFault, serve_events};
use crate::kafka::error::{ServedClient, broken, explained, failed, unreachable};
use crate::kafka::native::{Login, discard_events, logged_in};
use crate::kafka::{KafkaConfig, KafkaError, log};
use rdkafka::admin::AdminClient;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::metadata::Metadata;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How long one attempt to connect may take before the client's errors are checked.
const CONNECT_ATTEMPT_LIMIT: Duration = Duration::from_millis(500);

/// The client's handles, created once.
struct Handles {
    config: KafkaConfig,
    timeout: Duration,
    /// Requests metadata, offsets and groups. Belongs to no group. Present until the drop.
    client: Option<ServedClient>,
    /// Must be dropped before the client.
    login: Option<Login>,
    /// Creates topics and reads their settings. Started at first use.
    admin: OnceLock<AdminHandle>,
    /// Requests committed offsets of groups. Started at first use.
    offsets: OffsetClients,
}

/// An admin client. The bindings never poll it, so its events are discarded: requests return its
/// errors, and [`Handles::client`] knows why connections fail.
struct AdminHandle {
    // Fields drop in order: it must be dropped before the client.
    _login: Login,
    client: AdminClient<log::LoggingContext>,
}

impl Drop for Handles {
    fn drop(&mut self) {
        // Ending the clients waits for their threads, which must not block a task of the runtime.
        // If no thread can be started, it does.
        drop(self.login.take());
        let offsets = std::mem::take(&mut self.offsets);
        let clients = (self.client.take(), self.admin.take(), offsets);
        let _ = std::thread::Builder::new()
            .name("evenkeel-admin-end".to_owned())
            .spawn(move || drop(clients));
    }
}

/// The handles and the deadline of one request. Used by one blocking thread at a time.
pub(super) struct Connection {
    handles: Arc<Handles>,
    deadline: Instant,
}

impl Connection {
    /// Connects and requests metadata once, so that a wrong address is found now. Blocks.
    pub(super) fn open(config: KafkaConfig, timeout: Duration) -> Result<Self, KafkaError> {
        let timeout = timeout.min(CALL_MAX);
        let made = logged_in(&config.client()?, LastFault::default());
        let (client, login) = made.map_err(|error| failed("creating a client", error))?;
        let handles = Handles {
            config,
            timeout,
            client: Some(ServedClient::new(client)),
            login: Some(login),
            admin: OnceLock::new(),
            offsets: OffsetClients::default(),
        };
        let connection = Self {
            handles: Arc::new(handles),
            deadline: Instant::now() + timeout,
        };
        connection.wait_for_answer()?;
        Ok(connection)
    }

    /// The same handles, with a deadline that starts now.
    pub(super) fn begin(&self) -> Self {
        Self {
            handles: Arc::clone(&self.handles),
            deadline: Instant::now() + self.handles.timeout,
        }
    }

    pub(super) fn config(&self) -> &KafkaConfig {
        &self.handles.config
    }

    /// Makes a request, and serves the events of [`client`](Self::client) around it. Blocks.
    pub(super) fn serve<T>(&self, ask: impl FnOnce(&Self) -> T) -> T {
        let _request = self.served_client().begin();
        ask(self)
    }

    /// The client for metadata, offsets and groups.
    pub(super) fn client(&self) -> &BaseConsumer<LastFault> {
        self.served_client().get()
    }

    fn served_client(&self) -> &ServedClient {
        let client = self.handles.client.as_ref();
        client.expect("the client is there until the drop")
    }

    /// The client that creates topics. Two callers may create it at the same time; one of the two
    /// is kept.
    pub(super) fn admin(&self) -> Result<&AdminClient<log::LoggingContext>, KafkaError> {
        if let Some(admin) = self.handles.admin.get() {
            return Ok(&admin.client);
        }
        let config = self.config().client()?;
        let client: AdminClient<log::LoggingContext> = config
            .create_with_context(log::LoggingContext)
            .map_err(|error| failed("creating an admin client", error))?;
        discard_events(client.inner());
        let admin = AdminHandle {
            _login: Login::new(client.inner(), &config),
            client,
        };
        Ok(&self.handles.admin.get_or_init(|| admin).client)
    }

    /// The client for committed offsets of any group, `group` among them.
    pub(super) fn offset_client(&self, group: &str) -> Result<Arc<OffsetClient>, KafkaError> {
        self.handles.offsets.get(self.config(), group)
    }

    /// Makes the next request for committed offsets use another client than this one.
    pub(super) fn discard_offset_client(&self, client: &Arc<OffsetClient>) {
        self.handles.offsets.discard(client);
    }

    /// The rest of the time, for the next request `what`.
    pub(super) fn remaining(&self, what: &str) -> Result<Duration, KafkaError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        // The client counts in milliseconds, and a timeout of 0 means to answer from memory.
        if left < Duration::from_millis(1) {
            return Err(KafkaError::Timeout {
                what: what.to_owned(),
                seconds: self.handles.timeout.as_secs(),
            });
        }
        Ok(left)
    }

    /// The cluster's metadata: of one topic, or of all topics.
    pub(super) fn metadata(&self, topic: Option<&str>) -> Result<Metadata, KafkaError> {
        let what = "requesting metadata";
        self.client()
            .fetch_metadata(topic, self.remaining(what)?)
            .map_err(|error| self.unanswered(what, error))
    }

    /// The time limit of each request.
    pub(super) fn timeout(&self) -> Duration {
        self.handles.timeout
    }

    /// The error of a request that needed a connection.
    pub(super) fn unanswered(&self, what: &str, error: ClientError) -> KafkaError {
        self.unanswered_by(self.client(), what, error)
    }

    /// As [`unanswered`](Self::unanswered), for a request of another client than
    /// [`client`](Self::client): the one that failed knows the cause.
    pub(super) fn unanswered_by(
        &self,
        client: &BaseConsumer<LastFault>,
        what: &str,
        error: ClientError,
    ) -> KafkaError {
        let (brokers, timeout) = (&self.config().brokers, self.timeout());
        explained(client, brokers, what, timeout, error)
    }

    /// Requests metadata until a broker answers, the deadline passes, or a fault is permanent.
    fn wait_for_answer(&self) -> Result<(), KafkaError> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let attempt = self.client().fetch_metadata(
                None,
                left.min(CONNECT_ATTEMPT_LIMIT)
                    .max(Duration::from_millis(1)),
            );
            let Err(error) = attempt else {
                return Ok(());
            };
            serve_events(self.client());
            let fault = self.client().context().get();
            let brokers = &self.config().brokers;
            match fault {
                // A retry with the same credentials only locks accounts. A rejected certificate may
                // be that of one broker only.
                Some(fault)
                    if fault.is_refused() || fault.is_permanent() && !brokers.contains(',') =>
                {
                    return Err(broken(brokers, &fault));
                }
                _ if left > CONNECT_ATTEMPT_LIMIT => {}
                Some(fault) => {
                    return Err(unreachable(brokers, self.handles.timeout, &fault.cause));
                }
                None => return Err(self.unanswered("connecting", error)),
            }
        }
    }

    /// The bootstrap servers without user information.
    pub(super) fn brokers(&self) -> String {
        crate::kafka::config::mask_userinfo(&self.config().brokers).into_owned()
    }

    /// The cluster's id.
    pub(super) fn cluster_id(&self) -> Result<Option<String>, KafkaError> {
        let left = self.remaining("requesting the cluster id")?;
        Ok(self.client().client().fetch_cluster_id(left))
    }

    /// Rejects at once a request that librdkafka's mock cluster does not support: it has no
    /// controller, and the client would wait for one until the timeout.
    pub(super) fn reject_on_mock(&self, what: &str) -> Result<(), KafkaError> {
        let id = self
            .client()
            .client()
            .fetch_cluster_id(self.remaining(what)?);
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
/// The client's bindings panic if a broker sends a name that is not UTF-8. Such a panic is returned
/// as an error.
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
