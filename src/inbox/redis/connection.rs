//! The connection to Redis: one, shared, and made anew when it breaks.
//!
//! Owns how long a request may take and which error becomes of its failure. Knows no state of a delivery.

use super::RedisSettings;
use super::error;
use crate::inbox::InboxError;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::TcpSettings;
use redis::{Client, Cmd, FromRedisValue, IntoConnectionInfo};
use std::collections::HashMap;

/// Requests that wait for being written before more have to wait for them: as many as deliveries may run at a time.
const WAITING_MAX: usize = 1_024;

/// A Redis, and how it is used.
pub(super) struct Store {
    /// Host and port, for messages: the URL may hold a password.
    pub(super) address: String,
    pub(super) settings: RedisSettings,
    connection: ConnectionManager,
}

impl Store {
    /// Connects, and looks once whether the server would throw deliveries away.
    pub(super) async fn connect(url: &str, settings: &RedisSettings) -> Result<Self, InboxError> {
        settings.validate()?;
        let refused = |reason: &str| InboxError::Setting(format!("the URL of Redis {reason}"));
        if ["rediss:", "valkeys:"]
            .iter()
            .any(|scheme| url.starts_with(scheme))
        {
            return Err(refused(
                "asks for TLS, which this build does not have; reach Redis through a TLS proxy on this machine, or in a trusted network",
            ));
        }
        let info = url
            .into_connection_info()
            .map_err(|_| refused("cannot be read; redis://user:password@host:port/database"))?;
        let address = info.addr().to_string();
        let info = info.set_tcp_settings(tcp(settings));
        let failed = |error| error::failed(&address, "open", error);
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(settings.timeout))
            .set_response_timeout(Some(settings.timeout))
            // The callers try again, each in its own time.
            .set_number_of_retries(0)
            .set_pipeline_buffer_size(WAITING_MAX);
        let client = Client::open(info).map_err(failed)?;
        let connection = ConnectionManager::new_lazy_with_config(client, config).map_err(failed)?;
        let store = Self {
            address,
            settings: settings.clone(),
            connection,
        };
        store.look().await?;
        Ok(store)
    }

    /// Runs a script on a delivery's key.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        doing: &'static str,
        script: &'static str,
        key: &str,
        arguments: &[&[u8]],
    ) -> Result<T, InboxError> {
        self.ask(
            doing,
            redis::cmd("EVAL")
                .arg(script)
                .arg(1)
                .arg(key)
                .arg(arguments),
        )
        .await
    }

    /// Sends a command, and gives up when the answer takes too long.
    async fn ask<T: FromRedisValue>(
        &self,
        doing: &'static str,
        command: &Cmd,
    ) -> Result<T, InboxError> {
        let limit = self.settings.timeout;
        let mut connection = self.connection.clone();
        match tokio::time::timeout(limit, command.query_async(&mut connection)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if !error.is_timeout() => {
                Err(error::failed(&self.address, doing, error))
            }
            _ => Err(error::silent(&self.address, doing, limit)),
        }
    }

    /// Looks whether it answers, and warns of what would forget deliveries before their time.
    async fn look(&self) -> Result<(), InboxError> {
        let info: String = match self.ask("open", &redis::cmd("INFO")).await {
            // A user may have no right to it, and all that are needed.
            Err(InboxError::NotWritable(_)) => {
                let _: i64 = self
                    .run("open", "return 1", &self.settings.prefix, &[])
                    .await?;
                tracing::warn!(
                    address = self.address,
                    "this user may not ask Redis for INFO; see to it that maxmemory-policy is noeviction and appendonly is yes"
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
                "Redis evicts keys when its memory is used up, and with them which events were handled; set maxmemory-policy to \
                 noeviction, so that events wait instead"
            );
        }
        if fact("aof_enabled") == "0" {
            tracing::warn!(
                address = self.address,
                "Redis keeps no log of its commands, so that a restart forgets which events were handled; set appendonly to yes"
            );
        }
        Ok(())
    }
}

/// Requests go out at once, and a peer that has gone without a word is given up.
fn tcp(settings: &RedisSettings) -> TcpSettings {
    let tcp = TcpSettings::default().set_nodelay(true);
    // Elsewhere the system's own, longer limit holds.
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(2 * settings.timeout);
    #[cfg(not(target_os = "linux"))]
    let _ = settings;
    tcp
}
