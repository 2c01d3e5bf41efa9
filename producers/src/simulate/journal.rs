//! The outcome of every simulated event, as JSON lines, so that an audit can compare it with the
//! effects.

use evenkeel::publisher::Receipt;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

/// Whether an event is on the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It is on the log.
    Acknowledged,
    /// It is not on the log.
    Failed,
    /// It may be on the log.
    Unknown,
}

/// The identifiers of a sent event, by which an audit finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SentEvent {
    /// Id of the event. `(source, event_id)` is its identity.
    pub event_id: String,
    /// Source of the event.
    pub source: String,
    /// Type of the event.
    #[serde(rename = "type")]
    pub ty: &'static str,
    /// Key of its record.
    pub key: String,
    /// Topic of its record.
    pub topic: &'static str,
    /// Its number among the events of its key, from 0, in the order of sending.
    pub seq: u64,
}

#[derive(Serialize)]
struct JournalLine<'a> {
    #[serde(flatten)]
    event: &'a SentEvent,
    outcome: Fate,
    partition: Option<i32>,
    offset: Option<i64>,
}

/// A file of outcomes. A line is written as soon as its outcome is known, and survives this
/// process.
#[derive(Debug)]
pub struct Journal {
    file: File,
}

impl Journal {
    /// Appends to a file. Creates the file if it is missing.
    pub fn append_to(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file })
    }

    /// Writes one outcome in a single unbuffered write, so that a kill leaves no partial line in
    /// this process.
    pub fn write(
        &mut self,
        event: &SentEvent,
        fate: Fate,
        receipt: Option<&Receipt>,
    ) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(&JournalLine {
            event,
            outcome: fate,
            partition: receipt.map(|receipt| receipt.partition),
            offset: receipt.map(|receipt| receipt.offset),
        })?;
        line.push(b'\n');
        self.file.write_all(&line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_identity_place_and_outcome_and_is_appended() {
        let folder = tempfile::tempdir().expect("a temporary folder is created");
        let path = folder.path().join("journal.jsonl");
        let event = SentEvent {
            event_id: "e".to_owned(),
            source: "/shop/orders".to_owned(),
            ty: "shop.order-placed.v1",
            key: "o".to_owned(),
            topic: "shop.orders",
            seq: 0,
        };
        let receipt = Receipt::new("shop.orders", 3, 9);
        for (fate, receipt) in [(Fate::Acknowledged, Some(&receipt)), (Fate::Unknown, None)] {
            let mut journal = Journal::append_to(&path).expect("opens");
            journal.write(&event, fate, receipt).expect("writes");
        }
        let text = std::fs::read_to_string(&path).expect("the file is readable");
        let head = r#""event_id":"e","source":"/shop/orders","type":"shop.order-placed.v1","key":"o","topic":"shop.orders","seq":0"#;
        assert_eq!(
            text,
            format!(
                "{{{head},\"outcome\":\"acknowledged\",\"partition\":3,\"offset\":9}}\n\
                 {{{head},\"outcome\":\"unknown\",\"partition\":null,\"offset\":null}}\n"
            )
        );
    }
}
