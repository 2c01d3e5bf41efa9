//! A count with examples.

/// Maximum number of examples per kind of finding.
pub(super) const EXAMPLES_MAX: usize = 5;

/// A count with a few of the counted items.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) count: u64,
    pub(crate) examples: Vec<String>,
}

impl Tally {
    pub(super) fn add(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example());
        }
    }
}
