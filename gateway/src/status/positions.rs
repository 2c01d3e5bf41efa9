//! Positions of events on the log, by id. Bounded: the oldest entry is dropped for a new one.
//!
//! A position never changes, except if its topic is created again.

use super::answer::LogPlace;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// An event that was found on the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundEvent {
    pub(super) source: String,
    pub(super) ty: String,
    pub(super) place: LogPlace,
    /// Whether the brokers set the timestamp of the place. Otherwise its publisher did.
    pub(super) has_append_time: bool,
}

/// The positions that were found.
#[derive(Debug)]
pub(super) struct Positions {
    entries_max: usize,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_id: HashMap<String, FoundEvent>,
    /// The ids in the order in which they were added.
    order: VecDeque<String>,
}

impl Positions {
    /// Keeps at most `entries_max` positions.
    pub(super) fn new(entries_max: usize) -> Self {
        Self {
            entries_max,
            entries: Mutex::default(),
        }
    }

    /// The event with this id, and this source if one is given.
    pub(super) fn get(&self, id: &str, source: Option<&str>) -> Option<FoundEvent> {
        let entries = self.entries();
        let found = entries.by_id.get(id)?;
        let is_it = source.is_none_or(|source| source == found.source);
        is_it.then(|| found.clone())
    }

    /// Adds a position. An event of another source with the same id replaces it.
    pub(super) fn add(&self, id: &str, found: FoundEvent) {
        if self.entries_max == 0 {
            return;
        }
        let mut entries = self.entries();
        if entries.by_id.insert(id.to_owned(), found).is_some() {
            return;
        }
        entries.order.push_back(id.to_owned());
        if entries.order.len() > self.entries_max
            && let Some(oldest) = entries.order.pop_front()
        {
            entries.by_id.remove(&oldest);
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(source: &str, offset: i64) -> FoundEvent {
        FoundEvent {
            source: source.to_owned(),
            ty: "t".to_owned(),
            place: LogPlace::new("topic", 0, offset),
            has_append_time: false,
        }
    }

    #[test]
    fn an_event_is_found_by_id_and_source() {
        let positions = Positions::new(10);
        positions.add("1", found("/a", 5));
        assert_eq!(positions.get("1", None), Some(found("/a", 5)));
        assert_eq!(positions.get("1", Some("/a")), Some(found("/a", 5)));
        assert_eq!(positions.get("1", Some("/b")), None);
        assert_eq!(positions.get("2", None), None);
    }

    #[test]
    fn the_oldest_position_makes_room() {
        let positions = Positions::new(2);
        for (id, offset) in [("1", 1), ("2", 2), ("1", 3), ("3", 4)] {
            positions.add(id, found("/a", offset));
        }
        assert_eq!(positions.get("1", None), None);
        assert_eq!(positions.get("2", None), Some(found("/a", 2)));
        assert_eq!(positions.get("3", None), Some(found("/a", 4)));
        assert_eq!(positions.entries().by_id.len(), 2);
    }
}
