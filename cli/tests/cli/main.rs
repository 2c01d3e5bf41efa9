//! Runs the real binary as its users do.
//!
//! - `consume`: what is on the log is shown, in every form, to the end or until stopped
//! - `publish`: input is checked, failures are named by line, receipts are given
//! - `topics`, `groups`: against Apache Kafka, because the mock cluster knows no admin requests
//! - `usage`: exit codes, configuration, completions, schemas: what needs no cluster

mod consume;
mod groups;
mod publish;
mod tool;
mod topics;
mod usage;
