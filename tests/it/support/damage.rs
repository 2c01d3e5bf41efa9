//! Helper: a broker of one's own whose log files can be damaged as a disk would.

use evenkeel::testing::{StartError, TestKafka};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use tempfile::TempDir;

/// A broker and the directory that its logs are in.
pub(crate) struct Damageable {
    pub(crate) kafka: TestKafka,
    logs: TempDir,
}

/// What is done to a batch.
pub(crate) enum Damage {
    /// Its codec's number is this one.
    Codec(u8),
    /// The last byte of its records is another one.
    LastByte,
    /// A record in it says that it is longer than the batch.
    Inside,
}

impl Damageable {
    pub(crate) async fn start() -> Result<Self, StartError> {
        let logs = tempfile::tempdir().expect("a temporary folder is created");
        let path = logs.path().join("data").display().to_string();
        let kafka = TestKafka::start_with(&[("log.dirs", &path)]).await?;
        Ok(Self { kafka, logs })
    }

    /// Damages the batch of partition 0 that begins at `offset`.
    pub(crate) fn damage(&self, topic: &str, offset: i64, damage: Damage) {
        let path: PathBuf = ["data", &format!("{topic}-0"), "00000000000000000000.log"]
            .iter()
            .fold(self.logs.path().to_owned(), |path, part| path.join(part));
        let bytes = std::fs::read(&path).expect("the log is readable");
        let number = |at: usize, length: usize| {
            bytes[at..at + length]
                .iter()
                .fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let mut at = 0;
        while number(at, 8) != offset as u64 {
            at += 12 + number(at + 8, 4) as usize;
        }
        let end = at + 12 + number(at + 8, 4) as usize;
        // The attributes follow offset, length, epoch, magic and checksum; their lowest three bits are the codec.
        let (place, byte) = match damage {
            // The last record but its first byte is what it is long: attributes, times, key and value follow.
            Damage::Inside => {
                let records = &bytes[at + 61..end];
                let length = usize::from(records[0] >> 1) + 1;
                (end - length, 0x7e)
            }
            Damage::Codec(codec) => (at + 22, bytes[at + 22] & !7 | codec),
            // The count of headers stands last; before it comes the value.
            Damage::LastByte => (end - 2, bytes[end - 2] ^ 0x55),
        };
        let file = File::options().write(true).open(&path);
        let file = file.expect("the log is writable");
        file.write_all_at(&[byte], place as u64)
            .expect("the log is writable");
    }
}
