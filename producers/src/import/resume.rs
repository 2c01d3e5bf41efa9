//! Stores the progress of an import in a file beside its input, so that the next run continues
//! there.
//!
//! Owns the file's format and the rules for trusting it. The stored progress never exceeds the
//! acknowledged lines. After a kill, the next run sends some lines again, with the same ids, and
//! omits none.

use super::lines::At;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// Version of the file's format. Other versions are ignored.
const VERSION: u32 = 2;

/// Input, event type and cluster of an import. Stored progress is valid only for the same unchanged
/// file and the same cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    event_type: String,
    cluster: String,
    file_bytes: u64,
    modified_at: Timestamp,
}

/// The progress of an import.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Position up to which every line was acknowledged or reported as bad.
    pub at: At,
    /// Number of acknowledged events up to that position.
    pub acknowledged: u64,
    /// Number of bad lines up to that position.
    pub bad_lines: u64,
}

#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    identity: Identity,
    progress: Progress,
    /// Checksum over identity and progress, to detect manual changes.
    checksum: u32,
}

/// The result of loading a progress file.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// There is no file: no import was interrupted.
    Nothing,
    /// Continue at this progress.
    Progress(Progress),
    /// The file is not valid, for this reason.
    NotOurs(&'static str),
}

/// The progress file of one import.
#[derive(Debug, Clone)]
pub struct ResumeFile {
    path: PathBuf,
    identity: Identity,
}

impl Identity {
    /// Creates an identity from the file's metadata.
    ///
    /// # Errors
    /// If the system keeps no modification time.
    pub fn new(event_type: &str, cluster: &str, metadata: &Metadata) -> std::io::Result<Self> {
        let modified_at =
            Timestamp::try_from(metadata.modified()?).map_err(std::io::Error::other)?;
        Ok(Self {
            event_type: event_type.to_owned(),
            cluster: cluster.to_owned(),
            file_bytes: metadata.len(),
            modified_at,
        })
    }
}

impl Content {
    fn new(identity: Identity, progress: Progress) -> serde_json::Result<Self> {
        let told = serde_json::to_vec(&(&identity, &progress))?;
        Ok(Self {
            version: VERSION,
            identity,
            progress,
            checksum: crc32fast::hash(&told),
        })
    }

    fn is_as_written(&self) -> bool {
        let told = serde_json::to_vec(&(&self.identity, &self.progress));
        told.is_ok_and(|told| crc32fast::hash(&told) == self.checksum)
    }
}

impl ResumeFile {
    /// The progress file `INPUT.progress`.
    pub fn beside(input: &Path, identity: Identity) -> Self {
        let mut name = input.as_os_str().to_owned();
        name.push(".progress");
        Self {
            path: name.into(),
            identity,
        }
    }

    /// Path of the progress file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Loads the stored progress for `input`, and reads `input` up to it.
    ///
    /// # Errors
    /// If the progress file or `input` exists but cannot be read.
    pub fn load(&self, input: impl Read) -> std::io::Result<Found> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        let version = serde_json::from_slice::<serde_json::Value>(&text);
        let version = version.ok().and_then(|content| content["version"].as_u64());
        if version.is_some_and(|version| version != u64::from(VERSION)) {
            return Ok(Found::NotOurs("it is of another version"));
        }
        let Ok(content) = serde_json::from_slice::<Content>(&text) else {
            return Ok(Found::NotOurs("it cannot be understood"));
        };
        let (ours, theirs) = (&self.identity, &content.identity);
        let at = content.progress.at;
        let changed = "the input has changed since";
        Ok(if !content.is_as_written() {
            Found::NotOurs("it was edited or damaged")
        } else if theirs.event_type != ours.event_type {
            Found::NotOurs("it belongs to another kind of import")
        } else if theirs.cluster != ours.cluster {
            Found::NotOurs("it belongs to an import to another cluster")
        } else if theirs != ours || digest(input, at.bytes)? != Some(at.digest) {
            Found::NotOurs(changed)
        } else {
            Found::Progress(content.progress)
        })
    }

    /// Replaces the file atomically: a reader finds the old or the new one, even after a kill or a
    /// power failure.
    pub fn save(&self, progress: Progress) -> std::io::Result<()> {
        let content = Content::new(self.identity.clone(), progress)?;
        let mut draft = self.path.clone().into_os_string();
        draft.push(format!(".{}", std::process::id()));
        let mut file = File::create(&draft)?;
        file.write_all(&serde_json::to_vec(&content)?)?;
        file.sync_all()?;
        std::fs::rename(&draft, &self.path)
    }

    /// Removes the file: the import is complete.
    pub fn remove(&self) -> std::io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The CRC-32 of the first bytes of an input. `None` if it has fewer.
fn digest(input: impl Read, bytes: u64) -> std::io::Result<Option<u32>> {
    let mut digest = crc32fast::Hasher::new();
    let mut input = input.take(bytes);
    let mut buffer = vec![0; 64 * 1024];
    let mut left = bytes;
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok((left == 0).then(|| digest.finalize())),
            Ok(read) => {
                digest.update(&buffer[..read]);
                left -= read as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUT: &str = "a\nb\n";

    /// Progress after the first line.
    fn progress() -> Progress {
        Progress {
            at: At {
                line: 1,
                bytes: 2,
                digest: crc32fast::hash(b"a\n"),
            },
            acknowledged: 5,
            bad_lines: 1,
        }
    }

    fn resume_file(input: &Path, event_type: &str, cluster: &str) -> ResumeFile {
        let metadata = std::fs::metadata(input).expect("the input is there");
        ResumeFile::beside(
            input,
            Identity::new(event_type, cluster, &metadata).expect("has a time"),
        )
    }

    fn load(file: &ResumeFile, input: &Path) -> Found {
        let input = File::open(input).expect("the input is there");
        file.load(input).expect("reads")
    }

    #[test]
    fn progress_counts_only_for_the_same_unchanged_file_and_cluster() {
        let folder = tempfile::tempdir().expect("a temporary folder is created");
        let input = folder.path().join("orders.csv");
        std::fs::write(&input, INPUT).expect("the file is written");
        let ours = resume_file(&input, "order", "one");
        assert_eq!(load(&ours, &input), Found::Nothing);
        ours.save(progress()).expect("the progress is saved");
        let check = |file: ResumeFile, expected: Found| assert_eq!(load(&file, &input), expected);
        check(
            resume_file(&input, "order", "one"),
            Found::Progress(progress()),
        );
        check(
            resume_file(&input, "delivery", "one"),
            Found::NotOurs("it belongs to another kind of import"),
        );
        check(
            resume_file(&input, "order", "two"),
            Found::NotOurs("it belongs to an import to another cluster"),
        );
        std::fs::write(&input, "a\nb\nc\n").expect("the file is written");
        check(
            resume_file(&input, "order", "one"),
            Found::NotOurs("the input has changed since"),
        );
    }

    /// With the same length and the same modification time.
    #[test]
    fn an_input_that_was_changed_in_place_is_noticed() {
        let folder = tempfile::tempdir().expect("a temporary folder is created");
        let input = folder.path().join("orders.csv");
        std::fs::write(&input, INPUT).expect("the file is written");
        let file = resume_file(&input, "order", "one");
        file.save(progress()).expect("the progress is saved");
        let modified = std::fs::metadata(&input).and_then(|metadata| metadata.modified());
        std::fs::write(&input, "x\nb\n").expect("the file is written");
        let changed = File::options().write(true).open(&input).expect("opens");
        changed
            .set_modified(modified.expect("a time"))
            .expect("set");
        let changed = Found::NotOurs("the input has changed since");
        assert_eq!(load(&resume_file(&input, "order", "one"), &input), changed);
    }

    #[test]
    fn a_file_of_progress_that_was_edited_is_not_believed() {
        let folder = tempfile::tempdir().expect("a temporary folder is created");
        let input = folder.path().join("orders.csv");
        std::fs::write(&input, INPUT).expect("the file is written");
        let file = resume_file(&input, "order", "one");
        file.save(progress()).expect("the progress is saved");
        let written = std::fs::read_to_string(file.path()).expect("the file is readable");
        let check = |from: &str, to: &str, expected| {
            let edited = written.replace(from, to);
            assert_ne!(edited, written, "{from}");
            std::fs::write(file.path(), edited).expect("the file is written");
            assert_eq!(load(&file, &input), Found::NotOurs(expected), "{to}");
        };
        let edited = "it was edited or damaged";
        check("\"bytes\":2", "\"bytes\":18446744073709551615", edited);
        check("\"bytes\":2", "\"bytes\":4", edited);
        check("\"line\":1", "\"line\":2", edited);
        check("\"acknowledged\":5", "\"acknowledged\":0", edited);
        check("\"bytes\":2", "\"bytes\":-2", "it cannot be understood");
        check(&written, "garbage", "it cannot be understood");
        check(&written, "", "it cannot be understood");
        check("\"version\":2", "\"version\":1", "it is of another version");
    }

    #[test]
    fn damaged_progress_files_are_reported_and_missing_ones_are_not() {
        let folder = tempfile::tempdir().expect("a temporary folder is created");
        let input = folder.path().join("orders.csv");
        std::fs::write(&input, INPUT).expect("the file is written");
        let file = resume_file(&input, "order", "one");
        file.save(progress()).expect("the progress is saved");
        let text = std::fs::read(file.path()).expect("the file is readable");
        std::fs::write(file.path(), &text[..text.len() / 2]).expect("the file is written");
        assert_eq!(
            load(&file, &input),
            Found::NotOurs("it cannot be understood")
        );
        file.remove().expect("removes");
        file.remove().expect("removing what is gone is no error");
        assert_eq!(load(&file, &input), Found::Nothing);
    }

    #[test]
    fn saving_leaves_no_draft_behind() {
        let folder = tempfile::tempdir().expect("a temporary folder is created");
        let input = folder.path().join("orders.csv");
        std::fs::write(&input, INPUT).expect("the file is written");
        let file = resume_file(&input, "order", "one");
        file.save(progress()).expect("the progress is saved");
        file.save(Progress::default()).expect("replaces");
        let names = std::fs::read_dir(folder.path()).expect("reads").count();
        assert_eq!(names, 2);
        assert_eq!(load(&file, &input), Found::Progress(Progress::default()));
    }
}
