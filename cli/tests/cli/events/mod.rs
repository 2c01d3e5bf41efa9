//! `evenkeel publish` and `evenkeel consume`.
//!
//! - `publish`: input is validated, failures are named by line, receipts are printed
//! - `consume`: records are printed in every format, to the end or until stopped
//! - `unreadable`: a batch that no client can read is named, and other partitions continue

mod consume;
mod publish;
mod unreadable;
