//! `evenkeel dlq export`: letters as lines of JSON, whole, to be edited and replayed.

use super::Cluster;
use super::letters::{End, Letter, read};
use super::originals::{Restored, restore};
use super::select::{Filter, FilterArgs, TopicArgs};
use crate::envelope;
use crate::exit::Ending;
use crate::format::without_control;
use crate::stop::Stop;
use clap::Args;
use evenkeel::kafka::admin::Admin;
use std::io::{self, BufWriter, IsTerminal, Write};

/// Write letters to standard output, one JSON object a line, so that they can be edited and replayed.
///
/// The names are those of consume --output jsonl (topic, partition, offset, tstype, ts, headers, key, payload, ce), and
/// failure, which is what the headers say. Bytes that are not text stand in key_hex, payload_hex, and in headers as
/// {"hex": "00ff"}. A letter that was too large for its topic refers to the record that failed, and is written with what that
/// one held; where it is gone, that is said, and the exit code is 1. Change key, payload and headers, and give the file to: evenkeel dlq replay --from-file FILE
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

/// Writes the letters.
pub(super) async fn run(
    args: ExportArgs,
    cluster: Cluster,
    admin: &Admin,
    stop: Stop,
) -> anyhow::Result<Ending> {
    let topics = args.topics.resolve(admin).await?;
    let filter = Filter::new(args.filter, &args.topics);
    let limit = args.limit.unwrap_or(u64::MAX);
    let write = move || {
        let strip = io::stdout().is_terminal();
        let mut out = BufWriter::new(io::stdout().lock());
        let (mut written, mut gone) = (0, 0);
        let end = read(&cluster, &topics, &stop, |record| {
            let letter = Letter::new(record);
            if written < limit && filter.admits(&letter) {
                let letter = match restore(&cluster, letter, &stop)? {
                    Restored::Whole(letter) => letter,
                    Restored::Gone(letter, why) => {
                        anstream::eprintln!("evenkeel: {}: {why}", letter.position());
                        gone += 1;
                        return Ok(true);
                    }
                    Restored::Stopped(_) => return Ok(true),
                };
                let line =
                    serde_json::to_vec(&envelope::of(&letter.record, Some(&letter.failure)))?;
                let shown = if strip {
                    without_control(&line)
                } else {
                    line.as_slice().into()
                };
                out.write_all(&shown)?;
                out.write_all(b"\n")?;
                written += 1;
            }
            Ok(written < limit)
        })?;
        out.flush()?;
        anyhow::Ok((end, gone))
    };
    Ok(match tokio::task::spawn_blocking(write).await?? {
        (End::Stopped(signal), _) => Ending::Stopped(signal),
        (End::Whole | End::Enough, 0) => Ending::Done,
        (End::Whole | End::Enough, _) => Ending::SomeFailed,
    })
}
