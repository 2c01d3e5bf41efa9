//! `--check`: turns a listing into a check with an exit code.
//!
//! Listings never fail because of what they show, unless the flag is given: a script that only
//! reads them must not stop at a paused group. Problems go to standard error, so that standard
//! output stays the same listing with and without the flag.

use crate::output::stderr::say;
use clap::Args;
use evenkeel_program::exit::Ending;

/// The flag that turns a listing into a check.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct CheckArgs {
    /// Exit with 3 if the listing shows a problem, and print each problem on standard error.
    #[arg(long)]
    pub(crate) check: bool,
}

impl CheckArgs {
    /// How the command ends. With `--check`, prints the problems to standard error.
    pub(crate) fn ending_for(self, problems: &[String]) -> Ending {
        if !self.check || problems.is_empty() {
            return Ending::Done;
        }
        for problem in problems {
            say!("{problem}");
        }
        Ending::FoundBad
    }
}
