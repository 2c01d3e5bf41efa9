//! Runs an import: reading, sending and settling run concurrently.

use super::format::{Format, Parser};
use super::input::{Input, Opened};
use super::lines::{Content, LINE_BYTES_MAX, Line, read_on_thread};
use super::resume::{Progress, ResumeFile};
use super::row::{Row, event};
use super::settle::{Entry, Settled, Settler};
use super::summary::Summary;
use super::{OnError, Plan};
use crate::connection::Connection;
use crate::output::Print;
use crate::pipeline::{Underway, WINDOW, settle_in_order};
use crate::progress::ProgressDisplay;
use anyhow::Context;
use evenkeel::event::{Event, EventType};
use evenkeel::publisher::{PendingReceipt, PublishError, Publisher};
use evenkeel::telemetry::say;
use evenkeel_program::exit::Ending;
use evenkeel_program::output_format::OutputFormat;
use evenkeel_program::stop::Stop;
use jiff::Timestamp;
use std::marker::PhantomData;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

type Queue = mpsc::Sender<(Entry, Underway<PendingReceipt>)>;

/// Publishes the rows of the plan's input as events from `source`, in order, and writes a summary.
///
/// # Errors
/// If the input cannot be read, no broker answers, or the brokers reject a line. The progress of
/// settled lines is stored for the next run.
pub async fn import<R: Row>(
    plan: Plan,
    connection: &Connection,
    source: &str,
    output: OutputFormat,
) -> anyhow::Result<Ending> {
    let stop = Stop::listen()?;
    let opened = Opened::open(&plan)?;
    let connected = connection.publisher_to_cluster(source, R::Data::TOPIC);
    let (publisher, cluster) = connected.await?;
    let mut input = Input::begin(opened, &plan, R::Data::TYPE, &cluster)?;
    let started = Instant::now();
    let start = input.start;
    let display = ProgressDisplay::start(plan.quiet, input.bytes_to_come);
    if let Some(notice) = &input.notice {
        display.say(notice);
    }
    let halt = stop.token().child_token();
    let (queue, entries) = mpsc::channel(WINDOW);
    let parser = input
        .header
        .take()
        .map(|(header, delimiter)| Parser::with_header::<R>(&header, delimiter))
        .transpose()?;
    let sender = Sender::<R> {
        plan: &plan,
        publisher: &publisher,
        halt: &halt,
        parser: parser.or((plan.format == Format::Jsonl).then_some(Parser::Jsonl)),
        queue,
        row: PhantomData,
    };
    let mut settler = Settler::new(start, plan.on_error, display, input.resume.take());
    let settling = async {
        settle_in_order(
            entries,
            stop.token(),
            plan.drain_timeout,
            |entry, outcome| settler.settle(entry, outcome),
        )
        .await;
        halt.cancel();
    };
    let (sent, ()) = tokio::join!(sender.send(read_on_thread(input.lines)), settling);
    conclude(
        &Run {
            output,
            start,
            started,
            stop,
        },
        sent,
        settler.finish(),
    )
}

/// The state of an import after its last line.
struct Run {
    output: OutputFormat,
    start: Progress,
    started: Instant,
    stop: Stop,
}

/// Saves or removes the progress, writes the summary, and prints how to continue.
fn conclude(run: &Run, sent: anyhow::Result<Sent>, mut settled: Settled) -> anyhow::Result<Ending> {
    let progress = settled.progress;
    let complete =
        matches!(sent, Ok(Sent::Everything { last_line }) if progress.at.line >= last_line);
    if complete {
        let removed = settled.resume.as_ref().map_or(Ok(()), ResumeFile::remove);
        removed.context("the import is complete, but its progress file cannot be removed")?;
    } else if progress.at.line > 0 {
        settled.save().unwrap_or_else(|reason| say(&reason));
    }
    let elapsed = run.started.elapsed();
    let summary = Summary::new(run.start, progress, complete, elapsed);
    let done = || format!("{} events are acknowledged", progress.acknowledged);
    let shown = run.output.one(&summary, done);
    if !complete {
        say(&how_to_go_on(progress.at.line, settled.resume.is_some()));
    }
    // The exit code depends on the import, not on its summary.
    match (verdict(sent, settled), shown) {
        (Err(error), shown) => {
            if let Err(unshown) = shown {
                say(&format!("error: {unshown:#}"));
            }
            Err(error)
        }
        (Ok(_), Err(unshown)) => Err(unshown),
        (Ok(ended), Ok(())) => Ok(match run.stop.requested() {
            Some(signal) if !complete => Ending::Stopped(signal),
            _ => ended,
        }),
    }
}

/// The ending of the import, apart from signals.
fn verdict(sent: anyhow::Result<Sent>, settled: Settled) -> anyhow::Result<Ending> {
    sent?;
    if let Some((number, error)) = settled.failure {
        return Err(error)
            .with_context(|| format!("line {number} (--skip-lines {number} skips it)"));
    }
    Ok(
        match settled.stopped_at_bad_line || settled.progress.bad_lines > 0 {
            true => Ending::SomeFailed,
            false => Ending::Done,
        },
    )
}

fn how_to_go_on(line: u64, can_resume: bool) -> String {
    let next = line + 1;
    match (line, can_resume) {
        (0, _) => "stopped: no line is settled".to_owned(),
        (_, true) => {
            format!(
                "stopped: all lines up to {line} are settled; the same command continues at line \
                 {next}"
            )
        }
        (_, false) => format!(
            "stopped: all lines up to {line} are settled; the same input with --skip-lines {line} \
             continues at line {next}"
        ),
    }
}

/// The progress of the sender.
enum Sent {
    /// It reached the end of the input.
    Everything { last_line: u64 },
    /// It was stopped earlier.
    Part,
}

/// Sends the lines one by one.
struct Sender<'a, R> {
    plan: &'a Plan,
    publisher: &'a Publisher,
    halt: &'a CancellationToken,
    parser: Option<Parser>,
    queue: Queue,
    row: PhantomData<R>,
}

impl<R: Row> Sender<'_, R> {
    /// Sends the lines until they end, until it is told to stop, or until a bad line stops it.
    async fn send(
        mut self,
        mut runs: mpsc::Receiver<std::io::Result<Vec<Line>>>,
    ) -> anyhow::Result<Sent> {
        let mut last_line = 0;
        loop {
            let run = tokio::select! {
                biased;
                () = self.halt.cancelled() => return Ok(Sent::Part),
                run = runs.recv() => run,
            };
            let Some(run) = run else {
                return Ok(Sent::Everything { last_line });
            };
            for line in run.context("reading stopped")? {
                last_line = line.last;
                if self.send_line(line).await?.is_none() {
                    return Ok(Sent::Part);
                }
            }
        }
    }

    /// Sends one line. Returns `None` if no line may follow.
    async fn send_line(&mut self, line: Line) -> anyhow::Result<Option<()>> {
        let (bad, underway) = match self.event(&line)? {
            Ok(None) => (None, Underway::NotSent),
            Err(reason) => (Some(reason), Underway::NotSent),
            Ok(Some(event)) => {
                let enqueued = tokio::select! {
                    biased;
                    () = self.halt.cancelled() => return Ok(None),
                    enqueued = self.publisher.enqueue(&event) => enqueued,
                };
                match enqueued {
                    Ok(receipt) => (None, Underway::Sent(receipt)),
                    Err(PublishError::Invalid(violation)) => {
                        (Some(violation.to_string()), Underway::NotSent)
                    }
                    Err(error) => (None, Underway::Refused(error)),
                }
            }
        };
        let last = matches!(underway, Underway::Refused(_))
            || (bad.is_some() && self.plan.on_error == OnError::Stop);
        let entry = Entry {
            number: line.number,
            end: line.end,
            bad,
        };
        let settling = self.queue.send((entry, underway)).await.is_ok();
        Ok((settling && !last).then_some(()))
    }

    /// The event of a line, `None` for a line without content, or the reason why it is bad. Fails
    /// at a bad header. Also fails if quotes make the extent of a row unknown, because the apparent
    /// next row may be inside of a field.
    fn event(&mut self, line: &Line) -> anyhow::Result<Result<Option<Event<R::Data>>, String>> {
        let content = match &line.content {
            Content::Bytes(content) => content,
            Content::TooLong => {
                return Ok(Err(format!("it is longer than {LINE_BYTES_MAX} bytes")));
            }
            Content::Misquoted(reason) => anyhow::bail!(
                "line {}: {reason}; the end of its row is unknown, so nothing behind it is read: \
                 correct the quotes",
                line.number
            ),
        };
        let Some(parser) = &mut self.parser else {
            let parser = Parser::with_header::<R>(content, line.delimiter);
            self.parser = Some(parser.with_context(|| format!("line {}", line.number))?);
            return Ok(Ok(None));
        };
        let passed_by = self.plan.skip_lines.is_some_and(|count| line.last <= count);
        if passed_by || content.iter().all(u8::is_ascii_whitespace) {
            return Ok(Ok(None));
        }
        let row = parser.row::<R>(content).map_err(|error| error.to_string());
        Ok(row
            .and_then(|row| event(&row, self.publisher.source(), Timestamp::now()))
            .map(Some))
    }
}
