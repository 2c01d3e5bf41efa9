//! `evenkeel parked`: which keys of a group wait, since when, behind which record and why; and what to do about one.

mod list;
mod release;
mod show;

use crate::connection::ConnectionArgs;
use crate::exit::{Ending, Usage};
use clap::{Args, Subcommand};
use evenkeel::consumer::{ParkedKey, parked_keys};
use evenkeel::kafka::admin::Admin;
use evenkeel::recovery::retry_topic;

/// List and show what waits in a group's retry topics, let a key go on, or give its first record up.
///
/// A record that keeps failing is parked in retry.GROUP.TOPIC, and the later records of its key behind it. They are tried
/// again when they are due; nobody has to do anything for that.
#[derive(Debug, Args)]
pub(crate) struct ParkedArgs {
    #[command(subcommand)]
    command: ParkedCommand,

    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, Subcommand)]
enum ParkedCommand {
    #[command(visible_alias = "ls")]
    List(list::ListArgs),
    Show(show::ShowArgs),
    Release(release::ReleaseArgs),
    Drop(release::DropArgs),
}

impl ParkedCommand {
    /// Refuses what means nothing, before anything is asked of the cluster.
    fn check(&self) -> Result<(), Usage> {
        match self {
            Self::List(_) | Self::Show(_) => Ok(()),
            Self::Release(args) => args.check(),
            Self::Drop(args) => args.check(),
        }
    }
}

/// Whose parked records are meant.
#[derive(Debug, Args)]
struct GroupArgs {
    /// The consumer group.
    group: String,

    /// Only what comes from these topics; all of the group's when left out.
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
}

/// Runs one of the commands.
pub(crate) async fn run(args: ParkedArgs) -> anyhow::Result<Ending> {
    args.command.check()?;
    let connection = args.connection;
    match args.command {
        ParkedCommand::List(args) => list::run(&connection, args).await,
        ParkedCommand::Show(args) => show::run(&connection, args).await,
        ParkedCommand::Release(args) => release::run(&connection, args).await,
        ParkedCommand::Drop(args) => release::run_drop(&connection, args).await,
    }
}

/// The keys that wait.
async fn keys_of(connection: &ConnectionArgs, args: &GroupArgs) -> anyhow::Result<Vec<ParkedKey>> {
    let admin = connection.admin().await?;
    let topics = sources(&admin, &args.group, &args.topics).await?;
    let (kafka, timeout) = (connection.kafka()?, connection.timeout());
    let group = args.group.clone();
    let look = move || {
        let mut keys = Vec::new();
        for topic in topics {
            keys.extend(parked_keys(&kafka, &group, &topic, timeout)?);
        }
        anyhow::Ok(keys)
    };
    tokio::task::spawn_blocking(look).await?
}

/// The topics of the group that have a retry topic, or these if they all have one.
pub(super) async fn sources(
    admin: &Admin,
    group: &str,
    topics: &[String],
) -> anyhow::Result<Vec<String>> {
    if !topics.is_empty() {
        let retries: Vec<String> = topics
            .iter()
            .map(|topic| retry_topic(group, topic))
            .collect();
        // One that may not be seen is an error, and not one that is missing.
        let counts = admin.partition_counts(&retries).await?;
        if let Some((topic, retry)) = topics
            .iter()
            .zip(&retries)
            .find(|(_, retry)| !counts.contains_key(*retry))
        {
            anyhow::bail!("the group {group} has no retry topic for {topic}: it would be {retry}");
        }
        return Ok(topics.to_vec());
    }
    let names = admin.topics().await?;
    let has_retry = |topic: &&String| names.contains(&retry_topic(group, topic));
    let sources: Vec<String> = names.iter().filter(has_retry).cloned().collect();
    anyhow::ensure!(
        !sources.is_empty(),
        "the group {group} has no retry topics; see: evenkeel groups list"
    );
    Ok(sources)
}

/// A key as text: what is no UTF-8 in it is shown as such.
fn text_of(key: Option<&[u8]>) -> Option<String> {
    key.map(|key| String::from_utf8_lossy(key).into_owned())
}
