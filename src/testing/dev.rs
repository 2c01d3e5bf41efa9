//! A Kafka for development that stays when the command that started it ends: `evenkeel dev up`, `status`, `down`.
//!
//! There is one per user. What runs is written to `kafka.json` in `$XDG_STATE_HOME/evenkeel/dev` (`~/.local/state`
//! where that is not set); with Java, Kafka's data and log are beside it. [`down`] ends Kafka and forgets its data.

mod container;
mod process;
mod record;

use super::{KafkaKind, StartError};
use record::{Record, Running};
use std::net::TcpListener;

/// The development Kafka that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevStatus {
    /// [`KafkaKind::Docker`] or [`KafkaKind::Java`].
    pub kind: KafkaKind,
    /// Bootstrap servers.
    pub brokers: String,
    /// What runs and where its log is, in one line.
    pub description: String,
}

/// Starts a Kafka on `port` of 127.0.0.1, or finds the one that was started before, whatever its kind and port.
///
/// [`KafkaKind::Auto`] takes Docker, else Java. The mock cluster cannot be had: it ends with the process it is in.
/// Returns when Kafka serves; a start that fails leaves nothing running.
pub async fn up(kind: KafkaKind, port: u16) -> Result<DevStatus, StartError> {
    if let Some(status) = status().await? {
        return Ok(status);
    }
    let taken = |error| StartError::PortTaken {
        port,
        source: error,
    };
    TcpListener::bind(("127.0.0.1", port)).map_err(taken)?;
    let record = match kind {
        KafkaKind::Docker => container::start(port).await?,
        KafkaKind::Java => process::start(port).await?,
        KafkaKind::Mock => {
            return Err(StartError::mock(
                "it lives inside one process and ends with it; start Kafka with Docker or Java, or keep a process in the foreground",
            ));
        }
        KafkaKind::Auto => match container::start(port).await {
            Ok(record) => record,
            Err(without_docker) => {
                process::start(port)
                    .await
                    .map_err(|without_java| StartError::NoneFound {
                        tried: format!("{without_docker}; {without_java}"),
                    })?
            }
        },
    };
    record.write()?;
    Ok(record.status())
}

/// Ends the development Kafka and removes its data; says what it was, none if nothing ran.
pub async fn down() -> Result<Option<DevStatus>, StartError> {
    let Some(record) = Record::read()? else {
        return Ok(None);
    };
    let ran = is_running(&record).await?;
    match &record.running {
        Running::Container { name } => container::stop(name).await?,
        Running::Process { pid } => process::stop(*pid).await?,
    }
    Record::remove()?;
    Ok(ran.then(|| record.status()))
}

/// The development Kafka that runs, if any.
pub async fn status() -> Result<Option<DevStatus>, StartError> {
    let Some(record) = Record::read()? else {
        return Ok(None);
    };
    Ok(is_running(&record).await?.then(|| record.status()))
}

async fn is_running(record: &Record) -> Result<bool, StartError> {
    match &record.running {
        Running::Container { name } => container::is_running(name).await,
        Running::Process { pid } => Ok(process::is_ours(*pid)),
    }
}
