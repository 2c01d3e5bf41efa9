//! Consumer groups: lag, problems, and commands to running groups.
//!
//! - [`lag`]: number and age of unsettled records; [`health`]: problems; [`control_log`]: reads the
//!   control topic; [`control_command`]: publishes commands and collects answers
//! - [`scope`]: the scope of a command; [`own_topics`]: the group's own topics; [`members`]: the
//!   processes of members
//!
//! What is known of a group comes from two sources. The brokers know members, assignments and
//! committed offsets. The control topic contains what operators commanded and what members
//! reported; a member that was killed cannot withdraw its report, so reports count only for members
//! that the brokers list.
//!
//! ```no_run
//! use evenkeel::kafka::admin::Admin;
//! use evenkeel_ops::groups::{control_log, health, lag};
//! use evenkeel_ops::{Cluster, SilentObserver};
//!
//! # async fn example(cluster: Cluster, admin: Admin) -> Result<(), evenkeel::kafka::KafkaError> {
//! for group in admin.groups().await? {
//!     let lag = lag::lag_of(&admin, &group, &[], &SilentObserver).await?;
//!     let control = control_log::state(&cluster, &admin, &group.group).await?;
//!     for problem in health::problems(&group, &control, &lag) {
//!         println!("{problem}");
//!     }
//! }
//! # Ok(())
//! # }
//! ```

pub mod control_command;
pub mod control_log;
mod error;
pub mod health;
pub mod lag;
pub mod members;
pub mod own_topics;
pub mod scope;

pub use error::GroupError;
