//! Reads the operator's files: bounded in size, with errors that name the line and no value.
//!
//! Must not know what the files mean.

use super::AccessError;
use serde::de::DeserializeOwned;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::Read;
use std::path::Path;
use std::time::SystemTime;

/// The size that a file may have.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Reads a file of at most 1 MiB.
pub(super) fn read_file(
    what: &'static str,
    path: &Path,
) -> Result<(String, Metadata), AccessError> {
    let unreadable = |source| AccessError::Unreadable {
        what,
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(AccessError::Invalid {
            what,
            path: path.to_owned(),
            reason: format!("it is larger than {MAX_FILE_BYTES} bytes"),
        });
    }
    Ok((text, metadata))
}

/// By what a change of a file is recognised. A file that is put in the place of another has another
/// stamp even if their times and sizes are equal: `cp -p`, archives, and stores whose files all have
/// the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileStamp {
    modified: Option<SystemTime>,
    length: u64,
    /// Device and inode, and when anything of the file changed, in seconds and nanoseconds.
    #[cfg(unix)]
    place: [i64; 4],
}

impl FileStamp {
    /// The stamp of the file to which the path leads. `None` if there is none.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            modified: metadata.modified().ok(),
            length: metadata.len(),
            #[cfg(unix)]
            place: place_of(&metadata),
        })
    }
}

#[cfg(unix)]
fn place_of(metadata: &Metadata) -> [i64; 4] {
    use std::os::unix::fs::MetadataExt;
    [
        metadata.dev().cast_signed(),
        metadata.ino().cast_signed(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ]
}

/// What is wrong with a TOML text.
#[derive(Debug)]
pub(super) struct TomlFault {
    /// The line, from 1, if it is known.
    pub(super) line: Option<usize>,
    /// What is wrong, without the value.
    pub(super) reason: String,
}

impl fmt::Display for TomlFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

/// Parses TOML.
pub(super) fn parse_toml<T: DeserializeOwned>(text: &str) -> Result<T, TomlFault> {
    toml::from_str(text).map_err(|error: toml::de::Error| TomlFault {
        line: error.span().map(|span| line_at(text, span.start)),
        reason: without_values(error.message()),
    })
}

/// The line of a byte position, from 1.
fn line_at(text: &str, at: usize) -> usize {
    let before = text.get(..at).unwrap_or(text);
    before.matches('\n').count() + 1
}

/// The message without its values, which serde puts between double quotes. A value may contain
/// quotes itself, so everything between the first and the last one is removed.
fn without_values(message: &str) -> String {
    match (message.find('"'), message.rfind('"')) {
        (Some(first), Some(last)) if first < last => {
            format!("{}…{}", &message[..first], &message[last + 1..])
        }
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_the_line_and_no_value() {
        let fault = parse_toml::<std::collections::BTreeMap<String, u32>>("a = 1\nb = \"secret\"");
        let fault = fault.expect_err("a text is no number");
        assert_eq!(fault.line, Some(2));
        assert!(!fault.to_string().contains("secret"), "{fault}");
    }

    #[test]
    fn a_huge_file_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("tokens.toml");
        std::fs::write(&path, " ".repeat(1024 * 1024 + 1)).expect("written");
        let error = read_file("token file", &path).expect_err("too large");
        assert!(matches!(error, AccessError::Invalid { .. }), "{error}");
    }
}
