//! `evenkeel dlq export`: complete dead letters as JSON lines, to be edited and replayed.
//!
//! A line has everything that `dlq replay --from-file` needs: `record_json` writes it and reads it
//! back byte for byte. A dead letter that is a reference is exported with the content of its
//! original.

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

/// Write dead letters to standard output as JSON lines, to be edited and replayed.
///
/// The fields are those of consume --output jsonl (topic, partition, offset, tstype, ts, headers,
/// key, payload, ce), and failure, which is read from the headers. Bytes that are not text are in
/// key_hex and payload_hex, and in headers as {"hex": "00ff"}. Changes nothing.
///
/// A dead letter that was too large for its topic refers to the record that failed, and is exported
/// with the content of that record; so is a dead letter of a share group, which lacks at least the
/// headers. A dead letter whose record is gone is named on standard error and left out.
///
/// To replay edited dead letters, change key, payload and headers, and run: evenkeel dlq replay
/// --from-file FILE
///
/// Exit codes: 0 all were written; 1 the record of a dead letter is gone.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    topics: TopicArgs,

    /// Stop after this many dead letters [default: all].
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<u64>,

    #[command(flatten)]
    filter: FilterArgs,
}

/// Writes the dead letters, on a blocking thread.
///
/// Ends early if the reader of standard output leaves; that is no error.
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
            anyhow::Ok(written < limit && !out.is_closed())
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
