//! Checks the result of every contestant: each record exactly once, and the records of each key in
//! order.
//!
//! A record's key is `k` and the number of the key. Its value begins with the record's position
//! among those of its key. The check parses two short numbers and accesses one array slot. Its cost
//! is the same for every contestant.

use crate::measure::usage::{Usage, UsageReading};
use crate::spec::Data;
use anyhow::bail;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Digits of a position, after `{"seq":"`.
const PLACE_DIGITS: usize = 10;
const PLACE_START: usize = 8;

/// A record's value: JSON of `size` bytes.
pub(crate) fn value(place: u64, size: usize) -> String {
    let head = format!(r#"{{"seq":"{place:0width$}","pad":""#, width = PLACE_DIGITS);
    let tail = "\"}";
    let pad = size.saturating_sub(head.len() + tail.len());
    head.clone() + &noise(place, pad) + tail
}

/// Varying letters, so that compression has no unrealistic effect.
pub(crate) fn noise(seed: u64, length: usize) -> String {
    let letter = |n: u64| {
        let mixed = (seed + 1)
            .wrapping_mul(n + 1)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15);
        char::from(b'a' + (mixed >> 59) as u8 % 26)
    };
    (0..length as u64).map(letter).collect()
}

/// The key with this number.
pub(crate) fn key(number: usize) -> String {
    format!("k{number}")
}

/// Receives every record of a turn, from any thread, and measures the time from the first to the
/// last.
pub(crate) struct ResultCheck {
    /// A position fits into less than a word, so a million keys fit into the processor's cache.
    next: Vec<AtomicU32>,
    per_key: u64,
    open_keys: AtomicUsize,
    wrong: AtomicU64,
    begun: AtomicBool,
    first: OnceLock<UsageReading>,
    last: OnceLock<UsageReading>,
}

impl ResultCheck {
    /// A check for this data.
    pub(crate) fn of(data: &Data) -> Self {
        Self::new(data.keys, data.records / data.keys as u64)
    }

    /// A check for `keys` keys with `per_key` records each.
    fn new(keys: usize, per_key: u64) -> Self {
        Self {
            next: (0..keys).map(|_| AtomicU32::new(0)).collect(),
            per_key,
            open_keys: AtomicUsize::new(keys),
            wrong: AtomicU64::new(0),
            begun: AtomicBool::new(false),
            first: OnceLock::new(),
            last: OnceLock::new(),
        }
    }

    /// Checks a record. Returns whether it was the last one.
    pub(crate) fn check_record(&self, key: Option<&[u8]>, value: Option<&[u8]>) -> bool {
        let place = number(
            value
                .unwrap_or_default()
                .get(PLACE_START..PLACE_START + PLACE_DIGITS),
        );
        match number(key.unwrap_or_default().get(1..)).zip(place) {
            Some((key, place)) => self.check_position(key, place),
            None => {
                self.wrong.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }

    /// [`ResultCheck::check_record`] for a record whose key number and position are known.
    pub(crate) fn check_position(&self, key: u64, place: u64) -> bool {
        if !self.begun.load(Ordering::Relaxed) && !self.begun.swap(true, Ordering::Relaxed) {
            self.first.get_or_init(UsageReading::now);
        }
        let Some(slot) = self.next.get(key as usize) else {
            self.wrong.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        // Records of one key arrive one after the other; anything else is the error that this check
        // finds.
        let place_after = (place + 1) as u32;
        if u64::from(slot.swap(place_after, Ordering::Relaxed)) != place {
            self.wrong.fetch_add(1, Ordering::Relaxed);
        }
        if place + 1 == self.per_key && self.open_keys.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.last.get_or_init(UsageReading::now);
            return true;
        }
        false
    }

    /// The time from the first record to the last.
    ///
    /// # Errors
    /// If records are missing, duplicated, or out of their key's order.
    pub(crate) fn finish(&self) -> anyhow::Result<Usage> {
        let wrong = self.wrong.load(Ordering::Relaxed);
        let seen: u64 = self
            .next
            .iter()
            .map(|next| u64::from(next.load(Ordering::Relaxed)))
            .sum();
        let expected = self.per_key * self.next.len() as u64;
        if wrong > 0 || seen != expected {
            bail!(
                "wrong answer: {seen} of {expected} records, {wrong} doubled, missing or out of order"
            );
        }
        match (self.first.get(), self.last.get()) {
            (Some(first), Some(last)) => last.since(first),
            _ => bail!("wrong answer: no record came"),
        }
    }
}

/// Parses decimal digits. `None` for anything else.
fn number(digits: Option<&[u8]>) -> Option<u64> {
    let digits = digits.filter(|digits| !digits.is_empty())?;
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.wrapping_sub(b'0');
        (digit <= 9).then(|| number.wrapping_mul(10) + u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two keys of three records each, as `(key, place)`.
    const RIGHT: [(usize, u64); 6] = [(0, 0), (1, 0), (1, 1), (0, 1), (1, 2), (0, 2)];

    fn check(records: &[(usize, u64)], expected: bool) {
        let check = ResultCheck::new(2, 3);
        for (number, place) in records {
            let (key, value) = (key(*number), value(*place, 60));
            check.check_record(Some(key.as_bytes()), Some(value.as_bytes()));
        }
        assert_eq!(check.finish().is_ok(), expected, "{records:?}");
    }

    #[test]
    fn each_record_once_and_in_its_keys_order_is_right() {
        check(&RIGHT, true);
    }

    #[test]
    fn missing_doubled_or_swapped_records_are_wrong() {
        for missing in 0..RIGHT.len() {
            let mut records = RIGHT.to_vec();
            records.remove(missing);
            check(&records, false);
        }
        for (place, doubled) in RIGHT.into_iter().enumerate() {
            let mut records = RIGHT.to_vec();
            records.insert(place, doubled);
            check(&records, false);
        }
        let mut swapped = RIGHT.to_vec();
        swapped.swap(3, 5);
        check(&swapped, false);
        check(&[], false);
    }

    #[test]
    fn the_last_record_is_known_as_such() {
        let check = ResultCheck::new(1, 2);
        let check_value =
            |place| check.check_record(Some(b"k0"), Some(value(place, 60).as_bytes()));
        assert_eq!((check_value(0), check_value(1)), (false, true));
    }

    #[test]
    fn a_strange_record_is_wrong_and_no_panic() {
        let check = ResultCheck::new(1, 1);
        for (key, value) in [
            (None, None),
            (Some(&b"k"[..]), Some(&b"{"[..])),
            (Some(&b"k9"[..]), None),
        ] {
            assert!(!check.check_record(key, value));
        }
        assert!(check.finish().is_err());
    }

    #[test]
    fn values_are_json_of_the_asked_size() {
        for size in [60, 328, 1_000] {
            let value = value(42, size);
            assert_eq!(value.len(), size);
            let json: serde_json::Value = serde_json::from_str(&value).expect("it is JSON");
            assert_eq!(json["seq"], "0000000042");
        }
    }
}
