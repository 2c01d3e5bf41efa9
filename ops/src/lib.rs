//! Operations on consumer groups built with evenkeel, as a library. The tool `evenkeel` is a
//! command line on top of it.
//!
//! | module | operation |
//! |---|---|
//! | [`dead_letters`] | list, select, read, restore and purge dead letters, and replay them |
//! | [`waiting_keys`] | keys whose records wait in a group's retry topics |
//! | [`groups`] | lag, health, commands to a running group and its own topics |
//! | [`audit`] | prove from log and store that every event of a topic reached its end in a group |
//! | [`drills`] | deliver settled events to a group once more, and judge its handlers |
//!
//! An operation takes a [`Cluster`], or an admin client if that is sufficient. A cancellation token
//! stops long operations. An [`Observer`] receives progress and notices. The result is plain data
//! whose serialised form is stable. This crate prints nothing and contains no arguments, tables or
//! exit codes.
//!
//! What changes a group or a topic happens in two steps: a plan, which may be shown, and its
//! execution. Functions that block their thread say so; call them from
//! [`tokio::task::spawn_blocking`]. All other functions need a Tokio runtime.
//!
//! Each area has one error type ([`AuditError`](audit::AuditError),
//! [`DeadLetterError`](dead_letters::DeadLetterError), [`GroupError`](groups::GroupError),
//! [`WaitingKeysError`](waiting_keys::WaitingKeysError), [`DrillError`](drills::DrillError)) with a
//! method `into_kafka`: errors of the cluster may be retried, the others need another request.
//!
//! The failures of the group `payments`, by cause:
//!
//! ```no_run
//! use evenkeel::kafka::KafkaConfig;
//! use evenkeel::kafka::admin::Admin;
//! use evenkeel_ops::dead_letters::causes::causes;
//! use evenkeel_ops::dead_letters::select::{Filter, Topics};
//! use evenkeel_ops::{Cluster, SilentObserver};
//! use std::time::Duration;
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let kafka = KafkaConfig::new("localhost:9092");
//! let cluster = Cluster::new(kafka, Duration::from_secs(10));
//! let admin = Admin::connect(&cluster.kafka, cluster.timeout).await?;
//! let topics = Topics::default().with_group("payments".to_owned());
//! let topics = topics.resolve(&admin, &SilentObserver).await?;
//! let stop = CancellationToken::new();
//! let found = causes(&cluster, &admin, topics, Filter::default(), &stop).await?;
//! for cause in found.iter().flat_map(|found| &found.groups) {
//!     println!("{} records: {}", cause.count, cause.cause.message);
//! }
//! # Ok(())
//! # }
//! ```

pub mod audit;
mod blocking;
pub mod cluster;
pub mod dead_letters;
pub mod drills;
pub mod groups;
pub mod names;
pub mod observer;
pub mod sending;
pub mod visibility;
pub mod waiting_keys;

pub use cluster::Cluster;
pub use names::unknown_group::UnknownGroup;
pub use observer::{Observer, SilentObserver};
