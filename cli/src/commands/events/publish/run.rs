//! Sends drafts in order and prints receipts in order, with as many events in flight as the
//! publisher accepts.

use super::draft::Drafter;
use super::payload;
use crate::input_lines::{self, Line};
use crate::output::stderr::say;
use crate::output::{
    AfterDone, Column, Listing, OutputArgs, Row, StdoutListing, id, name, number, or_dash,
};
use evenkeel::event::JsonEvent;
use evenkeel::kafka::{KafkaError, admin::Admin};
use evenkeel::publisher::{PendingReceipt, PublishError, Publisher};
use evenkeel_ops::sending::receipts::ready_or_never;
use evenkeel_program::exit::Ending;
use evenkeel_program::stop::Stop;
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::{HashSet, VecDeque};
use std::io::{self, BufRead};
use std::time::Duration;

/// Maximum number of events that wait for their receipt.
const PENDING_MAX: usize = 10_000;

/// The input.
pub(super) enum Source {
    /// One payload.
    Payload(Box<RawValue>),
    /// Lines.
    Lines(Box<dyn BufRead + Send>),
}

/// A published event as it is listed.
#[derive(Serialize)]
struct Published {
    /// The number of its line. Absent for an event from the command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    /// Type of the event.
    #[serde(rename = "type")]
    ty: String,
    /// Source of the event.
    source: String,
    /// Id of the event. With the source, it identifies the event.
    id: String,
    /// Topic of its record.
    topic: String,
    /// Partition of its record.
    partition: i32,
    /// Offset of its record.
    offset: i64,
    /// Key of its record, as text.
    key: Option<String>,
}

impl Row for Published {
    const COLUMNS: &'static [Column] = &[
        number("line"),
        name("type"),
        id("id"),
        name("topic"),
        number("partition"),
        number("offset"),
        id("key"),
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![vec![
            or_dash(self.line),
            self.ty.clone(),
            self.id.clone(),
            self.topic.clone(),
            self.partition.to_string(),
            self.offset.to_string(),
            or_dash(self.key.as_deref()),
        ]]
    }
}

/// An event in flight.
struct Pending {
    /// The number of its line, if it has one.
    line: Option<u64>,
    /// The event, for the receipt or the error.
    event: JsonEvent,
    /// Resolves with the brokers' answer.
    receipt: PendingReceipt,
}

/// One run of the command.
pub(super) struct Run {
    publisher: Publisher,
    admin: Admin,
    drafter: Drafter,
    /// Topics that are known to exist.
    topics: HashSet<String>,
    listing: StdoutListing<Published>,
    /// The error that ended the listing of receipts.
    listing_error: Option<io::Error>,
    /// Whether a failed event leaves the input open.
    keep_going: bool,
    /// Events in flight, in the order of sending.
    pending: VecDeque<Pending>,
    /// Number of acknowledged events.
    published: u64,
    /// Number of events that are not on the log.
    failed: u64,
    /// Number of events that may or may not be on the log.
    unknown: u64,
    /// Whether no more input is taken, because it ended or an event failed.
    closed: bool,
}

/// Fails if the topic does not exist. The error contains a remedy.
pub(super) async fn require_topic(admin: &Admin, topic: &str) -> anyhow::Result<()> {
    let topic = topic.to_owned();
    let counts = admin.partition_counts(std::slice::from_ref(&topic)).await?;
    let is_declared = || shop_schemas::topics().iter().any(|d| d.name == topic);
    anyhow::ensure!(
        counts.contains_key(&topic) || !is_declared(),
        "the topic {topic} does not exist; create it as declared with: \
         evenkeel topics apply --execute"
    );
    match counts.contains_key(&topic) {
        true => Ok(()),
        false => Err(KafkaError::UnknownTopic { topic }.into()),
    }
}

impl Run {
    pub(super) fn new(
        publisher: Publisher,
        admin: Admin,
        drafter: Drafter,
        output: OutputArgs,
        keep_going: bool,
    ) -> Self {
        Self {
            topics: drafter.topic().map(str::to_owned).into_iter().collect(),
            publisher,
            admin,
            drafter,
            listing: Listing::stdout(output),
            listing_error: None,
            keep_going,
            pending: VecDeque::new(),
            published: 0,
            failed: 0,
            unknown: 0,
            closed: false,
        }
    }

    /// Publishes all events of the source. After a signal it sends nothing more, and waits for
    /// receipts at most for `patience`.
    pub(super) async fn publish_all(
        mut self,
        source: Source,
        stop: Stop,
        patience: Duration,
    ) -> anyhow::Result<Ending> {
        let is_many = matches!(source, Source::Lines(_));
        let signal = match source {
            Source::Payload(input) => {
                self.closed = true;
                self.send(None, input).await;
                self.process(None, &stop).await?
            }
            Source::Lines(input) => self.process(Some(input_lines::read(input)), &stop).await?,
        };
        if signal.is_some() {
            self.await_receipts_for(patience).await;
        }
        let listed = match self.listing_error.take() {
            Some(error) => Err(error),
            None => self.listing.finish_rows(),
        };
        if is_many {
            say!(
                "{}{}",
                self.summary(),
                if signal.is_some() { ", stopped" } else { "" }
            );
        }
        let summary = self.summary();
        listed.after_done(|| summary)?;
        Ok(match signal {
            Some(number) => Ending::Stopped(number),
            None if self.unknown > 0 => Ending::Unknown,
            None if self.failed > 0 => Ending::SomeFailed,
            None => Ending::Done,
        })
    }

    /// The counts, for the last line and for the error if that cannot be written.
    fn summary(&self) -> String {
        let Self {
            published,
            failed,
            unknown,
            ..
        } = self;
        match unknown {
            0 => format!("published {published}, failed {failed}"),
            _ => format!("published {published}, failed {failed}, unknown outcome {unknown}"),
        }
    }

    /// Processes lines and receipts as they arrive, until there are no more, or until a signal
    /// arrives.
    async fn process(
        &mut self,
        mut input: Option<tokio::sync::mpsc::Receiver<std::io::Result<Line>>>,
        stop: &Stop,
    ) -> anyhow::Result<Option<u8>> {
        loop {
            let has_room = !self.closed && self.pending.len() < PENDING_MAX;
            let lines = input.as_mut().filter(|_| has_room);
            let oldest = self.pending.front_mut().map(|oldest| &mut oldest.receipt);
            if lines.is_none() && oldest.is_none() {
                return Ok(None);
            }
            tokio::select! {
                biased;
                number = stop.signalled() => return Ok(Some(number)),
                outcome = ready_or_never(oldest) => self.receive(outcome),
                line = next_or_never(lines) => match line {
                    Some(line) => {
                        let Line { number, content } = line?;
                        match content.and_then(|text| payload::parse(&text)) {
                            Ok(value) => self.send(Some(number), value).await,
                            Err(reason) => self.fail(Some(number), &reason),
                        }
                    }
                    None => self.closed = true,
                },
            }
        }
    }

    /// Drafts and enqueues one event.
    async fn send(&mut self, line: Option<u64>, input: Box<RawValue>) {
        match self.enqueue(input).await {
            Ok((event, receipt)) => self.pending.push_back(Pending {
                line,
                event,
                receipt,
            }),
            Err(reason) => self.fail(line, &reason),
        }
    }

    /// Drafts an event and passes it to the publisher. Waits while its buffer is full.
    async fn enqueue(
        &mut self,
        input: Box<RawValue>,
    ) -> Result<(JsonEvent, PendingReceipt), String> {
        let event = self.drafter.draft(input)?;
        if !self.topics.contains(&event.topic) {
            require_topic(&self.admin, &event.topic)
                .await
                .map_err(|error| error.to_string())?;
            self.topics.insert(event.topic.clone());
        }
        let record = self.drafter.encode(&event)?;
        match self.publisher.enqueue_record(record).await {
            Ok(receipt) => Ok((event, receipt)),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Lists the oldest event's receipt, or prints why there is none.
    fn receive(&mut self, outcome: Result<evenkeel::publisher::Receipt, PublishError>) {
        let Some(Pending { line, event, .. }) = self.pending.pop_front() else {
            return;
        };
        match outcome {
            Ok(receipt) => {
                self.published += 1;
                let listed = Published {
                    line,
                    ty: event.attributes.ty,
                    source: event.attributes.source,
                    id: event.attributes.id,
                    topic: receipt.topic,
                    partition: receipt.partition,
                    offset: receipt.offset,
                    key: event
                        .key
                        .map(|key| String::from_utf8_lossy(&key).into_owned()),
                };
                self.list(&listed);
            }
            Err(error @ PublishError::Unknown { .. }) => {
                self.report_unknown(line, &event, &error.to_string());
            }
            Err(error) => {
                self.closed |= matches!(error, PublishError::Fatal(_));
                self.fail(line, &format!("id {}: {error}", event.attributes.id));
            }
        }
    }

    /// Lists a receipt. If that fails, nothing more is sent, but events in flight are still
    /// awaited.
    fn list(&mut self, published: &Published) {
        if self.listing_error.is_some() {
            return;
        }
        let listed = self.listing.push(published);
        let listed = listed.and_then(|()| match self.pending.is_empty() {
            true => self.listing.flush(),
            false => Ok(()),
        });
        if let Err(error) = listed {
            self.listing_error = Some(error);
            self.closed = true;
        }
    }

    /// Reports an event that may or may not be on the log.
    fn report_unknown(&mut self, line: Option<u64>, event: &JsonEvent, reason: &str) {
        self.unknown += 1;
        self.closed |= !self.keep_going;
        let attributes = &event.attributes;
        let text = format!(
            "id {}: {reason}; to repeat it without a second effect, publish it as a CloudEvent \
             with this id and the source {}",
            attributes.id, attributes.source
        );
        print_reason(line, &text);
    }

    /// Reports an event that is not on the log.
    fn fail(&mut self, line: Option<u64>, reason: &str) {
        self.failed += 1;
        self.closed |= !self.keep_going;
        print_reason(line, reason);
    }

    /// After a signal: lists the receipts that arrive in time, then reports the events that may or
    /// may not be on the log.
    async fn await_receipts_for(&mut self, patience: Duration) {
        let deadline = tokio::time::Instant::now() + patience;
        while let Some(oldest) = self.pending.front_mut() {
            match tokio::time::timeout_at(deadline, &mut oldest.receipt).await {
                Ok(outcome) => self.receive(outcome),
                Err(_) => break,
            }
        }
        for Pending { line, event, .. } in std::mem::take(&mut self.pending) {
            self.report_unknown(line, &event, "stopped before its acknowledgement");
        }
    }
}

/// Prints a reason, with the number of its line if there is one.
fn print_reason(line: Option<u64>, reason: &str) {
    match line {
        Some(number) => say!("line {number}: {reason}"),
        None => say!("{reason}"),
    }
}

/// The next line. Never resolves without an input, so that `select!` can wait for receipts alone.
async fn next_or_never(
    lines: Option<&mut tokio::sync::mpsc::Receiver<std::io::Result<Line>>>,
) -> Option<std::io::Result<Line>> {
    match lines {
        Some(lines) => lines.recv().await,
        None => std::future::pending().await,
    }
}
