//! The progress of a long command: a bar on a terminal, nothing elsewhere.

use crate::output::stderr::say;
use evenkeel_ops::Observer;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;

/// A bar on standard error. It disappears when it is dropped.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Starts at 0 of `total`.
    pub(crate) fn start(total: u64, what: &str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), draw_target());
        // An invalid template only changes the bar's appearance.
        if let Ok(style) =
            ProgressStyle::with_template("{bar:24} {pos} of {len} {msg}, {per_sec}, {eta} left")
        {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        Self(bar)
    }

    /// Sets the number of finished items.
    pub(crate) fn set_done(&self, done: u64) {
        self.0.set_position(done);
    }

    /// Whether a bar is visible.
    pub(crate) fn is_shown() -> bool {
        std::io::stderr().is_terminal()
    }

    /// Writes a permanent line, above the bar if there is one.
    pub(crate) fn say(&self, line: &str) {
        self.0.suspend(|| say!("{line}"));
    }
}

/// Where the bar is drawn: nowhere if standard error is no terminal, because a log would be filled
/// with it.
fn draw_target() -> ProgressDrawTarget {
    if Progress::is_shown() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    }
}

impl Observer for Progress {
    fn advance(&self) {
        self.0.inc(1);
    }

    fn notice(&self, text: &str) {
        self.say(text);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
