//! Commands to a running group, one file each.
//!
//! Each file turns its arguments into a [`ControlCommand`], which checks itself before any request
//! to the cluster, and then writes itself to the control topic and prints the members' answers.
//!
//! - [`give`]: the command, its common flags, its answers; [`target`]: the scope of a command

pub(super) mod accept_loss;
mod give;
pub(super) mod pause;
pub(super) mod rate;
pub(super) mod retry_now;
pub(super) mod skip;
mod target;

pub(in crate::commands) use give::{CommandArgs, ControlCommand};
