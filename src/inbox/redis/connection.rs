//! The connection to Redis: one, shared, and reopened when it breaks.
//!
//! Owns the time limit of a request and the mapping of its failure to an error. Knows no state of a
//! delivery.
//!
//! Requests of all deliveries share one connection, which pipelines them. A broken connection fails
//! its requests at once and is reopened by the next one; the callers retry, so no request is
//! repeated here. The limit of a request also bounds its wait for the connection. A connection to a
//! server that became a replica does not break: it is replaced when the server refuses a request as
//! a replica, because the address may lead to the new primary by then.

use super::{RedisSettings, error};
use crate::inbox::InboxError;
use crate::inbox::shared::sent_replies::Sent;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::TcpSettings;
use redis::{Client, Cmd, FromRedisValue, IntoConnectionInfo, RedisError};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bounds the requests that wait to be written; at the bound callers wait. As many as deliveries
/// that may run at a time.
const WAITING_MAX: usize = 1_024;

/// The age at which a connection may be replaced: requests that a replica refuses together replace
/// it once.
const REPLACE_AFTER: Duration = Duration::from_secs(1);

/// A Redis server and its settings.
pub(super) struct Store {
    /// Host and port, for messages: the URL may contain a password.
    pub(super) address: String,
    pub(super) settings: RedisSettings,
    client: Client,
    current: Mutex<Current>,
    /// Replies to delete.
    pub(super) sent: Sent,
}

/// The connection that requests use.
struct Current {
    /// Reopens itself if it breaks. A clone is a handle on the same connection.
    connection: ConnectionManager,
    since: Instant,
}

impl Current {
    /// A connection that the first request opens.
    fn new(client: &Client, settings: &RedisSettings) -> Result<Self, RedisError> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(settings.timeout))
            .set_response_timeout(Some(settings.timeout))
            // The callers retry, each with its own pauses.
            .set_number_of_retries(0)
            .set_pipeline_buffer_size(WAITING_MAX);
        Ok(Self {
            connection: ConnectionManager::new_lazy_with_config(client.clone(), config)?,
            since: Instant::now(),
        })
    }
}

impl Store {
    /// Connects, and checks once whether the server could discard deliveries.
    pub(super) async fn connect(url: &str, settings: &RedisSettings) -> Result<Self, InboxError> {
        settings.validate()?;
        let refused = |reason: &str| InboxError::Setting(format!("the URL of Redis {reason}"));
        let asks_for_tls = ["rediss:", "valkeys:"].iter().any(|s| url.starts_with(s));
        if asks_for_tls && cfg!(not(feature = "tls")) {
            return Err(refused(
                "requires TLS, which this build lacks: build evenkeel with its feature `tls`",
            ));
        }
        let info = url
            .into_connection_info()
            .map_err(|_| refused("is invalid; write redis://user:password@host:port/database"))?;
        let address = info.addr().to_string();
        let info = info.set_tcp_settings(tcp(settings));
        let failed = |error| error::failed(&address, "open", error);
        let client = Client::open(info).map_err(failed)?;
        let current = Current::new(&client, settings).map_err(failed)?;
        let store = Self {
            address,
            settings: settings.clone(),
            client,
            current: Mutex::new(current),
            sent: Sent::default(),
        };
        store.check_server().await?;
        Ok(store)
    }

    /// Runs a script on a delivery's key. Cancel-safe for the connection, but not for the data: the
    /// script may be executed although the future was dropped.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        doing: &'static str,
        script: &'static str,
        key: &str,
        arguments: &[&[u8]],
    ) -> Result<T, InboxError> {
        self.send(
            doing,
            redis::cmd("EVAL")
                .arg(script)
                .arg(1)
                .arg(key)
                .arg(arguments),
        )
        .await
    }

    /// Sends a command, and stops waiting at the time limit.
    async fn send<T: FromRedisValue>(
        &self,
        doing: &'static str,
        command: &Cmd,
    ) -> Result<T, InboxError> {
        let limit = self.settings.timeout;
        let mut connection = self.current().connection.clone();
        match tokio::time::timeout(limit, command.query_async(&mut connection)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if !error.is_timeout() => {
                if error::is_of_replica(&error) {
                    self.replace_connection();
                }
                Err(error::failed(&self.address, doing, error))
            }
            _ => Err(error::no_answer(&self.address, doing, limit)),
        }
    }

    /// Makes later requests use a new connection, for which the address is resolved again. Running
    /// requests keep the old one.
    fn replace_connection(&self) {
        let mut current = self.current();
        if current.since.elapsed() < REPLACE_AFTER {
            return;
        }
        match Current::new(&self.client, &self.settings) {
            Ok(replacement) => *current = replacement,
            Err(error) => tracing::warn!(
                address = self.address,
                %error,
                "cannot replace the connection to a replica of Redis"
            ),
        }
    }

    /// The connection. Never locked over an await.
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks that the server answers, and warns of settings that would forget deliveries too
    /// early.
    async fn check_server(&self) -> Result<(), InboxError> {
        let info: String = match self.send("open", &redis::cmd("INFO")).await {
            // A user may lack this permission and still have all the necessary ones.
            Err(InboxError::NotWritable(_)) => {
                let _: i64 = self
                    .run("open", "return 1", &self.settings.prefix, &[])
                    .await?;
                tracing::warn!(
                    address = self.address,
                    "no permission for Redis INFO; make sure that maxmemory-policy is noeviction \
                     and appendonly is yes"
                );
                return Ok(());
            }
            info => info?,
        };
        let facts: HashMap<&str, &str> = info
            .lines()
            .filter_map(|line| line.split_once(':'))
            .collect();
        let fact = |name| facts.get(name).copied().unwrap_or_default();
        let policy = fact("maxmemory_policy");
        if fact("maxmemory") != "0" && policy != "noeviction" {
            tracing::warn!(
                address = self.address,
                policy,
                "Redis evicts keys when its memory is full and then forgets handled events; set \
                 maxmemory-policy to noeviction, so that events wait instead"
            );
        }
        if fact("aof_enabled") == "0" {
            tracing::warn!(
                address = self.address,
                "Redis has no append-only file and forgets handled events at a restart; set \
                 appendonly to yes"
            );
        }
        Ok(())
    }
}

/// Sends requests at once, and detects a peer that has disappeared.
fn tcp(settings: &RedisSettings) -> TcpSettings {
    let tcp = TcpSettings::default().set_nodelay(true);
    // On other systems the system's own, longer limit applies.
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(2 * settings.timeout);
    #[cfg(not(target_os = "linux"))]
    let _ = settings;
    tcp
}
