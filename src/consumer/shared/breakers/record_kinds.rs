//! The kinds of records that failed by a dependency. A breaker compares failures with successes of
//! the same kind only.
//!
//! A service has few event types, but anything may write to its topics. So the number of known
//! kinds is limited; beyond it all records count, which makes the breaker slower to open.

use crate::event::Record;
use std::hash::{DefaultHasher, Hash, Hasher};

/// At this many kinds, all records count as failing kinds.
const KINDS_MAX: usize = 64;

/// The kinds of records that failed by one dependency.
#[derive(Debug, Default)]
pub(crate) struct RecordKinds {
    known: Vec<u64>,
}

impl RecordKinds {
    /// Adds the kind of a failed record.
    pub(crate) fn add(&mut self, record: &Record) {
        let kind = kind(record);
        if self.known.len() < KINDS_MAX && !self.known.contains(&kind) {
            self.known.push(kind);
        }
    }

    /// Whether records of this kind failed.
    pub(crate) fn contain(&self, record: &Record) -> bool {
        self.known.len() == KINDS_MAX || self.known.contains(&kind(record))
    }
}

/// Topic and event type, as a hash. Two kinds with one hash would count as one.
fn kind(record: &Record) -> u64 {
    let mut hasher = DefaultHasher::new();
    record.topic().hash(&mut hasher);
    record.headers().last_value("ce_type").hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::RecordBatchBuilder;

    fn record(topic: &str, ty: Option<&str>) -> Record {
        let mut batch = RecordBatchBuilder::new();
        let source = batch.source(topic.into(), 0);
        let header = ty.map(|ty| (b"ce_type".as_slice(), Some(ty.as_bytes())));
        batch.push(source, 0, 0, None, None, header);
        batch.build(None).record(0).expect("pushed")
    }

    #[test]
    fn topic_and_event_type_make_a_kind() {
        let mut kinds = RecordKinds::default();
        kinds.add(&record("orders", Some("placed")));
        assert!(kinds.contain(&record("orders", Some("placed"))));
        for other in [
            record("orders", Some("cancelled")),
            record("orders", None),
            record("returns", Some("placed")),
        ] {
            assert!(!kinds.contain(&other), "{other:?}");
        }
    }

    #[test]
    fn too_many_kinds_are_taken_for_all() {
        let mut kinds = RecordKinds::default();
        for number in 0..KINDS_MAX {
            kinds.add(&record("orders", Some(&number.to_string())));
        }
        assert!(kinds.contain(&record("orders", Some("another"))));
    }
}
