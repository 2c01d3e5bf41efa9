//! Executes the commands of operators, which arrive through the group's control topic.
//!
//! - `control_topic`: reads the topic
//! - `reconcile`: compares the desired state with the actual one, once per turn, and acknowledges
//! - `immediate_commands`: executes the commands that are not lasting
//! - `acknowledgements`: the texts of acknowledgements
//! - `skip_requests`: records to skip, until they are settled
//! - `parked_records`: retry and drop of parked records
//! - `member_announcement`: this member's own entry
//! - `telemetry`: what they log
//!
//! Lasting commands and skips are desired state: a member applies what is in force whenever its
//! assignment or the topic changes, and need not run when the command is given. The others are
//! executed once, by the members that run.

mod acknowledgements;
pub(crate) mod control_topic;
mod immediate_commands;
mod member_announcement;
mod parked_records;
pub(crate) mod reconcile;
mod skip_requests;
mod telemetry;
