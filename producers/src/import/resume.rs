//! How far an import got, kept in a file beside its input so that the next run goes on there.
//!
//! Owns the file's form and when it may be believed. What it says is never ahead of the acknowledged lines, so a run that
//! was killed sends some lines again, with the same ids, and leaves none out.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// The form of the file; another one is not believed.
const VERSION: u32 = 1;

/// What is imported where. Progress counts only for the same file, unchanged, to the same brokers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    event_type: String,
    brokers: String,
    file_bytes: u64,
    modified_at: Timestamp,
}

/// How far an import got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The last line up to which every line is acknowledged or was named as bad.
    pub line: u64,
    /// Where in the file the next line begins, in bytes.
    pub end_bytes: u64,
    /// Acknowledged events up to there.
    pub acknowledged: u64,
    /// Bad lines up to there.
    pub bad_lines: u64,
}

#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    identity: Identity,
    progress: Progress,
}

/// What a file of progress says.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// There is none: nothing was interrupted.
    Nothing,
    /// Go on behind this line.
    Progress(Progress),
    /// It does not count, for this reason.
    NotOurs(&'static str),
}

/// The file of progress of one import.
#[derive(Debug, Clone)]
pub struct ResumeFile {
    path: PathBuf,
    identity: Identity,
}

impl Identity {
    /// What is imported where, from the file's metadata; fails where the system keeps no modification time.
    pub fn new(event_type: &str, brokers: &str, metadata: &Metadata) -> std::io::Result<Self> {
        let modified_at =
            Timestamp::try_from(metadata.modified()?).map_err(std::io::Error::other)?;
        Ok(Self {
            event_type: event_type.to_owned(),
            brokers: brokers.to_owned(),
            file_bytes: metadata.len(),
            modified_at,
        })
    }
}

impl ResumeFile {
    /// `INPUT.progress`.
    pub fn beside(input: &Path, identity: Identity) -> Self {
        let mut name = input.as_os_str().to_owned();
        name.push(".progress");
        Self {
            path: name.into(),
            identity,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says; fails when it is there but cannot be read.
    pub fn load(&self) -> std::io::Result<Found> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        let Ok(content) = serde_json::from_slice::<Content>(&text) else {
            return Ok(Found::NotOurs("it cannot be understood"));
        };
        let ours = &self.identity;
        let theirs = &content.identity;
        Ok(if content.version != VERSION {
            Found::NotOurs("it is of another version")
        } else if theirs.event_type != ours.event_type {
            Found::NotOurs("it belongs to another kind of import")
        } else if theirs.brokers != ours.brokers {
            Found::NotOurs("it belongs to an import to other brokers")
        } else if theirs != ours {
            Found::NotOurs("the input has changed since")
        } else {
            Found::Progress(content.progress)
        })
    }

    /// Replaces it in one step: whoever reads it finds the old or the new one, also after a kill or a power cut.
    pub fn save(&self, progress: Progress) -> std::io::Result<()> {
        let content = Content {
            version: VERSION,
            identity: self.identity.clone(),
            progress,
        };
        let mut draft = self.path.clone().into_os_string();
        draft.push(format!(".{}", std::process::id()));
        let mut file = File::create(&draft)?;
        file.write_all(&serde_json::to_vec(&content)?)?;
        file.sync_all()?;
        std::fs::rename(&draft, &self.path)
    }

    /// Removes it: the import is complete.
    pub fn remove(&self) -> std::io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRESS: Progress = Progress {
        line: 7,
        end_bytes: 99,
        acknowledged: 5,
        bad_lines: 1,
    };

    fn resume_file(input: &Path, event_type: &str, brokers: &str) -> ResumeFile {
        let metadata = std::fs::metadata(input).expect("the input is there");
        ResumeFile::beside(
            input,
            Identity::new(event_type, brokers, &metadata).expect("has a time"),
        )
    }

    #[test]
    fn progress_counts_only_for_the_same_unchanged_file_and_destination() {
        let folder = tempfile::tempdir().expect("a folder");
        let input = folder.path().join("orders.csv");
        std::fs::write(&input, "a\nb\n").expect("written");
        let ours = resume_file(&input, "order", "one:9092");
        assert_eq!(ours.load().expect("reads"), Found::Nothing);
        ours.save(PROGRESS).expect("saves");
        let check =
            |file: ResumeFile, expected: Found| assert_eq!(file.load().expect("reads"), expected);
        check(
            resume_file(&input, "order", "one:9092"),
            Found::Progress(PROGRESS),
        );
        check(
            resume_file(&input, "delivery", "one:9092"),
            Found::NotOurs("it belongs to another kind of import"),
        );
        check(
            resume_file(&input, "order", "two:9092"),
            Found::NotOurs("it belongs to an import to other brokers"),
        );
        std::fs::write(&input, "a\nb\nc\n").expect("written");
        check(
            resume_file(&input, "order", "one:9092"),
            Found::NotOurs("the input has changed since"),
        );
    }

    #[test]
    fn a_torn_file_of_progress_is_not_believed_and_a_removed_one_says_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let input = folder.path().join("orders.csv");
        std::fs::write(&input, "a\n").expect("written");
        let file = resume_file(&input, "order", "one:9092");
        file.save(PROGRESS).expect("saves");
        let text = std::fs::read(file.path()).expect("reads");
        std::fs::write(file.path(), &text[..text.len() / 2]).expect("written");
        assert_eq!(
            file.load().expect("reads"),
            Found::NotOurs("it cannot be understood")
        );
        file.remove().expect("removes");
        file.remove().expect("removing what is gone is no error");
        assert_eq!(file.load().expect("reads"), Found::Nothing);
    }

    #[test]
    fn saving_leaves_no_draft_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let input = folder.path().join("orders.csv");
        std::fs::write(&input, "a\n").expect("written");
        let file = resume_file(&input, "order", "one:9092");
        file.save(PROGRESS).expect("saves");
        file.save(Progress::default()).expect("replaces");
        let names = std::fs::read_dir(folder.path()).expect("reads").count();
        assert_eq!(names, 2);
        assert_eq!(
            file.load().expect("reads"),
            Found::Progress(Progress::default())
        );
    }
}
