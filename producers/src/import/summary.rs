//! The summary of an import, for standard output.

use super::resume::Progress;
use crate::output::Columns;
use crate::progress::per_second;
use serde::Serialize;
use std::time::Duration;

/// The summary of an import. Counts include the earlier runs that it continues. The rate is this
/// run's.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    lines: u64,
    acknowledged: u64,
    bad_lines: u64,
    complete: bool,
    resumed_after_line: Option<u64>,
    elapsed_seconds: f64,
    rate_per_second: f64,
}

impl Summary {
    pub(super) fn new(start: Progress, end: Progress, complete: bool, elapsed: Duration) -> Self {
        Self {
            lines: end.at.line,
            acknowledged: end.acknowledged,
            bad_lines: end.bad_lines,
            complete,
            resumed_after_line: (start.at.line > 0).then_some(start.at.line),
            elapsed_seconds: elapsed.as_secs_f64(),
            rate_per_second: per_second(end.acknowledged - start.acknowledged, elapsed),
        }
    }
}

impl Columns for Summary {
    const NAMES: &'static [&'static str] = &[
        "lines",
        "acknowledged",
        "bad_lines",
        "complete",
        "resumed_after_line",
        "elapsed_seconds",
        "rate_per_second",
    ];

    fn texts(&self) -> Vec<String> {
        vec![
            self.lines.to_string(),
            self.acknowledged.to_string(),
            self.bad_lines.to_string(),
            self.complete.to_string(),
            self.resumed_after_line
                .map_or("-".to_owned(), |line| line.to_string()),
            format!("{:.1}", self.elapsed_seconds),
            format!("{:.0}", self.rate_per_second),
        ]
    }
}
