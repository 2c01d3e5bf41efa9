//! The parts of help texts and manual pages that are not arguments: examples, exit codes,
//! environment.
//!
//! - [`command`]: the command line with its help; [`manual_page`]: a manual page; [`examples`]: the
//!   examples of both

mod command;
mod examples;
mod manual_page;

pub(crate) use command::command;
pub(crate) use manual_page::page;
