//! How a store is named on the command line. It may hold a password, so it is never printed.

use clap::Args;

/// Which store is meant.
#[derive(Clone, Args)]
pub(crate) struct StoreArgs {
    /// The service's store: postgres://USER@HOST/DATABASE or sqlite:PATH. Other users of the machine can read arguments: put an
    /// address with a password into EVENKEEL_STORE.
    #[arg(
        long = "store",
        value_name = "URL",
        env = "EVENKEEL_STORE",
        hide_env_values = true
    )]
    pub(crate) address: String,
}

impl std::fmt::Debug for StoreArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreArgs").finish_non_exhaustive()
    }
}
