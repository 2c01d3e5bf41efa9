//! Consumer groups: lag, problems, and commands to running groups.
//!
//! - [`lag`]: number and age of unsettled records; [`health`]: problems; [`control_log`]: reads the
//!   control topic; [`control_command`]: gives commands and collects answers
//! - [`scope`]: the scope of a command; [`own_topics`]: the group's own topics; [`members`]: the
//!   processes of members

pub mod control_command;
pub mod control_log;
mod error;
pub mod health;
pub mod lag;
pub mod members;
pub mod own_topics;
pub mod scope;

pub use error::GroupError;
