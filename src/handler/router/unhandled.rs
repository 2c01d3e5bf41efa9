//! Names in the log, once each, the event types that no handler asks for.
//!
//! Owns a bounded set of types. Changes nothing of how a delivery goes: its record is ignored.

use crate::event::Record;
use foldhash::fast::FixedState;
use std::hash::BuildHasher;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// Types that are named; a topic can hold any number of them.
const TYPES_MAX: usize = 64;

/// Characters of a type that are logged.
const CHARACTERS_MAX: usize = 100;

/// The types that were named. Free of locks and allocations: it is asked for every ignored record.
pub(super) struct UnhandledTypes {
    /// A hash of each, in an open table; 0 is a free place.
    hashes: [AtomicU64; TYPES_MAX],
    is_full_told: AtomicBool,
}

impl Default for UnhandledTypes {
    fn default() -> Self {
        Self {
            hashes: [const { AtomicU64::new(0) }; TYPES_MAX],
            is_full_told: AtomicBool::new(false),
        }
    }
}

impl UnhandledTypes {
    /// Logs the type unless it was logged before.
    pub(super) fn note(&self, ty: &str, group: &str, record: &Record) {
        match self.add(ty) {
            Added::Known => {}
            Added::New => tracing::warn!(
                group,
                ty = ty.chars().take(CHARACTERS_MAX).collect::<String>(),
                ?record,
                "no handler asks for this type of event: they are ignored, and this is said once. Router::fallback would take them"
            ),
            Added::Full => {
                if !self.is_full_told.swap(true, Relaxed) {
                    tracing::warn!(
                        group,
                        "no handler asks for further types of events either; they are not named any more"
                    );
                }
            }
        }
    }

    fn add(&self, ty: &str) -> Added {
        let hash = FixedState::default().hash_one(ty).max(1);
        let first = hash as usize % TYPES_MAX;
        for place in (first..TYPES_MAX).chain(0..first) {
            let there = &self.hashes[place];
            let known = match there.load(Relaxed) {
                0 => there.compare_exchange(0, hash, Relaxed, Relaxed),
                known => Err(known),
            };
            match known {
                Ok(_) => return Added::New,
                Err(known) if known == hash => return Added::Known,
                Err(_) => {}
            }
        }
        Added::Full
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Added {
    New,
    Known,
    Full,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_new_once_and_their_number_is_bounded() {
        let types = UnhandledTypes::default();
        let name = |number: usize| format!("other.type-{number}.v1");
        for number in 0..TYPES_MAX {
            assert_eq!(types.add(&name(number)), Added::New);
            assert_eq!(types.add(&name(number)), Added::Known);
        }
        assert_eq!(types.add(&name(TYPES_MAX)), Added::Full);
        assert_eq!(types.add(&name(7)), Added::Known);
    }
}
