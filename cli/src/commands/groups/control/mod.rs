//! Commands to a running group, one file each. [`give`]: gives a command and prints its answers;
//! [`target`]: the scope of a command.

pub(super) mod accept_loss;
mod give;
pub(super) mod pause;
pub(super) mod rate;
pub(super) mod retry_now;
pub(super) mod skip;
mod target;

pub(in crate::commands) use give::{CommandArgs, give};
