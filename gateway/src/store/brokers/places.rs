//! Where the last events were written, in bounded memory.

use super::super::port::EventPlace;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// The events whose places are kept.
const PLACES_MAX: usize = 100_000;

/// The places of the last [`PLACES_MAX`] events.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Of each id the newest last, at most one for a source.
    by_id: HashMap<String, Vec<Arc<EventPlace>>>,
    /// All of them in the order of their acknowledgements.
    in_order: VecDeque<Arc<EventPlace>>,
}

impl Places {
    /// Adds the place of an acknowledged event, and forgets the oldest beyond the bound.
    pub(super) fn add(&mut self, place: EventPlace) {
        let place = Arc::new(place);
        let of_id = self.by_id.entry(place.id.clone()).or_default();
        of_id.retain(|other| other.source != place.source);
        of_id.push(Arc::clone(&place));
        self.in_order.push_back(place);
        if self.in_order.len() > PLACES_MAX
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, oldest: &Arc<EventPlace>) {
        let Some(of_id) = self.by_id.get_mut(&oldest.id) else {
            return;
        };
        of_id.retain(|other| !Arc::ptr_eq(other, oldest));
        if of_id.is_empty() {
            self.by_id.remove(&oldest.id);
        }
    }

    /// The places of events with this id, newest first; with a source, only that one.
    pub(super) fn find(&self, id: &str, source: Option<&str>) -> Vec<EventPlace> {
        let of_id = self.by_id.get(id).into_iter().flatten().rev();
        let asked = of_id.filter(|place| source.is_none_or(|source| place.source == source));
        asked.map(|place| EventPlace::clone(place)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_places_are_kept_in_bounded_memory() {
        let mut places = Places::default();
        let add = |places: &mut Places, source: &str, id: usize, at| {
            let (source, id) = (source.to_owned(), id.to_string());
            places.add(EventPlace::new(
                source,
                id,
                String::new(),
                String::new(),
                at,
            ));
        };
        for n in 0..PLACES_MAX {
            add(&mut places, "/a", n, 0);
        }
        add(&mut places, "/b", 1, 1);
        add(&mut places, "/a", 1, 2);
        let found = |places: &Places, id: &str, source| {
            let found = places.find(id, source).into_iter();
            found.map(|place| place.accepted_ms).collect::<Vec<_>>()
        };
        assert_eq!(
            found(&places, "0", None),
            [0i64; 0],
            "the oldest is forgotten"
        );
        assert_eq!(
            found(&places, "1", None),
            [2, 1],
            "newest first, one of a source"
        );
        assert_eq!(found(&places, "1", Some("/b")), [1]);
        assert_eq!(places.in_order.len(), PLACES_MAX);
        for n in 0..PLACES_MAX {
            add(&mut places, "/a", PLACES_MAX + n, 0);
        }
        assert_eq!(places.by_id.len(), PLACES_MAX);
    }
}
