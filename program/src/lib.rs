//! Shared code of this workspace's programs, so that a flag, a duration or an exit code has the
//! same meaning in each.
//!
//! | module | owns |
//! |---|---|
//! | [`exit`] | the one table of exit codes, and which error has which |
//! | [`duration`] | durations on the command line and in files |
//! | [`stop`] | SIGINT and SIGTERM as a request to stop |
//! | [`connection`] | the broker flags, and their precedence over files and variables |
//! | [`store`] | the address of a store, which may hold a password |
//! | [`output_format`] | table, JSON and JSON lines |
//! | [`stdout`] | standard output, whose reader may leave |
//! | `log` (feature `log`) | logging to standard error |

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod connection;
pub mod duration;
pub mod exit;
#[cfg(feature = "log")]
pub mod log;
pub mod output_format;
pub mod stdout;
pub mod stop;
pub mod store;
