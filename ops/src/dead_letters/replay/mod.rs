//! Replays dead letters: publishes each once, to where it failed or to another topic.
//!
//! - `source`: the dead letters; `plan`: the destination of each; `recorder`: entries of the replay
//!   log, from which a killed run is resumed
//! - `history`: replays that a killed run published but did not record; `sender`: publishing in
//!   order; `run`: the whole replay; `execution`: its limits and outcome
//!
//! ```no_run
//! use evenkeel::kafka::admin::Admin;
//! use evenkeel_ops::dead_letters::DeadLetterError;
//! use evenkeel_ops::dead_letters::replay::{Limits, Replay, ReplaySettings, Source, Target};
//! use evenkeel_ops::dead_letters::select::Filter;
//! use evenkeel_ops::{Cluster, SilentObserver};
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example(cluster: Cluster, admin: Admin) -> Result<(), DeadLetterError> {
//! let source = Source::topics(vec!["dlq.payments.shop.orders".to_owned()]);
//! let settings = ReplaySettings::default()
//!     .with_filter(Filter::default().with_class("transient".to_owned()))
//!     .with_target(Target::Retry)
//!     .with_execute(true);
//! let stop = CancellationToken::new();
//! let plan = Replay::plan(&cluster, &admin, source, settings, &stop, &SilentObserver);
//! if let Some(mut replay) = plan.await? {
//!     replay.check()?;
//!     let limits = Limits::default().with_rate(100).with_records(1_000);
//!     let outcome = replay.execute("jane", limits, &stop, &SilentObserver).await?;
//!     println!("{} of {} replayed", outcome.replayed, replay.to_replay());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Each once
//!
//! A replay publishes to one topic and records to another, without a transaction. A run may be
//! killed in between. So it first records the end offsets of its destinations. The next run reads
//! the destinations from these offsets on: every record there names the dead letter of which it is
//! the replay, recorded or not. A run repeats its first entry every second; another run that sees
//! such a heartbeat fails instead of publishing the same dead letters. Two runs that begin at the
//! same moment see each other's first entry in the log, and the later one fails.
//!
//! # In order
//!
//! Dead letters of one key are published one after the other, in the order of the dead-letter
//! topic. If one fails, the later ones of its key are held back for the next run.

mod execution;
mod history;
mod plan;
mod recorder;
mod run;
mod sender;
mod source;

pub use execution::{Limits, ReplayOutcome};
pub use plan::{Route, Target};
pub use run::{Replay, ReplaySettings};
pub use source::Source;

pub(super) use recorder::write as write_entries;
