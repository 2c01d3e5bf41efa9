//! How far a long command is: a bar on a terminal, nothing elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;

/// A bar on standard error, gone when it is dropped.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Starts at nothing of `total`.
    pub(crate) fn start(total: u64, what: &str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), target());
        // A template that cannot be parsed would only look different.
        if let Ok(style) =
            ProgressStyle::with_template("{bar:24} {pos} of {len} {msg}, {per_sec}, {eta} left")
        {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        Self(bar)
    }

    /// One more is done.
    pub(crate) fn advance(&self) {
        self.0.inc(1);
    }

    /// So many are done.
    pub(crate) fn reach(&self, done: u64) {
        self.0.set_position(done);
    }

    /// Whether anybody sees a bar.
    pub(crate) fn is_shown() -> bool {
        std::io::stderr().is_terminal()
    }

    /// Writes a line that stays, above the bar where there is one.
    pub(crate) fn say(&self, line: &str) {
        self.0.suspend(|| anstream::eprintln!("{line}"));
    }
}

fn target() -> ProgressDrawTarget {
    if Progress::is_shown() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
