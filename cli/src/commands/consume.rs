//! `evenkeel consume`: shows what is on the log, without a group.

mod filter;
pub(super) mod position;

use crate::connection::ConnectionArgs;
use crate::envelope;
use crate::exit::{Ending, Usage};
use crate::format::{Format, without_control};
use crate::stop::Stop;
use clap::{Args, ValueEnum};
use evenkeel::kafka::reader::{LogRecord, Reader, Reading, Start};
use evenkeel::kafka::{KafkaConfig, KafkaError};
use filter::{Filter, Filters};
use position::Position;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::time::Duration;

/// Show the records of topics, without joining a group.
///
/// Nothing is committed and no consumer is disturbed. Without --until-end or --count it follows the topics until it is
/// stopped. A partition ends at a batch that cannot be read, and the others go on: the exit code is 1 then.
#[derive(Debug, Args)]
pub(crate) struct ConsumeArgs {
    /// Topics to read.
    #[arg(required_unless_present = "topic", value_name = "TOPIC")]
    topics: Vec<String>,

    /// A topic to read, as kcat takes it.
    #[arg(short, value_name = "TOPIC")]
    topic: Vec<String>,

    /// Where to start, the beginning when left out: end, an offset, -N (N before the end), @TIME or s@MS; e@MS says where
    /// to stop.
    ///
    /// TIME is milliseconds since the epoch, a time such as 2026-05-01T12:00:00Z, or an age such as -1h.
    #[arg(short = 'o', long, value_name = "POSITION", allow_hyphen_values = true)]
    from: Vec<Position>,

    /// Only these partitions.
    #[arg(short, long, value_name = "NUMBER")]
    partition: Vec<i32>,

    /// Exit at the end that each partition had at the start.
    #[arg(short = 'e', long)]
    until_end: bool,

    /// Exit after this many records have been shown.
    #[arg(short = 'n', long, visible_short_alias = 'c', value_name = "RECORDS")]
    count: Option<u64>,

    /// Show only what matches, for example type=shop.order-*.v1 or key=4711; may be repeated.
    ///
    /// FIELD is type, source, id, subject or key; PATTERN may hold * and ?. Patterns of one field are alternatives,
    /// different fields must all match.
    #[arg(long, value_name = "FIELD=PATTERN")]
    filter: Vec<Filter>,

    /// Format of a record in kcat's tokens: %t %p %o %T %h %k %K %s (or %v) %S %R, \n \t \xNN.
    #[arg(short, long, value_name = "FORMAT", value_parser = Format::parse, conflicts_with_all = ["output", "json"])]
    format: Option<Format>,

    /// How to write records.
    #[arg(long, value_enum, default_value = "text")]
    output: RecordOutput,

    /// One JSON object a line: short for --output jsonl.
    #[arg(short = 'J', conflicts_with = "output")]
    json: bool,

    /// Pass every record on at once, also into a pipe.
    #[arg(short, long)]
    unbuffered: bool,

    #[command(flatten)]
    connection: ConnectionArgs,
}

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RecordOutput {
    /// The value and a line end, or what --format says.
    Text,
    /// One JSON array.
    Json,
    /// One JSON object a line, with kcat's names and `ce`, the CloudEvents attributes.
    Jsonl,
}

/// How long the reader waits for a record before it looks whether it was asked to stop.
const TURN: Duration = Duration::from_millis(100);

/// Reads on a thread of its own, because reading blocks.
pub(crate) async fn run(args: ConsumeArgs, stop: Stop) -> anyhow::Result<Ending> {
    let work = Work {
        kafka: args.connection.kafka()?,
        timeout: args.connection.timeout(),
        follow: !args.until_end,
        count: args.count.unwrap_or(u64::MAX),
        filters: Filters::new(args.filter.clone()),
        unbuffered: args.unbuffered,
        shape: shape(&args),
        reading: reading(args)?,
    };
    tokio::task::spawn_blocking(move || work.run(&stop)).await?
}

fn shape(args: &ConsumeArgs) -> Shape {
    match args.output {
        _ if args.json => Shape::JsonLines,
        RecordOutput::Jsonl => Shape::JsonLines,
        RecordOutput::Json => Shape::JsonArray,
        RecordOutput::Text => Shape::Text(args.format.clone().unwrap_or_else(Format::value_lines)),
    }
}

fn reading(args: ConsumeArgs) -> anyhow::Result<Reading> {
    let mut start = None;
    let mut end = args.until_end.then_some(Start::End);
    for position in args.from {
        match position {
            Position::Start(at) if start.replace(at).is_none() => {}
            Position::Until(at) if end.is_none() => end = Some(at),
            _ => {
                let text = "one start and one end at most: --from twice, or e@ with --until-end";
                return Err(Usage(text.to_owned()).into());
            }
        }
    }
    let mut topics = args.topics;
    topics.extend(args.topic);
    Ok(Reading {
        topics,
        partitions: args.partition,
        start: start.unwrap_or(Start::Beginning),
        end,
    })
}

/// What to read and how to show it.
struct Work {
    kafka: KafkaConfig,
    timeout: Duration,
    reading: Reading,
    /// Whether an outage is waited out.
    follow: bool,
    count: u64,
    filters: Filters,
    shape: Shape,
    unbuffered: bool,
}

impl Work {
    fn run(self, stop: &Stop) -> anyhow::Result<Ending> {
        let mut screen = Screen::new(self.shape, self.unbuffered);
        let mut reader = Reader::open(&self.kafka, &self.reading, self.timeout)?;
        let (mut shown, mut is_whole) = (0, true);
        while shown < self.count && !reader.at_end() {
            if let Some(signal) = stop.requested() {
                screen.finish()?;
                return Ok(Ending::Stopped(signal));
            }
            match reader.next(TURN) {
                Ok(Some(record)) => {
                    if self.filters.admit(&record) {
                        screen.show(&record)?;
                        shown += 1;
                    }
                }
                Ok(None) => screen.flush()?,
                // The other partitions go on.
                Err(KafkaError::UnreadableBatch(batch)) => {
                    screen.flush()?;
                    anstream::eprintln!(
                        "evenkeel: {batch}; nothing more of this partition is shown"
                    );
                    is_whole = false;
                }
                Err(error) if self.follow && is_outage(&error) => {
                    screen.flush()?;
                    anstream::eprintln!("evenkeel: {error}; trying again");
                }
                Err(error) => {
                    screen.finish()?;
                    return Err(error.into());
                }
            }
        }
        screen.finish()?;
        match is_whole {
            true => Ok(Ending::Done),
            false => Ok(Ending::SomeFailed),
        }
    }
}

fn is_outage(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Unreachable { .. })
}

/// What a record becomes on standard output.
enum Shape {
    Text(Format),
    JsonLines,
    JsonArray,
}

/// Standard output: a terminal gets each record at once and no control sequences, a pipe gets blocks.
struct Screen {
    out: BufWriter<StdoutLock<'static>>,
    shape: Shape,
    at_once: bool,
    strip: bool,
    shown: u64,
    scratch: Vec<u8>,
}

impl Screen {
    fn new(shape: Shape, unbuffered: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        Self {
            out: BufWriter::with_capacity(64 * 1024, io::stdout().lock()),
            shape,
            at_once: terminal || unbuffered,
            strip: terminal,
            shown: 0,
            scratch: Vec::new(),
        }
    }

    fn show(&mut self, record: &LogRecord) -> anyhow::Result<()> {
        self.scratch.clear();
        match &self.shape {
            Shape::Text(format) => {
                format.render(record, self.strip, &mut self.scratch);
                self.out.write_all(&self.scratch)?;
            }
            shape @ (Shape::JsonLines | Shape::JsonArray) => {
                serde_json::to_writer(&mut self.scratch, &envelope::of(record, None))?;
                let before: &[u8] = match shape {
                    Shape::JsonArray if self.shown == 0 => b"[\n",
                    Shape::JsonArray => b",\n",
                    _ => b"",
                };
                self.out.write_all(before)?;
                if self.strip {
                    self.out.write_all(&without_control(&self.scratch))?;
                } else {
                    self.out.write_all(&self.scratch)?;
                }
                if matches!(shape, Shape::JsonLines) {
                    self.out.write_all(b"\n")?;
                }
            }
        }
        self.shown += 1;
        if self.at_once {
            self.out.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        if matches!(self.shape, Shape::JsonArray) {
            let end: &[u8] = if self.shown == 0 { b"[]\n" } else { b"\n]\n" };
            self.out.write_all(end)?;
        }
        self.out.flush()
    }
}
