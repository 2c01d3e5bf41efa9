//! The group whose waiting keys a command concerns.

use crate::arguments::connection::ConnectionArgs;
use crate::arguments::group_args::GroupArg;
use crate::output::observer::Stderr;
use clap::Args;
use evenkeel::consumer::ParkedKey;
use evenkeel_ops::waiting_keys::{source_topics, waiting_keys};

/// The group whose parked records a command concerns, and its source topics.
#[derive(Debug, Args)]
pub(super) struct GroupArgs {
    #[command(flatten)]
    pub(super) group: GroupArg,

    /// Only records of this source topic; may be repeated [default: all of the group's].
    #[arg(short, long = "topic", value_name = "TOPIC")]
    pub(super) topics: Vec<String>,
}

impl GroupArgs {
    /// The named topics, or those of the group that have a retry topic.
    pub(super) async fn sources(&self, connection: &ConnectionArgs) -> anyhow::Result<Vec<String>> {
        let admin = connection.admin().await?;
        let sources = source_topics(&admin, self.group.name(), &self.topics, &Stderr).await?;
        Ok(sources)
    }

    /// Reads the waiting keys from the retry topics.
    pub(super) async fn keys(&self, connection: &ConnectionArgs) -> anyhow::Result<Vec<ParkedKey>> {
        let topics = self.sources(connection).await?;
        let cluster = connection.cluster()?;
        Ok(waiting_keys(&cluster, self.group.name(), topics).await?)
    }
}
