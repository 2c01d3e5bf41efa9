//! The places of bodies that arrive: a bound for all, and a share for each caller.
//!
//! Owns the count. Knows no body: `middleware.rs` reads them.

use super::settings::AdmissionSettings;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The places. Holds at most as many names as there are places.
#[derive(Debug)]
pub(super) struct Uploads {
    places: Mutex<Places>,
    max: usize,
    per_caller_max: usize,
}

#[derive(Debug, Default)]
struct Places {
    taken: usize,
    by_caller: HashMap<Arc<str>, usize>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// All are taken.
    Full,
    /// The caller has its share.
    CallerFull,
}

/// A place, freed when it is dropped.
#[derive(Debug)]
#[must_use = "a dropped place is free"]
pub(super) struct UploadPlace<'a> {
    uploads: &'a Uploads,
    caller: Arc<str>,
}

impl Uploads {
    /// All places are free. `settings` are in their range.
    pub(super) fn new(settings: &AdmissionSettings) -> Self {
        Self {
            places: Mutex::default(),
            max: settings.uploads_max,
            per_caller_max: settings.uploads_of_a_caller(),
        }
    }

    /// Takes a place for a body of this caller.
    ///
    /// # Errors
    /// If there is none, or the caller has its share.
    pub(super) fn try_take(&self, caller: &Arc<str>) -> Result<UploadPlace<'_>, NoPlace> {
        let mut places = self.lock();
        if places.taken >= self.max {
            return Err(NoPlace::Full);
        }
        let of_caller = places.by_caller.get(caller).copied().unwrap_or_default();
        if of_caller >= self.per_caller_max {
            return Err(NoPlace::CallerFull);
        }
        places.taken += 1;
        places.by_caller.insert(Arc::clone(caller), of_caller + 1);
        drop(places);
        Ok(UploadPlace {
            uploads: self,
            caller: Arc::clone(caller),
        })
    }

    /// No count can be half written, so a panic elsewhere does no harm.
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UploadPlace<'_> {
    fn drop(&mut self) {
        let mut places = self.uploads.lock();
        places.taken = places.taken.saturating_sub(1);
        let of_caller = places.by_caller.get(&self.caller).copied();
        match of_caller {
            Some(count) if count > 1 => {
                places.by_caller.insert(Arc::clone(&self.caller), count - 1);
            }
            _ => {
                places.by_caller.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn uploads(max: usize, per_caller_max: Option<usize>) -> Uploads {
        let settings = AdmissionSettings::default()
            .with_uploads(10, Duration::from_secs(1), max)
            .with_uploads_per_caller_max(per_caller_max);
        Uploads::new(&settings.in_range())
    }

    #[test]
    fn a_caller_has_its_share_of_the_places() {
        for (max, per_caller_max, expected) in [
            (256, None, 64),
            (16, None, 4),
            (8, None, 4),
            (2, None, 2),
            (256, Some(100), 100),
            (8, Some(100), 8),
            (8, Some(0), 1),
        ] {
            let uploads = uploads(max, per_caller_max);
            let caller: Arc<str> = "a".into();
            let mut held = Vec::new();
            while let Ok(place) = uploads.try_take(&caller) {
                held.push(place);
            }
            assert_eq!(held.len(), expected, "{max} {per_caller_max:?}");
            let other = uploads.try_take(&"b".into()).is_ok();
            assert_eq!(other, expected < max, "{max} {per_caller_max:?}");
            drop(held);
            assert_eq!(uploads.lock().taken, 0);
            assert!(uploads.lock().by_caller.is_empty());
        }
    }

    #[test]
    fn callers_share_all_places() {
        let uploads = uploads(8, Some(4));
        let names: [Arc<str>; 3] = ["a".into(), "b".into(), "c".into()];
        let mut held = Vec::new();
        for name in &names[..2] {
            held.extend((0..4).map(|_| uploads.try_take(name).expect("there is room")));
        }
        assert_eq!(uploads.try_take(&names[2]).err(), Some(NoPlace::Full));
        held.pop();
        assert_eq!(uploads.try_take(&names[0]).err(), Some(NoPlace::CallerFull));
        assert!(uploads.try_take(&names[2]).is_ok());
    }
}
