//! `evenkeel consume`: prints the records of topics, without a group.
//!
//! Flags and formats follow kcat, so that its users need not learn new ones: `-o` is a format or a
//! position, `-f` takes kcat's tokens, and JSON lines have kcat's names.
//!
//! - [`position`]: starts and ends; [`filter`]: which records are printed
//!
//! Reading runs on a blocking thread. It checks for a signal every [`POLL_TIMEOUT`], and ends with
//! what it has printed so far. An outage ends a read to the end, and only delays a read that
//! follows the topics.

mod filter;
pub(in crate::commands) mod position;

use crate::arguments::connection::ConnectionArgs;
use crate::output::record_template::Format;
use crate::output::stderr::say;
use crate::record_json;
use clap::builder::{EnumValueParser, PossibleValue, TypedValueParser};
use clap::{Args, ValueEnum};
use evenkeel::kafka::reader::{LogRecord, Reader, Reading, Start};
use evenkeel::kafka::{KafkaConfig, KafkaError};
use evenkeel_program::exit::{Ending, Usage};
use evenkeel_program::stdout::Stdout;
use evenkeel_program::stop::Stop;
use filter::{Filter, Filters};
use position::Position;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::time::Duration;

/// Print the records of topics, without joining a group.
///
/// Commits nothing and disturbs no consumer. Without --until-end or --count it follows the topics
/// until it is stopped. A partition ends at a batch that cannot be read; the other partitions
/// continue.
///
/// Exit codes: 0 all were printed; 1 a batch cannot be read; 130, 143 stopped by a signal.
#[derive(Debug, Args)]
pub(crate) struct ConsumeArgs {
    /// Topics to read.
    #[arg(required_unless_present = "topic", value_name = "TOPIC")]
    topics: Vec<String>,

    /// Topic to read, as in kcat.
    #[arg(short, value_name = "TOPIC")]
    topic: Vec<String>,

    /// Where to start: beginning, end, an offset, -N (N before the end), or a time: @TIME, -1h,
    /// 2026-05-01T12:00:00Z; e@TIME is where to stop [default: beginning].
    ///
    /// TIME is milliseconds since the epoch, a time such as 2026-05-01T12:00:00Z, or an age such as
    /// -1h.
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true)]
    from: Vec<Position>,

    /// Only this partition; may be repeated.
    #[arg(short, long, value_name = "NUMBER")]
    partition: Vec<i32>,

    /// Exit at the end that each partition had at the start.
    #[arg(short = 'e', long)]
    until_end: bool,

    /// Exit after printing this many records.
    #[arg(short = 'n', long, visible_short_alias = 'c', value_name = "RECORDS")]
    count: Option<u64>,

    /// Only records that match, for example type=shop.order-*.v1 or key=4711; may be repeated.
    ///
    /// FIELD is type, source, id, subject or key; in PATTERN, * and ? are wildcards. Patterns of
    /// one field are alternatives; different fields must all match.
    #[arg(long, value_name = "FIELD=PATTERN")]
    filter: Vec<Filter>,

    /// Format of a record in kcat's tokens: %t %p %o %T %h %k %K %s (or %v) %S %R, \n \t \xNN.
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        value_parser = Format::parse,
        conflicts_with = "json"
    )]
    format: Option<Format>,

    /// Output format. Also takes a position, as kcat's -o does; it means the same as --from.
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        allow_hyphen_values = true,
        value_parser = OutputOrPositionParser
    )]
    output: Vec<OutputOrPosition>,

    /// One JSON object per line, as --output jsonl.
    #[arg(short = 'J')]
    json: bool,

    /// Write every record at once, also into a pipe.
    #[arg(short, long)]
    unbuffered: bool,

    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// The output formats of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RecordOutput {
    /// The value and a line end, or as --format defines.
    Text,
    /// One JSON array.
    Json,
    /// One JSON object per line, with kcat's names and `ce`, the CloudEvents attributes.
    Jsonl,
}

/// What follows `-o`: a format, as in every command, or a position, as in kcat. No text is both.
#[derive(Debug, Clone, Copy)]
enum OutputOrPosition {
    /// An output format.
    Format(RecordOutput),
    /// A start or an end.
    From(Position),
}

/// Parses [`OutputOrPosition`], and lists the formats for help and shell completion.
#[derive(Debug, Clone, Copy)]
struct OutputOrPositionParser;

impl TypedValueParser for OutputOrPositionParser {
    type Value = OutputOrPosition;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<OutputOrPosition, clap::Error> {
        let formats = EnumValueParser::<RecordOutput>::new();
        let wrong = match formats.parse_ref(command, argument, value) {
            Ok(format) => return Ok(OutputOrPosition::Format(format)),
            Err(wrong) => wrong,
        };
        match value.to_str().map(str::parse) {
            Some(Ok(position)) => Ok(OutputOrPosition::From(position)),
            Some(Err(reason)) if value == "stored" => {
                let error = clap::Error::raw(clap::error::ErrorKind::ValueValidation, reason);
                Err(error.with_cmd(command))
            }
            _ => Err(wrong),
        }
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let formats = RecordOutput::value_variants().iter();
        Some(Box::new(formats.filter_map(ValueEnum::to_possible_value)))
    }
}

/// How long the reader waits for a record between two checks for a stop.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// Reads on a thread of its own, because reading blocks.
pub(crate) async fn run(args: ConsumeArgs, stop: Stop) -> anyhow::Result<Ending> {
    let plan = ConsumePlan {
        kafka: args.connection.kafka()?,
        timeout: args.connection.timeout(),
        follow: !args.until_end,
        count: args.count.unwrap_or(u64::MAX),
        filters: Filters::new(args.filter.clone()),
        unbuffered: args.unbuffered,
        form: form(&args)?,
        reading: reading(args)?,
    };
    tokio::task::spawn_blocking(move || plan.run(&stop)).await?
}

/// The form of the output. Rejects flags that contradict each other.
fn form(args: &ConsumeArgs) -> Result<RecordForm, Usage> {
    let formats = args.output.iter().filter_map(|given| match given {
        OutputOrPosition::Format(format) => Some(*format),
        OutputOrPosition::From(_) => None,
    });
    let formats: Vec<RecordOutput> = formats.collect();
    let usage = |text: &str| Err(Usage(text.to_owned()));
    match (formats.as_slice(), args.json, &args.format) {
        ([_, _, ..], ..) => usage("--output is given twice"),
        ([_], true, _) => usage("-J is short for --output jsonl: give one of them"),
        ([_], _, Some(_)) => usage("--format is for text: give it or --output"),
        ([RecordOutput::Jsonl], ..) | ([], true, _) => Ok(RecordForm::JsonLines),
        ([RecordOutput::Json], ..) => Ok(RecordForm::JsonArray),
        ([RecordOutput::Text] | [], ..) => {
            let format = args.format.clone();
            Ok(RecordForm::Text(format.unwrap_or_else(Format::value_lines)))
        }
    }
}

/// The part of the topics to read. A position may come from `--from` or, as in kcat, from `-o`.
fn reading(args: ConsumeArgs) -> anyhow::Result<Reading> {
    let mut start = None;
    let mut end = args.until_end.then_some(Start::End);
    let from_output = args.output.iter().filter_map(|given| match given {
        OutputOrPosition::Format(_) => None,
        OutputOrPosition::From(position) => Some(*position),
    });
    for position in args.from.into_iter().chain(from_output) {
        match position {
            Position::Start(at) if start.replace(at).is_none() => {}
            Position::Until(at) if end.is_none() => end = Some(at),
            _ => {
                let text =
                    "at most one start and one end: --from is given twice, or e@ with --until-end";
                return Err(Usage(text.to_owned()).into());
            }
        }
    }
    let mut topics = args.topics;
    topics.extend(args.topic);
    Ok(Reading::whole(topics)
        .with_partitions(args.partition)
        .with_start(start.unwrap_or(Start::Beginning))
        .with_end(end))
}

/// The topics to read and the format.
struct ConsumePlan {
    kafka: KafkaConfig,
    timeout: Duration,
    reading: Reading,
    /// Whether to wait until an outage ends.
    follow: bool,
    /// How many records to print at most.
    count: u64,
    filters: Filters,
    form: RecordForm,
    /// Whether to flush after each record.
    unbuffered: bool,
}

impl ConsumePlan {
    /// Reads and prints until the end, the count or a signal, or until the reader of the output has
    /// closed it.
    fn run(self, stop: &Stop) -> anyhow::Result<Ending> {
        let mut writer = RecordWriter::new(self.form, self.unbuffered);
        let mut reader = Reader::open(&self.kafka, &self.reading, self.timeout)?;
        let (mut written, mut is_whole) = (0, true);
        while written < self.count && !reader.at_end() && !writer.is_closed() {
            if let Some(signal) = stop.requested() {
                writer.finish()?;
                return Ok(Ending::Stopped(signal));
            }
            match reader.next(POLL_TIMEOUT) {
                Ok(Some(record)) => {
                    if self.filters.admit(&record) {
                        writer.write(&record)?;
                        written += 1;
                    }
                }
                Ok(None) => writer.flush()?,
                // The other partitions continue.
                Err(KafkaError::UnreadableBatch(batch)) => {
                    writer.flush()?;
                    say!("{batch}; the rest of this partition is left out");
                    is_whole = false;
                }
                Err(error) if self.follow && is_outage(&error) => {
                    writer.flush()?;
                    say!("{error}; retrying");
                }
                Err(error) => {
                    writer.finish()?;
                    return Err(error.into());
                }
            }
        }
        writer.finish()?;
        match is_whole {
            true => Ok(Ending::Done),
            false => Ok(Ending::SomeFailed),
        }
    }
}

/// Whether the error may pass by itself: no broker can be reached, or TLS fails.
fn is_outage(error: &KafkaError) -> bool {
    matches!(
        error,
        KafkaError::Unreachable { .. } | KafkaError::Tls { .. }
    )
}

/// The form of a record on standard output.
enum RecordForm {
    /// The tokens of a format, by default the value and a line end.
    Text(Format),
    /// One object per line.
    JsonLines,
    /// One array; its brackets are written with the first record and at the end.
    JsonArray,
}

/// Writes records to standard output. A terminal receives each record at once, with control
/// characters escaped; a pipe receives blocks.
struct RecordWriter {
    out: Stdout,
    form: RecordForm,
    /// Whether to flush after each record.
    flush_each: bool,
    /// The number of records so far.
    written: u64,
    /// Buffer of a rendered record, reused.
    scratch: Vec<u8>,
}

impl RecordWriter {
    fn new(form: RecordForm, unbuffered: bool) -> Self {
        let out = Stdout::new();
        Self {
            flush_each: out.is_terminal() || unbuffered,
            out,
            form,
            written: 0,
            scratch: Vec::new(),
        }
    }

    /// Whether the reader has closed the output.
    fn is_closed(&self) -> bool {
        self.out.is_closed()
    }

    /// Prints one record. The text format escapes control characters on a terminal only.
    fn write(&mut self, record: &LogRecord) -> anyhow::Result<()> {
        self.scratch.clear();
        match &self.form {
            RecordForm::Text(format) => {
                format.render(record, self.out.is_terminal(), &mut self.scratch);
                self.out.write_all(&self.scratch)?;
            }
            form @ (RecordForm::JsonLines | RecordForm::JsonArray) => {
                let json = serde_json::to_string(&record_json::of(record, None))?;
                let before: &[u8] = match form {
                    RecordForm::JsonArray if self.written == 0 => b"[\n",
                    RecordForm::JsonArray => b",\n",
                    _ => b"",
                };
                self.out.write_all(before)?;
                self.out.write_json(&json)?;
                if matches!(form, RecordForm::JsonLines) {
                    self.out.write_all(b"\n")?;
                }
            }
        }
        self.written += 1;
        if self.flush_each {
            self.out.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Writes the end of a JSON array, and the buffer. Every way out of a read calls it, so the
    /// output is valid JSON after a signal as well.
    fn finish(&mut self) -> io::Result<()> {
        if matches!(self.form, RecordForm::JsonArray) {
            let end: &[u8] = if self.written == 0 { b"[]\n" } else { b"\n]\n" };
            self.out.write_all(end)?;
        }
        self.out.flush()
    }
}
