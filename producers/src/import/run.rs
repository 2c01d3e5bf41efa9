//! Runs an import: lines are read, sent and settled side by side.

use super::format::{Format, Parser};
use super::input::Input;
use super::lines::{Content, LINE_BYTES_MAX, Line, read_on_thread};
use super::resume::{Progress, ResumeFile};
use super::row::{Row, event};
use super::settle::{Entry, Settled, Settler};
use super::summary::Summary;
use super::{OnError, Plan};
use crate::connection::Connection;
use crate::display::Display;
use crate::exit::Ended;
use crate::output::Output;
use crate::pipeline::{Underway, WINDOW, settle_in_order};
use crate::stop::Stop;
use anyhow::Context;
use evenkeel::event::{Event, EventType};
use evenkeel::publisher::{PendingReceipt, PublishError, Publisher};
use jiff::Timestamp;
use std::marker::PhantomData;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

type Queue = mpsc::Sender<(Entry, Underway<PendingReceipt>)>;

/// Publishes the rows of the plan's input as events from `source`, in order, and writes a summary.
///
/// # Errors
/// The input cannot be read, no broker answers, or the brokers do not take a line. What was settled before is kept for the
/// next run.
pub async fn import<R: Row>(
    plan: Plan,
    connection: &Connection,
    source: &str,
    output: Output,
) -> anyhow::Result<Ended> {
    let stop = Stop::on_signals()?;
    let mut input = Input::open(&plan, R::Data::TYPE, connection.brokers())?;
    let publisher = connection.publisher(source, R::Data::TOPIC).await?;
    let started = Instant::now();
    let start = input.start;
    let display = Display::start(plan.quiet, input.bytes_to_come);
    if let Some(notice) = &input.notice {
        display.say(notice);
    }
    let halt = stop.token().child_token();
    let (queue, entries) = mpsc::channel(WINDOW);
    let parser = input
        .header
        .take()
        .map(|header| Parser::with_header::<R>(&header))
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

/// What is left to know when the lines are done with.
struct Run {
    output: Output,
    start: Progress,
    started: Instant,
    stop: Stop,
}

/// Keeps or removes the progress, writes the summary, and says how to go on.
fn conclude(run: &Run, sent: anyhow::Result<Sent>, mut settled: Settled) -> anyhow::Result<Ended> {
    let progress = settled.progress;
    let complete = matches!(sent, Ok(Sent::Everything { last_line }) if progress.line >= last_line);
    if complete {
        let removed = settled.resume.as_ref().map_or(Ok(()), ResumeFile::remove);
        removed.context("the import is complete, but its progress file cannot be removed")?;
    } else if progress.line > 0 {
        settled
            .save()
            .unwrap_or_else(|reason| eprintln!("{reason}"));
    }
    let elapsed = run.started.elapsed();
    run.output
        .one(&Summary::new(run.start, progress, complete, elapsed))?;
    if !complete {
        eprintln!("{}", how_to_go_on(progress.line, settled.resume.is_some()));
    }
    sent?;
    if let Some((number, error)) = settled.failure {
        return Err(error)
            .with_context(|| format!("line {number} (--skip-lines {number} leaves it out)"));
    }
    Ok(match run.stop.signal() {
        Some(signal) if !complete => Ended::Interrupted { signal },
        _ if settled.stopped_at_bad_line || progress.bad_lines > 0 => Ended::SomeFailed,
        _ => Ended::Complete,
    })
}

fn how_to_go_on(line: u64, can_resume: bool) -> String {
    let next = line + 1;
    match (line, can_resume) {
        (0, _) => "stopped: no line is settled".to_owned(),
        (_, true) => {
            format!(
                "stopped: all lines up to {line} are settled; the same command goes on at line {next}"
            )
        }
        (_, false) => format!(
            "stopped: all lines up to {line} are settled; the same input with --skip-lines {line} goes on at line {next}"
        ),
    }
}

/// How far the sender got.
enum Sent {
    /// To the end of the input.
    Everything { last_line: u64 },
    /// It was stopped before.
    Part,
}

/// Sends one line after the other.
struct Sender<'a, R> {
    plan: &'a Plan,
    publisher: &'a Publisher,
    halt: &'a CancellationToken,
    parser: Option<Parser>,
    queue: Queue,
    row: PhantomData<R>,
}

impl<R: Row> Sender<'_, R> {
    /// Sends the lines until they end, until it is told to halt, or until a bad line stops it.
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

    /// Sends one line; none where nothing is to be sent after it.
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
            last: line.last,
            end_bytes: line.end_bytes,
            bad,
        };
        let settling = self.queue.send((entry, underway)).await.is_ok();
        Ok((settling && !last).then_some(()))
    }

    /// The event of a line, none for one without content, or why it is bad. Fails at a bad header, and where quotes leave it
    /// unknown which lines are a row: what looks like the next row could be the inside of a field.
    fn event(&mut self, line: &Line) -> anyhow::Result<Result<Option<Event<R::Data>>, String>> {
        let content = match &line.content {
            Content::Bytes(content) => content,
            Content::TooLong => {
                return Ok(Err(format!("it is longer than {LINE_BYTES_MAX} bytes")));
            }
            Content::Misquoted(reason) => anyhow::bail!(
                "line {}: {reason}; where its row ends is unknown, so nothing behind it is read: mend the quotes",
                line.number
            ),
        };
        let Some(parser) = &mut self.parser else {
            let parser = Parser::with_header::<R>(content);
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
