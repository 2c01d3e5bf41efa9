//! The commands of operators: they arrive through the group's control topic and are carried out
//! here.
//!
//! - `control_topic`: reads the topic
//! - `reconcile`: compares the desired state with the actual one, once per turn, and acknowledges
//! - `skip_requests`: records to skip, until they are settled
//! - `parked_records`: retry and drop of parked records
//! - `presence`: this member's own entry
//!
//! Lasting commands and skips are desired state: a member applies what is in force whenever its
//! assignment or the topic changes, and need not run when the command is given. The others are
//! carried out once, by the members that run.

pub(crate) mod control_topic;
mod parked_records;
mod presence;
pub(crate) mod reconcile;
mod skip_requests;
