//! `evenkeel dlq replay`: letters go back to where they failed, or elsewhere, each once.
//!
//! - [`source`]: which letters · [`plan`]: what becomes of each · [`journal`]: what was done, so that a killed run is resumed
//! - [`leftovers`]: what a killed run published and did not note · [`sender`]: publishing in order

mod journal;
mod leftovers;
mod plan;
mod sender;
mod source;

use super::Cluster;
use super::select::{Filter, FilterArgs, TopicArgs};
use crate::exit::{Ending, Usage};
use crate::output::{Listing, OutputArgs};
use crate::stop::Stop;
use crate::user;
use clap::Args;
use evenkeel::kafka::admin::Admin;
use evenkeel::publisher::{Publisher, PublisherSettings};
use journal::Journal;
use plan::{Choice, Plan, Target};
use sender::Sender;
use source::Source;
use std::path::PathBuf;
use std::sync::Arc;

pub(super) use journal::write as write_marks;

/// Publish letters again, each once; shows what it would do until --execute is given.
///
/// A record goes back with its key, value and headers, the event's id among them, in the order of its key. What says why it
/// failed is taken off, and who replayed it and how often is added. A topic replays.TOPIC remembers what was replayed: a
/// run that was stopped or killed is resumed by calling it again. It ends where the letters ended when it began. A letter
/// that cannot be published is reported, and the later letters of its key wait for the next run. A letter that was too large for
/// its topic refers to the record that failed, which is replayed if its topic still has it, and reported if not. Without --to a
/// record goes to the retry topic of the group that gave it up, or to its source where the group has none: the dry run says which.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    topics: TopicArgs,

    /// Replay the letters of this file instead, lines that export wrote and that may have been edited; - is standard
    /// input. They are marked as edited.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["topics", "group"])]
    from_file: Option<PathBuf>,

    /// Where to: retry is the retry topic of the group that gave a record up, which no other group reads; source is the topic
    /// that it failed on, whose groups all read it.
    #[arg(
        long,
        value_name = "retry|source|TOPIC",
        default_value = "retry-or-source"
    )]
    to: Target,

    /// Do it, instead of showing it.
    #[arg(long)]
    execute: bool,

    /// Records a second at most.
    #[arg(long, value_name = "RECORDS", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,

    /// Stop after this many letters.
    #[arg(short = 'n', long, value_name = "LETTERS")]
    limit: Option<u64>,

    /// Replay also what was replayed before; if it is stopped, it begins anew the next time.
    #[arg(long)]
    again: bool,

    /// Who replays, as records and marks say it; the user's name when left out.
    #[arg(long, value_name = "NAME")]
    by: Option<String>,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    filter: FilterArgs,
}

impl ReplayArgs {
    /// Refuses what means nothing.
    pub(super) fn check(&self) -> Result<(), Usage> {
        if self.topics.is_empty() && self.from_file.is_none() {
            let text = "name dead-letter topics, --group or --from-file; see what there is with: evenkeel dlq list";
            return Err(Usage(text.to_owned()));
        }
        Ok(())
    }
}

/// Shows the plan, and carries it out if asked to.
pub(super) async fn run(
    args: ReplayArgs,
    cluster: Cluster,
    admin: &Admin,
    stop: Stop,
) -> anyhow::Result<Ending> {
    let mut source = match args.from_file {
        Some(file) => Source::file(file).await?,
        None => Source::topics(args.topics.resolve(admin).await?),
    };
    let names = admin.topics().await?;
    let choice = Choice {
        filter: Filter::new(args.filter, &args.topics),
        target: args.to,
        again: args.again,
        partitions: admin.partition_counts(&names).await?,
    };
    let mut memories = leftovers::memories(&cluster, admin, &source, args.execute).await?;
    if !choice.again {
        go_on(&mut source, &memories);
    }
    let plan = Plan::make(&cluster, source, choice, &mut memories, &stop).await?;
    let Some(mut plan) = plan else {
        return Ok(Ending::Stopped(stop.requested().unwrap_or_default()));
    };
    let limit = args.limit.unwrap_or(u64::MAX);
    if args.execute {
        plan.check()?;
        let mut kafka = cluster.kafka.clone();
        // Brokers refuse a batch whole: a letter that is too large must not take its neighbours with it.
        kafka.set("batch.num.messages=1")?;
        // What came from the topic has room there, whatever this client's own limit is.
        kafka.set("message.max.bytes=1000000000")?;
        let settings = PublisherSettings::new("/evenkeel/cli");
        let publisher = Publisher::new(&kafka, settings.clone())?;
        let notes = Publisher::new(&cluster.kafka, settings)?;
        let by = args.by.unwrap_or_else(user::name);
        let total = plan.letters().min(limit);
        let mut sender =
            Sender::new(publisher, &by, stop, cluster.clone(), total).limited(args.rate, limit);
        let ending = carry_out(&cluster, admin, &mut plan, memories, &notes, &mut sender).await;
        sender.summarise();
        Listing::print(args.output.output, plan.rows(true))?;
        return ending;
    }
    Listing::print(args.output.output, plan.rows(false))?;
    plan.check()?;
    anstream::eprintln!(
        "evenkeel: {} of {} letters would be replayed; nothing was changed, --execute does it",
        plan.letters().min(limit),
        plan.all()
    );
    Ok(Ending::Done)
}

/// Replays topic after topic, each with a journal of its own.
async fn carry_out(
    cluster: &Cluster,
    admin: &Admin,
    plan: &mut Plan,
    memories: leftovers::Memories,
    notes: &Publisher,
    sender: &mut Sender,
) -> anyhow::Result<Ending> {
    let choice = Arc::clone(&plan.choice);
    for (topic, memory) in memories {
        let Some(batch) = plan.batches.get_mut(&topic) else {
            continue;
        };
        if (batch.letters() == 0 && !memory.unfinished) || sender.is_over() {
            continue;
        }
        let journal = Journal::begin(cluster, admin, notes, batch, &memory, &sender.by).await?;
        let letters = batch.read(cluster, sender.stop.clone());
        let sent = sender
            .all(letters, &choice, &memory.replays, &journal, batch)
            .await;
        let clean = sent.as_ref().is_ok_and(|clean| *clean);
        let stopped = sender.stop.requested().is_some();
        journal.end(clean, stopped).await?;
        sent?;
    }
    Ok(sender.ending())
}

/// Goes on with runs that were killed, to their ends and not beyond.
fn go_on(source: &mut Source, memories: &leftovers::Memories) {
    for (topic, memory) in memories
        .iter()
        .filter(|(_, memory)| !memory.until.is_empty())
    {
        if let Some(letters) = source.by_topic.get_mut(topic) {
            anstream::eprintln!(
                "evenkeel: a replay of {topic} did not come to its end: this goes on with it, and leaves letters that were written \
                 since it began to the next replay"
            );
            letters.end_at(&memory.until);
        }
    }
}
