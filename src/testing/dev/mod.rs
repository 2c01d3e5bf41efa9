//! A Kafka for development that outlives the command that started it: `evenkeel dev up`, `status`,
//! `down`.
//!
//! There is one per user. The file `kafka.json` in `$XDG_STATE_HOME/evenkeel/dev` (`~/.local/state`
//! if that is not set) records what runs. With Java, Kafka's data and log are in the same
//! directory. [`down`] stops Kafka and deletes its data.
//!
//! A record of a Kafka that is gone, after a restart of the machine for example, counts as none. A
//! process is recognised by its command line and not by its id alone, as ids are reused. The
//! functions are meant for one caller at a time.
//!
//! ```no_run
//! use evenkeel::testing::{KafkaKind, StartError, dev};
//!
//! # async fn example() -> Result<(), StartError> {
//! let running = dev::up(KafkaKind::Auto, 9092).await?;
//! println!("{}", running.description);
//! assert!(dev::down().await?.is_some());
//! assert_eq!(dev::status().await?, None);
//! # Ok(())
//! # }
//! ```

mod container;
mod process;
mod record;
mod status;

pub use status::DevStatus;

use super::kafka::container::docker;
use super::{KafkaKind, StartError};
use record::{Record, Running};
use std::net::TcpListener;

/// Starts a Kafka on `port` of 127.0.0.1, or returns the one that runs already, whatever its kind
/// and port.
///
/// [`KafkaKind::Auto`] tries Docker, then Java. The mock cluster is not available, because it ends
/// with its process. Returns when Kafka accepts requests. A failed start leaves nothing running.
///
/// The first start may download about 45 MB of jars, or the image.
///
/// # Errors
/// Returns [`StartError::PortTaken`] if the port is in use, [`StartError::NoneFound`] if neither
/// Docker nor Java is available, and [`StartError::Unavailable`] if the requested kind is not.
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
                "it runs inside one process and ends with it; start Kafka with Docker or Java, \
                 or keep a process in the foreground",
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

/// Stops the development Kafka and deletes its data. Returns its former status, or `None` if none
/// ran. Kafka has 20 s to stop cleanly before it is killed.
///
/// # Errors
/// Returns an error if Docker or the process does not stop, or a file cannot be removed. Call it
/// again: a part that is gone already is no error.
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

/// The status of the development Kafka, or `None` if none runs. It does not ask the broker: a
/// process that exists counts as running.
///
/// # Errors
/// Returns an error if Docker does not answer or the file cannot be read.
pub async fn status() -> Result<Option<DevStatus>, StartError> {
    let Some(record) = Record::read()? else {
        return Ok(None);
    };
    Ok(is_running(&record).await?.then(|| record.status()))
}

/// Whether the recorded container or process exists.
async fn is_running(record: &Record) -> Result<bool, StartError> {
    match &record.running {
        Running::Container { name } => docker::is_running(name).await,
        Running::Process { pid } => Ok(process::is_ours(*pid)),
    }
}
