//! `evenkeel dlq purge`: takes letters away that nobody needs any more.

use super::Cluster;
use super::letters::{End, Letter, drain};
use super::marks;
use super::replay::write_marks;
use super::select::TopicArgs;
use crate::exit::{Ending, Usage};
use crate::output::{Listing, OutputArgs, Row};
use crate::stop::Stop;
use crate::time;
use clap::Args;
use evenkeel::kafka::admin::Admin;
use evenkeel::kafka::reader::{Reader, Reading, Start};
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::recovery::{DeadLetter, Mark, Replays, replay_topic};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Delete letters for good; shows what would go until --execute is given.
///
/// Kafka deletes the beginning of a partition and nothing else. So this deletes from the first letter up to the first that
/// is to stay; what stands behind it stays, too.
///
/// Deletes dead letters only: topics that services write to, retry.*, control.*, replays.* and Kafka's own are refused, and
/// so is every topic in which a record that would go carries no failure headers.
#[derive(Debug, Args)]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    topics: TopicArgs,

    /// Delete what was written before this time, 2026-05-01T12:00:00Z or an age such as -30d.
    #[arg(long, value_name = "TIME", value_parser = time::parse, allow_hyphen_values = true,
        required_unless_present = "all_replayed", conflicts_with = "all_replayed")]
    before: Option<Timestamp>,

    /// Delete what was replayed.
    #[arg(long)]
    all_replayed: bool,

    /// Do it, instead of showing it.
    #[arg(long)]
    execute: bool,

    #[command(flatten)]
    output: OutputArgs,
}

impl PurgeArgs {
    /// Refuses what means nothing, and topics that hold no dead letters.
    pub(super) fn check(&self) -> Result<(), Usage> {
        if self.topics.is_empty() {
            return Err(Usage("name dead-letter topics, or --group".to_owned()));
        }
        match self.topics.topics.iter().find_map(|topic| purpose(topic)) {
            Some(reason) => Err(Usage(reason)),
            None => Ok(()),
        }
    }
}

/// What a topic is for that is no dead-letter topic by its name; none where the name says nothing against it.
fn purpose(topic: &str) -> Option<String> {
    const OTHERS: [(&str, &str); 4] = [
        ("retry.", "records that wait for their next attempt"),
        ("control.", "the commands of a group"),
        ("replays.", "which dead letters were replayed"),
        ("__", "data of Kafka itself"),
    ];
    let other = OTHERS.iter().find(|(prefix, _)| topic.starts_with(prefix));
    let is_declared = || {
        shop_schemas::topics()
            .iter()
            .any(|declared| declared.name == topic)
    };
    let holds = match other {
        Some((_, holds)) => holds,
        None if is_declared() => "events that services publish",
        None => return None,
    };
    Some(format!(
        "{topic} holds {holds}, not dead letters; nothing was deleted"
    ))
}

/// What goes of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Cut {
    topic: String,
    partition: i32,
    /// The first offset that is there.
    first: i64,
    /// The first offset that stays.
    before: i64,
    /// Offsets that go.
    delete: i64,
    /// Letters among them that were replayed.
    replayed: usize,
    /// Offsets that stay.
    keep: i64,
    /// Whether it was done; false in a dry run.
    done: bool,
}

impl Row for Cut {
    const COLUMNS: &'static [&'static str] = &[
        "topic",
        "partition",
        "first offset",
        "delete before",
        "delete",
        "replayed",
        "keep",
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![vec![
            self.topic.clone(),
            self.partition.to_string(),
            self.first.to_string(),
            self.before.to_string(),
            self.delete.to_string(),
            self.replayed.to_string(),
            self.keep.to_string(),
        ]]
    }
}

/// Shows what would go, and deletes it if asked to.
pub(super) async fn run(
    args: PurgeArgs,
    cluster: Cluster,
    admin: &Admin,
    stop: Stop,
) -> anyhow::Result<Ending> {
    let topics = args.topics.resolve(admin).await?;
    if let Some(reason) = topics.iter().find_map(|topic| purpose(topic)) {
        return Err(Usage(reason).into());
    }
    let mut rows = Vec::new();
    let mut stranded = 0;
    for topic in &topics {
        let replays = marks::of_topic(&cluster, topic).await?.replays;
        let (at, listener, name) = (cluster.clone(), stop.clone(), topic.clone());
        let (before, group) = (args.before, args.topics.group.clone());
        let look = move || {
            let cuts = match before {
                Some(time) => cuts_before(&at, &name, time).map(Some)?,
                None => cuts_replayed(&at, &name, &replays, &listener)?,
            };
            let cuts = match (cuts, group) {
                (Some(cuts), Some(group)) => own_cuts(&at, &name, &group, cuts, &listener)?,
                (cuts, _) => cuts,
            };
            if let Some(cuts) = &cuts {
                refuse_others(&at, &name, cuts, &listener)?;
            }
            anyhow::Ok((cuts, replays))
        };
        let (cuts, replays) = tokio::task::spawn_blocking(look).await??;
        if let Some(signal) = stop.requested() {
            return Ok(Ending::Stopped(signal));
        }
        let mut cuts = with_bounds(admin, topic, &cuts.unwrap_or_default(), &replays).await?;
        if args.all_replayed {
            stranded += cuts.iter().map(|cut| behind(&replays, cut)).sum::<usize>();
        }
        if args.execute {
            delete(&cluster, admin, topic, &mut cuts, &replays).await?;
        }
        rows.extend(cuts);
    }
    let letters: i64 = rows.iter().map(|cut| cut.delete).sum();
    let replayed: usize = rows.iter().map(|cut| cut.replayed).sum();
    Listing::print(args.output.output, rows)?;
    if stranded > 0 {
        anstream::eprintln!(
            "evenkeel: {stranded} replayed letters stay: they stand behind one that was not replayed, and only the \
             beginning of a partition can be deleted"
        );
    }
    if !args.execute {
        anstream::eprintln!(
            "evenkeel: up to {letters} letters would be deleted for good, {replayed} of them were replayed; nothing was \
             changed, --execute does it"
        );
    }
    Ok(Ending::Done)
}

/// First offsets that stay, by partition.
type Cuts = BTreeMap<i32, i64>;

/// Up to the first record of `time` or later.
fn cuts_before(cluster: &Cluster, topic: &str, time: Timestamp) -> anyhow::Result<Cuts> {
    let reading = Reading {
        start: Start::Time(time.as_millisecond()),
        ..Reading::whole([topic])
    };
    let reader = Reader::open(&cluster.kafka, &reading, cluster.timeout)?;
    Ok(reader
        .spans()
        .map(|span| (span.partition, span.start))
        .collect())
}

/// Up to the first letter that was not replayed; none when a signal came first.
fn cuts_replayed(
    cluster: &Cluster,
    topic: &str,
    replays: &Replays,
    stop: &Stop,
) -> anyhow::Result<Option<Cuts>> {
    let mut reader = Reader::open(&cluster.kafka, &Reading::whole([topic]), cluster.timeout)?;
    let ends = reader
        .spans()
        .filter_map(|span| Some((span.partition, span.end?)));
    let mut cuts: Cuts = ends.collect();
    let mut open = cuts.len();
    let mut closed = Cuts::new();
    let end = drain(&mut reader, stop, |record| {
        let (partition, offset) = (record.partition, record.offset);
        let is_replayed = replays.contains(partition, offset, record.timestamp_ms);
        if !is_replayed && !closed.contains_key(&partition) {
            closed.insert(partition, offset);
            open -= 1;
        }
        Ok(open > 0)
    })?;
    cuts.extend(closed);
    Ok((!matches!(end, End::Stopped(_))).then_some(cuts))
}

/// These cuts, but none past a letter of another group: where names run together, as those of `a` with `b.c` and of `a.b` with
/// `c`, both write to one topic. None when a signal came first.
fn own_cuts(
    cluster: &Cluster,
    topic: &str,
    group: &str,
    mut cuts: Cuts,
    stop: &Stop,
) -> anyhow::Result<Option<Cuts>> {
    let mut reader = Reader::open(&cluster.kafka, &Reading::whole([topic]), cluster.timeout)?;
    let mut foreign = None;
    let end = drain(&mut reader, stop, |record| {
        let letter = DeadLetter::read(record.headers.iter());
        if let (Some(other), Some(cut)) = (letter.group, cuts.get_mut(&record.partition))
            && other != group
            && record.offset < *cut
        {
            *cut = record.offset;
            foreign.get_or_insert(other);
        }
        Ok(true)
    })?;
    if let Some(other) = foreign {
        anstream::eprintln!(
            "evenkeel: {topic} holds letters of the group {other}, too: they stay, and what stands behind them; name the topic \
             instead of the group to delete them as well"
        );
    }
    Ok((!matches!(end, End::Stopped(_))).then_some(cuts))
}

/// Fails where a record before the cuts is no dead letter: it carries none of the failure headers that [`Letter`] knows.
fn refuse_others(cluster: &Cluster, topic: &str, cuts: &Cuts, stop: &Stop) -> anyhow::Result<()> {
    let mut reader = Reader::open(&cluster.kafka, &Reading::whole([topic]), cluster.timeout)?;
    let goes = |partition, offset| cuts.get(&partition).is_some_and(|cut| offset < *cut);
    let mut open: BTreeSet<i32> = reader
        .spans()
        .filter(|span| goes(span.partition, span.start))
        .map(|span| span.partition)
        .collect();
    if open.is_empty() {
        return Ok(());
    }
    drain(&mut reader, stop, |record| {
        let (partition, offset) = (record.partition, record.offset);
        if !goes(partition, offset) {
            open.remove(&partition);
        } else if Letter::new(record).failure.family.is_none() {
            anyhow::bail!(
                "{topic}/{partition}@{offset} carries no failure headers, so it is no dead letter; nothing of {topic} was \
                 deleted. Where it may go all the same, delete it with Kafka's kafka-delete-records"
            );
        }
        Ok(!open.is_empty())
    })?;
    Ok(())
}

/// The cuts with what each partition has.
async fn with_bounds(
    admin: &Admin,
    topic: &str,
    cuts: &Cuts,
    replays: &Replays,
) -> anyhow::Result<Vec<Cut>> {
    let described = admin.describe_topic(topic).await?;
    let cut = |partition: &evenkeel::kafka::admin::PartitionDescription| {
        let (first, end) = (partition.low, partition.high);
        let before = cuts
            .get(&partition.partition)
            .map_or(first, |cut| (*cut).clamp(first, end));
        Cut {
            topic: topic.to_owned(),
            partition: partition.partition,
            first,
            before,
            delete: before - first,
            replayed: replays
                .before(partition.partition, before)
                .filter(|offset| *offset >= first)
                .count(),
            keep: end - before,
            done: false,
        }
    };
    // A partition without a leader has no offsets that could be told.
    let led = described
        .partitions
        .iter()
        .filter(|partition| partition.low >= 0);
    Ok(led.map(cut).collect())
}

/// Replayed letters that stay.
fn behind(replays: &Replays, cut: &Cut) -> usize {
    let all = replays.before(cut.partition, i64::MAX);
    all.filter(|offset| *offset >= cut.before).count()
}

/// Deletes, and takes back the marks of what is gone.
async fn delete(
    cluster: &Cluster,
    admin: &Admin,
    topic: &str,
    cuts: &mut [Cut],
    replays: &Replays,
) -> anyhow::Result<()> {
    let before: Cuts = cuts
        .iter()
        .filter(|cut| cut.delete > 0)
        .map(|cut| (cut.partition, cut.before))
        .collect();
    admin.delete_records(topic, &before).await?;
    for cut in cuts.iter_mut() {
        cut.done = cut.delete > 0;
    }
    let gone: Vec<Mark> = before
        .iter()
        .flat_map(|(partition, before)| {
            let offsets = replays.before(*partition, *before);
            offsets.map(|offset| Mark::Letter {
                partition: *partition,
                offset,
                replayed: None,
            })
        })
        .collect();
    if let (false, Some(marks)) = (gone.is_empty(), replay_topic(topic)) {
        let publisher = Publisher::new(&cluster.kafka, PublisherSettings::new("/evenkeel/cli"))?;
        write_marks(&publisher, &marks, &gone).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_that_hold_something_else_are_refused_by_name() {
        let check =
            |topic: &str, expected| assert_eq!(purpose(topic).is_some(), expected, "{topic}");
        check("dlq.payments.shop.orders", false);
        check("orders-dlt", false);
        check("retry.payments.shop.orders", true);
        check("control.payments", true);
        check("replays.dlq.payments.shop.orders", true);
        check("__consumer_offsets", true);
        check("shop.orders", true);
    }
}
