//! Shared code of this workspace's programs, so that a flag, a duration or an exit code has the
//! same meaning in each.
//!
//! Doc comments of arguments ([`connection::BrokerArgs`], [`output_format::OutputFormat`]) are help
//! texts of the programs.
//!
//! | module | owns |
//! |---|---|
//! | [`exit`] | the one table of exit codes, and which error has which |
//! | [`duration`] | durations on the command line and in files |
//! | [`stop`] | SIGINT and SIGTERM as a request to stop |
//! | [`connection`] | the broker flags, and their precedence over files and variables |
//! | [`redacted_address`] | the address of a store, redacted because it may contain a password |
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
pub mod redacted_address;
pub mod stdout;
pub mod stop;
