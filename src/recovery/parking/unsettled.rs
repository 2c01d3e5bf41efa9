//! A set of offsets that grows at its end and shrinks at its beginning, with one bit for each.
//!
//! A bitmap and not a tree of ranges: settled offsets of many keys are spread, and the memory is
//! bounded by the distance between the first and the last unsettled offset, an eighth of a byte for
//! each offset in between.

use std::collections::VecDeque;
use std::ops::Range;

/// The unsettled offsets.
#[derive(Default)]
pub(super) struct Unsettled {
    /// The offset of the first bit of the first word.
    base: i64,
    /// One bit for each offset from `base` on. The first word is not 0.
    words: VecDeque<u64>,
}

impl Unsettled {
    /// Adds an offset, which must be above all that were added before: entries are seen in the
    /// order of the log. An offset below the first word is ignored.
    pub(super) fn add(&mut self, offset: i64) {
        if self.words.is_empty() {
            self.base = offset;
        }
        let Some((word, bit)) = self.place(offset) else {
            return;
        };
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= bit;
    }

    /// Removes an offset. Nothing happens if it is not in the set. Words of settled offsets at the
    /// beginning are freed.
    pub(super) fn remove(&mut self, offset: i64) {
        if let Some((word, bit)) = self.place(offset)
            && let Some(word) = self.words.get_mut(word)
        {
            *word &= !bit;
        }
        while self.words.front() == Some(&0) {
            self.words.pop_front();
            self.base += 64;
        }
    }

    /// The set as ascending ranges, at most `limit`. Returns also whether these are all.
    pub(super) fn ranges(&self, limit: usize) -> (Vec<Range<i64>>, bool) {
        let mut ranges: Vec<Range<i64>> = Vec::new();
        for (index, word) in self.words.iter().enumerate() {
            let mut rest = *word;
            let first = self.base + index as i64 * 64;
            while rest != 0 {
                let start = rest.trailing_zeros();
                let length = (rest >> start).trailing_ones();
                let range = first + i64::from(start)..first + i64::from(start + length);
                let is_full = ranges.len() == limit;
                match ranges.last_mut() {
                    Some(last) if last.end == range.start => last.end = range.end,
                    _ if is_full => return (ranges, false),
                    _ => ranges.push(range),
                }
                let end = start + length;
                rest = if end == 64 { 0 } else { rest >> end << end };
            }
        }
        (ranges, true)
    }

    /// The word and the bit of an offset. None below `base`.
    fn place(&self, offset: i64) -> Option<(usize, u64)> {
        let distance = usize::try_from(offset.checked_sub(self.base)?).ok()?;
        Some((distance / 64, 1 << (distance % 64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_holds_what_was_added_and_not_removed(
            start in 0_i64..1 << 40,
            steps in proptest::collection::vec((0_i64..300, any::<bool>()), 0..300),
        ) {
            let (mut set, mut model) = (Unsettled::default(), BTreeSet::new());
            let mut next = start;
            for (number, adds) in steps {
                if adds {
                    next += number;
                    set.add(next);
                    model.insert(next);
                    next += 1;
                } else if let Some(offset) = model.iter().nth(number as usize % model.len().max(1)).copied() {
                    set.remove(offset);
                    model.remove(&offset);
                }
            }
            let (ranges, is_all) = set.ranges(usize::MAX);
            prop_assert!(is_all);
            let touch = ranges.windows(2).any(|pair| pair[0].end >= pair[1].start);
            prop_assert!(!touch);
            prop_assert_eq!(ranges.iter().cloned().flatten().collect::<BTreeSet<_>>(), model);
            let (some, is_all) = set.ranges(2);
            prop_assert_eq!(&some[..], &ranges[..ranges.len().min(2)]);
            prop_assert_eq!(is_all, ranges.len() <= 2);
        }
    }
}
