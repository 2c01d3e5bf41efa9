//! The commands of operators: they arrive through the group's control topic and are carried out
//! here.

pub(crate) mod control_topic;
mod parked_records;
mod presence;
pub(crate) mod reconcile;
mod skip_requests;
