//! The address of a store as an argument. It may contain a password, so it is never printed,
//! neither in help as the variable's value nor in errors.

use clap::Args;
use evenkeel_program::redacted_address::RedactedAddress;

/// Which store is meant.
#[derive(Debug, Clone, Args)]
pub(crate) struct StoreArgs {
    #[arg(
        long = "store",
        value_name = "URL",
        env = "EVENKEEL_STORE",
        hide_env_values = true,
        help = HELP
    )]
    pub(crate) address: RedactedAddress,
}

/// Forms of a store's address, for help.
pub(crate) const HELP: &str = "\
Store of the service: postgres://USER@HOST/DATABASE or sqlite:PATH. Other users of the machine can \
read arguments: set an address with a password in EVENKEEL_STORE";
