//! The file that records which Kafka was started.
//!
//! It is read by later commands, which may be of another version of the tool. So its keys stay.

use super::DevStatus;
use crate::testing::{KafkaKind, StartError};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The content of `kafka.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) running: Running,
    pub(super) brokers: String,
    pub(super) description: String,
}

/// The process or container that runs.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(super) enum Running {
    Container { name: String },
    Process { pid: u32 },
}

impl Record {
    /// Reads the file. `None` if there is none.
    pub(super) fn read() -> Result<Option<Self>, StartError> {
        let path = file();
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|source| state(&path, source))?,
        };
        let record = serde_json::from_str(&text).map_err(|source| state(&path, source.into()))?;
        Ok(Some(record))
    }

    /// Replaces the file atomically, so that no reader sees a partial file.
    pub(super) fn write(&self) -> Result<(), StartError> {
        let path = file();
        let write = || {
            let part = path.with_extension("part");
            std::fs::create_dir_all(directory())?;
            std::fs::write(&part, serde_json::to_vec_pretty(self)?)?;
            std::fs::rename(part, &path)
        };
        write().map_err(|source| state(&path, source))
    }

    /// Removes the file, and the data of a Kafka that ran with Java.
    pub(super) fn remove() -> Result<(), StartError> {
        let path = directory();
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(state(&path, error)),
            _ => Ok(()),
        }
    }

    /// The recorded Kafka, as callers see it.
    pub(super) fn status(&self) -> DevStatus {
        DevStatus {
            kind: match self.running {
                Running::Container { .. } => KafkaKind::Docker,
                Running::Process { .. } => KafkaKind::Java,
            },
            brokers: self.brokers.clone(),
            description: self.description.clone(),
        }
    }
}

/// `$XDG_STATE_HOME/evenkeel/dev`, else `~/.local/state/evenkeel/dev`, else a directory below the
/// one for temporary files.
pub(super) fn directory() -> PathBuf {
    let named = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    named("XDG_STATE_HOME")
        .or_else(|| named("HOME").map(|home| home.join(".local/state")))
        .unwrap_or_else(std::env::temp_dir)
        .join("evenkeel/dev")
}

/// The error of a file or directory.
pub(super) fn state(path: &Path, source: std::io::Error) -> StartError {
    StartError::State {
        path: path.to_owned(),
        source,
    }
}

fn file() -> PathBuf {
    directory().join("kafka.json")
}
