//! Logs each event type without a handler once.
//!
//! Owns a bounded set of types. Does not change the outcome of a delivery: its record is ignored.

use crate::event::Record;
use foldhash::fast::FixedState;
use std::hash::BuildHasher;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// Bounds the logged types, because a topic can hold any number of them.
const TYPES_MAX: usize = 64;

/// Bounds the characters of a logged type.
const CHARACTERS_MAX: usize = 100;

/// The logged types. Free of locks and allocations, because it is called for every ignored record.
pub(super) struct UnhandledTypes {
    /// A hash of each type, in an open-addressing table; 0 marks a free slot.
    hashes: [AtomicU64; TYPES_MAX],
    is_full_logged: AtomicBool,
}

impl Default for UnhandledTypes {
    fn default() -> Self {
        Self {
            hashes: [const { AtomicU64::new(0) }; TYPES_MAX],
            is_full_logged: AtomicBool::new(false),
        }
    }
}

impl UnhandledTypes {
    /// Logs the type, unless it was logged before.
    pub(super) fn log_once(&self, ty: &str, group: &str, record: &Record) {
        match self.add(ty) {
            Added::Known => {}
            Added::New => tracing::warn!(
                group,
                ty = ty.chars().take(CHARACTERS_MAX).collect::<String>(),
                ?record,
                "no handler for this type of event: such events are ignored, and this is logged \
                 once. Router::fallback would handle them"
            ),
            Added::Full => {
                if !self.is_full_logged.swap(true, Relaxed) {
                    tracing::warn!(
                        group,
                        "no handler for further types of events; they are no longer logged"
                    );
                }
            }
        }
    }

    /// Adds a type by its hash. Two types with one hash count as one: the second is not logged. The
    /// order of the atomics does not matter, because a slot only ever goes from 0 to one hash.
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
