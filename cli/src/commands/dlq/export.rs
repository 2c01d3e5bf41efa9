//! `evenkeel dlq export`: complete dead letters as JSON lines, to be edited and replayed.

use super::select::{FilterArgs, TopicArgs};
use crate::output::stderr::say;
use crate::record_json;
use clap::Args;
use evenkeel::kafka::admin::Admin;
use evenkeel_ops::Cluster;
use evenkeel_ops::dead_letters::originals::{Restored, restore};
use evenkeel_ops::dead_letters::record::read;
use evenkeel_ops::dead_letters::{DeadLetterRecord, End};
use evenkeel_program::exit::Ending;
use evenkeel_program::stdout::Stdout;
use evenkeel_program::stop::Stop;
use std::io::Write;

/// Write letters to standard output, one JSON object a line, so that they can be edited and
/// replayed.
///
/// The names are those of consume --output jsonl (topic, partition, offset, tstype, ts, headers,
/// key, payload, ce), and failure, which is what the headers say. Bytes that are not text stand in
/// key_hex, payload_hex, and in headers as {"hex": "00ff"}. A letter that was too large for its
/// topic refers to the record that failed, and is written with what that one held, and so is one of
/// a share group, which lacks headers at least; where it is gone, that is said, and the exit code
/// is 1. Change key, payload and headers, and give the file to: evenkeel dlq replay --from-file
/// FILE
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    topics: TopicArgs,

    /// Stop after this many letters.
    #[arg(short = 'n', long, value_name = "LETTERS")]
    limit: Option<u64>,

    #[command(flatten)]
    filter: FilterArgs,
}

/// Writes the dead letters.
pub(super) async fn run(
    args: ExportArgs,
    cluster: Cluster,
    admin: &Admin,
    stop: Stop,
) -> anyhow::Result<Ending> {
    let topics = args.topics.resolve(admin).await?;
    let filter = args.filter.of(&args.topics);
    let token = stop.token().clone();
    let limit = args.limit.unwrap_or(u64::MAX);
    let write = move || {
        let mut out = Stdout::new();
        let (mut written, mut gone) = (0, 0);
        let end = read(&cluster, &topics, &token, |record| {
            let dead_letter = DeadLetterRecord::new(record);
            if written < limit && filter.admits(&dead_letter) {
                let dead_letter = match restore(&cluster, dead_letter, &token)? {
                    Restored::Whole(dead_letter) => dead_letter,
                    Restored::Gone(dead_letter, why) => {
                        say!("{}: {why}", dead_letter.position());
                        gone += 1;
                        return Ok(true);
                    }
                    Restored::Stopped => return Ok(true),
                };
                let object = record_json::of(&dead_letter.record, Some(&dead_letter.failure));
                out.write_json(&serde_json::to_string(&object)?)?;
                out.write_all(b"\n")?;
                written += 1;
            }
            anyhow::Ok(written < limit && !out.has_left())
        })?;
        out.flush()?;
        anyhow::Ok((end, gone))
    };
    Ok(match tokio::task::spawn_blocking(write).await?? {
        (End::Stopped, _) => stop.ending(),
        (End::Whole | End::Enough, 0) => Ending::Done,
        (End::Whole | End::Enough, _) => Ending::SomeFailed,
    })
}
