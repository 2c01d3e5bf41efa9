//! Where the last events were written, in bounded memory.
//!
//! Owns the places in the order of their acknowledgements, in a compact form: names that repeat are
//! shared, and the places of an id are a chain through the list, so that an index needs two numbers
//! for each id.

use super::super::port::EventPlace;
use bytes::Bytes;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// The events whose places are kept.
const PLACES_MAX: usize = 100_000;

/// The sources of an id that are found: each new place is compared with those of its id, and many
/// callers may count their events from 1 on.
const SOURCES_MAX: usize = 100;

/// The places of the last [`PLACES_MAX`] events; of an id, those of the last [`SOURCES_MAX`]
/// sources.
///
/// Each has a number, by which it is found in the list.
#[derive(Debug, Default)]
pub(super) struct Places {
    in_order: VecDeque<Place>,
    /// The number of the first one.
    first: u64,
    /// Of each hash of an id the number of the newest place.
    newest: HashMap<u64, u64>,
    /// Random, so that no caller can choose ids that collide.
    hasher: RandomState,
    names: Names,
}

/// The place of an event.
#[derive(Debug)]
struct Place {
    source: Arc<str>,
    id: Box<str>,
    ty: Arc<str>,
    topic: Arc<str>,
    key: Option<Box<[u8]>>,
    accepted_ms: i64,
    position: Option<(i32, i64)>,
    /// The number of the next older place of an id with the same hash. It may be forgotten.
    older: Option<u64>,
}

impl Places {
    /// Adds the place of an acknowledged event, and forgets the oldest beyond the bound. An older
    /// one of the same id and source is no longer found.
    pub(super) fn add(&mut self, place: EventPlace) {
        let number = self.first + self.in_order.len() as u64;
        let hash = self.hasher.hash_one(&*place.id);
        let place = Place {
            source: self.names.share(&place.source),
            ty: self.names.share(&place.ty),
            topic: self.names.share(&place.topic),
            id: place.id.into(),
            key: place.key.map(|key| Box::from(&key[..])),
            accepted_ms: place.accepted_ms,
            position: place.position,
            older: self.newest.insert(hash, number),
        };
        self.in_order.push_back(place);
        self.unlink_repeated(number);
        if self.in_order.len() > PLACES_MAX {
            self.forget_oldest();
        }
    }

    /// Removes an older place of the same id and source from the chain that begins here, or else
    /// what is beyond the bound. So a chain has at most one of each source, and [`SOURCES_MAX`] in
    /// all.
    fn unlink_repeated(&mut self, number: u64) {
        let mut newer = number;
        for _ in 1..SOURCES_MAX {
            let (Some(added), Some(older)) = (self.get(number), self.older(newer)) else {
                return;
            };
            let is_repeated = self
                .get(older)
                .is_some_and(|place| place.source == added.source && place.id == added.id);
            if is_repeated {
                let next = self.older(older);
                self.set_older(newer, next);
                return;
            }
            newer = older;
        }
        self.set_older(newer, None);
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.in_order.pop_front() else {
            return;
        };
        let hash = self.hasher.hash_one(&*oldest.id);
        if self.newest.get(&hash) == Some(&self.first) {
            self.newest.remove(&hash);
        }
        self.first += 1;
        for name in [oldest.source, oldest.ty, oldest.topic] {
            self.names.release(name);
        }
    }

    /// The places of events with this id, newest first, those of the last [`SOURCES_MAX`] sources;
    /// with a source, only that one.
    pub(super) fn find(&self, id: &str, source: Option<&str>) -> Vec<EventPlace> {
        let newest = self.newest.get(&self.hasher.hash_one(id)).copied();
        std::iter::successors(newest, |number| self.older(*number))
            .filter_map(|number| self.get(number))
            .filter(|place| &*place.id == id)
            .filter(|place| source.is_none_or(|source| &*place.source == source))
            .map(Place::to_event_place)
            .collect()
    }

    /// The number of the next older place of the chain, if it is not forgotten.
    fn older(&self, number: u64) -> Option<u64> {
        let older = self.get(number)?.older?;
        (older >= self.first).then_some(older)
    }

    fn get(&self, number: u64) -> Option<&Place> {
        self.in_order.get(self.index(number)?)
    }

    fn set_older(&mut self, number: u64, older: Option<u64>) {
        let index = self.index(number);
        if let Some(place) = index.and_then(|index| self.in_order.get_mut(index)) {
            place.older = older;
        }
    }

    fn index(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.first)?).ok()
    }
}

impl Place {
    fn to_event_place(&self) -> EventPlace {
        let [source, id, ty, topic] =
            [&*self.source, &*self.id, &*self.ty, &*self.topic].map(str::to_owned);
        let mut place = EventPlace::new(source, id, ty, topic, self.accepted_ms);
        place.key = self.key.as_deref().map(Bytes::copy_from_slice);
        place.position = self.position;
        place
    }
}

/// Names that many places have: sources, types and topics.
#[derive(Debug, Default)]
struct Names(BTreeSet<Arc<str>>);

impl Names {
    /// The shared text of this name.
    fn share(&mut self, name: &str) -> Arc<str> {
        if let Some(shared) = self.0.get(name) {
            return Arc::clone(shared);
        }
        let shared: Arc<str> = name.into();
        self.0.insert(Arc::clone(&shared));
        shared
    }

    /// Gives a name back. One that no place has is forgotten.
    fn release(&mut self, name: Arc<str>) {
        // This one, and that of the set.
        if Arc::strong_count(&name) == 2 {
            self.0.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(places: &mut Places, source: &str, id: usize, accepted_ms: i64) {
        let text = str::to_owned;
        let (source, id) = (text(source), id.to_string());
        let mut place = EventPlace::new(source, id, text("type"), text("topic"), accepted_ms);
        place.key = Some(Bytes::from_static(b"key"));
        place.position = Some((1, accepted_ms));
        places.add(place);
    }

    fn found(places: &Places, id: &str, source: Option<&str>) -> Vec<i64> {
        let found = places.find(id, source).into_iter();
        found.map(|place| place.accepted_ms).collect()
    }

    #[test]
    fn only_the_last_places_are_kept_in_bounded_memory() {
        let mut places = Places::default();
        for n in 0..PLACES_MAX {
            add(&mut places, "/a", n, 0);
        }
        add(&mut places, "/b", 1, 1);
        add(&mut places, "/a", 1, 2);
        let oldest = found(&places, "0", None);
        assert_eq!(oldest, [0i64; 0], "the oldest is forgotten");
        let one = found(&places, "1", None);
        assert_eq!(one, [2, 1], "newest first, one of a source");
        assert_eq!(found(&places, "1", Some("/b")), [1]);
        assert_eq!(places.in_order.len(), PLACES_MAX);
        for n in 0..PLACES_MAX {
            add(&mut places, "/c", PLACES_MAX + n, 0);
        }
        assert_eq!(places.in_order.len(), PLACES_MAX);
        assert_eq!(places.newest.len(), PLACES_MAX);
        let names: Vec<_> = places.names.0.iter().map(|name| &**name).collect();
        assert_eq!(names, ["/c", "topic", "type"]);
        assert!(size_of::<Place>() <= 144, "{}", size_of::<Place>());
    }

    #[test]
    fn a_repeated_event_is_found_once_at_its_last_place() {
        let mut places = Places::default();
        for (source, at) in [("/a", 0), ("/b", 1), ("/c", 2), ("/b", 3), ("/b", 4)] {
            add(&mut places, source, 7, at);
        }
        assert_eq!(found(&places, "7", None), [4, 2, 0]);
        let place = &places.find("7", Some("/b"))[0];
        assert_eq!((&*place.ty, &*place.topic), ("type", "topic"));
        assert_eq!(place.key.as_deref(), Some(&b"key"[..]));
        assert_eq!(place.position, Some((1, 4)));
        assert!(!place.in_outbox);
    }

    #[test]
    fn an_id_of_many_sources_has_the_places_of_the_last_ones() {
        let mut places = Places::default();
        for source in 0..=SOURCES_MAX {
            add(&mut places, &source.to_string(), 7, 0);
        }
        add(&mut places, "50", 7, 1);
        let sources = places.find("7", None);
        let sources: Vec<_> = sources.into_iter().map(|place| place.source).collect();
        assert_eq!(sources.len(), SOURCES_MAX);
        assert_eq!((&*sources[0], &*sources[1]), ("50", "100"));
        assert_eq!(found(&places, "7", Some("50")), [1]);
        assert_eq!(found(&places, "7", Some("1")), [0]);
        assert_eq!(found(&places, "7", Some("0")), [0i64; 0]);
    }
}
