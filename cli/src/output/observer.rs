//! Prints the reports of operations to standard error.

use crate::output::stderr::say;
use evenkeel_ops::Observer;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Prints the notices of an operation, each on a line of standard error.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stderr;

impl Observer for Stderr {
    fn notice(&self, text: &str) {
        say!("{text}");
    }

    fn notice_once(&self, text: &str) {
        static PRINTED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        let mut printed = PRINTED.lock().unwrap_or_else(PoisonError::into_inner);
        if printed.insert(text.to_owned()) {
            self.notice(text);
        }
    }
}
