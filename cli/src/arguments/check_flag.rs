//! `--check`: a listing with a verdict.

use crate::output::stderr::say;
use clap::Args;
use evenkeel_program::exit::Ending;

/// Whether what is listed is judged.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct CheckArgs {
    /// Exit with 3 where something is wrong, and say on standard error what.
    #[arg(long)]
    pub(crate) check: bool,
}

impl CheckArgs {
    /// The verdict. With `--check`, prints the problems to standard error.
    pub(crate) fn judge(self, wrong: &[String]) -> Ending {
        if !self.check || wrong.is_empty() {
            return Ending::Done;
        }
        for finding in wrong {
            say!("{finding}");
        }
        Ending::FoundBad
    }
}
