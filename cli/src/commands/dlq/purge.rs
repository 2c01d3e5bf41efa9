//! `evenkeel dlq purge`: deletes dead letters that are no longer needed.
//!
//! Two checks protect other records: topics that are named like something else, or that the shop
//! publishes to, are refused by name; and the operation refuses a topic if a record to be deleted
//! carries no failure headers. Both apply to the dry run as well.

use super::select::TopicArgs;
use crate::arguments::timestamp;
use crate::output::observer::Stderr;
use crate::output::stderr::say;
use crate::output::{AfterDone, Column, Listing, OutputArgs, Row, name, number};
use clap::Args;
use evenkeel::kafka::admin::Admin;
use evenkeel_ops::Cluster;
use evenkeel_ops::dead_letters::purge::{
    Expired, Purge, PurgeSettings, PurgedPartition, check_purpose, purge,
};
use evenkeel_program::exit::{Ending, Usage};
use evenkeel_program::stop::Stop;
use jiff::Timestamp;
use std::sync::Arc;

/// Delete dead letters for good; shows the plan until --execute is given.
///
/// Kafka deletes only the beginning of a partition. So the command deletes from the first dead
/// letter up to the first that must stay; everything behind that stays, too. Safe to repeat.
///
/// Deletes dead letters only. It refuses topics that services publish to, retry.*, control.*,
/// replays.* and Kafka's own topics, and every topic in which a record to be deleted carries no
/// failure headers.
#[derive(Debug, Args)]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    topics: TopicArgs,

    /// Delete dead letters written before this time: 2026-05-01T12:00:00Z, or an age such as -30d.
    #[arg(
        long,
        value_name = "TIME",
        value_parser = timestamp::parse,
        allow_hyphen_values = true,
        conflicts_with = "all_replayed"
    )]
    before: Option<Timestamp>,

    /// Delete dead letters that were replayed.
    #[arg(long)]
    all_replayed: bool,

    /// Delete them. Without this flag, nothing is changed.
    #[arg(long)]
    pub(super) execute: bool,

    #[command(flatten)]
    output: OutputArgs,
}

impl PurgeArgs {
    /// Rejects meaningless arguments, and topics that hold no dead letters.
    pub(super) fn check(&self) -> Result<(), Usage> {
        if self.topics.is_empty() {
            return Err(Usage("name dead-letter topics, or give --group".to_owned()));
        }
        if self.before.is_none() && !self.all_replayed {
            let text = "name the dead letters to delete: --before TIME, or --all-replayed";
            return Err(Usage(text.to_owned()));
        }
        let mut topics = self.topics.topics.iter();
        topics.try_for_each(|topic| check_topic(topic))
    }
}

/// Rejects a topic whose name shows that it holds no dead letters. The shop's declarations are
/// those compiled into the tool.
fn check_topic(topic: &str) -> Result<(), Usage> {
    let is_declared = |topic: &str| {
        let mut declared = shop_schemas::topics().iter();
        declared.any(|declared| declared.name == topic)
    };
    check_purpose(topic, is_declared).map_err(|error| Usage(error.to_string()))
}

impl Row for PurgedPartition {
    const COLUMNS: &'static [Column] = &[
        name("topic"),
        number("partition"),
        number("first"),
        number("delete-before"),
        number("delete"),
        number("replayed"),
        number("keep"),
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![vec![
            self.topic.clone(),
            self.partition.to_string(),
            self.low.to_string(),
            self.before.to_string(),
            self.delete.to_string(),
            self.replayed.to_string(),
            self.keep.to_string(),
        ]]
    }
}

/// Prints the plan, and deletes the records with `--execute`. Topics are processed one by one: a
/// failure at one of them leaves the topics before it purged, and the command can be repeated.
pub(super) async fn run(
    args: PurgeArgs,
    cluster: Cluster,
    admin: &Admin,
    stop: Stop,
) -> anyhow::Result<Ending> {
    let topics = args.topics.resolve(admin).await?;
    topics.iter().try_for_each(|topic| check_topic(topic))?;
    let expired = args.before.map_or(Expired::Replayed, Expired::Before);
    let settings = PurgeSettings::new(expired)
        .with_group(args.topics.group.clone())
        .with_execute(args.execute);
    let stderr = Arc::new(Stderr);
    let purge = purge(&cluster, admin, &topics, &settings, stop.token(), stderr).await?;
    let Some(Purge { cuts, stranded, .. }) = purge else {
        return Ok(stop.ending());
    };
    let mut rows = cuts;
    let deleted: i64 = rows.iter().map(|cut| cut.delete).sum();
    let replayed: usize = rows.iter().map(|cut| cut.replayed).sum();
    let done = match args.execute {
        true => format!("{deleted} dead letters were deleted"),
        false => "nothing was changed".to_owned(),
    };
    let all = rows.len();
    // People want to see the deletions; programs receive every partition.
    rows.retain(|cut| cut.delete > 0 || !args.output.is_table());
    let folded = all - rows.len();
    Listing::print(args.output, rows).after_done(|| done)?;
    if folded > 0 {
        say!("{folded} other partitions keep all their dead letters");
    }
    if stranded > 0 {
        say!(
            "{stranded} replayed dead letters stay: they are behind one that was not replayed, and \
             Kafka deletes only the beginning of a partition"
        );
    }
    if !args.execute {
        say!(
            "up to {deleted} dead letters would be deleted for good, {replayed} of them were \
             replayed; nothing was changed; delete them with --execute"
        );
    }
    Ok(Ending::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_that_services_publish_to_are_refused() {
        assert!(check_topic("shop.orders").is_err());
        assert!(check_topic("retry.payments.shop.orders").is_err());
        assert!(check_topic("dlq.payments.shop.orders").is_ok());
    }
}
