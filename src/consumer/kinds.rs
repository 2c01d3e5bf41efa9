//! Kinds of records: what a breaker takes for alike when it compares those that failed with those that did not.
//!
//! A kind is a topic and a CloudEvents type (of binary mode, whose header costs nothing to read): an event type that never failed
//! by a dependency probably does not need it, and its successes say nothing about it.

use crate::event::Record;
use std::hash::{DefaultHasher, Hash, Hasher};

/// More would not be told apart from each other any better: what fails as so many kinds is taken for all of them.
const KINDS_MAX: usize = 64;

/// The kinds of records that failed by one dependency.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    known: Vec<u64>,
}

impl Kinds {
    /// A record failed.
    pub(super) fn add(&mut self, record: &Record) {
        let kind = kind(record);
        if self.known.len() < KINDS_MAX && !self.known.contains(&kind) {
            self.known.push(kind);
        }
    }

    /// Whether records of this kind failed.
    pub(super) fn contain(&self, record: &Record) -> bool {
        self.known.len() == KINDS_MAX || self.known.contains(&kind(record))
    }
}

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
        let mut kinds = Kinds::default();
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
        let mut kinds = Kinds::default();
        for number in 0..KINDS_MAX {
            kinds.add(&record("orders", Some(&number.to_string())));
        }
        assert!(kinds.contain(&record("orders", Some("another"))));
    }
}
