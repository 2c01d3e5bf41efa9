//! Sends drafts in order and gives receipts in order, with as many on their way as the publisher takes.

use super::draft::Drafter;
use super::payload;
use crate::exit::Ending;
use crate::lines::{self, Line};
use crate::output::{ForReader, Listing, OutputFormat, Row};
use crate::receipt::ready_or_never;
use crate::stop::Stop;
use evenkeel::event::JsonEvent;
use evenkeel::kafka::{KafkaError, admin::Admin};
use evenkeel::publisher::{PendingReceipt, PublishError, Publisher};
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::{HashSet, VecDeque};
use std::io::{BufRead, BufWriter, StdoutLock};
use std::time::Duration;

/// Events that wait for their receipt at most.
const PENDING_MAX: usize = 10_000;

/// What to publish.
pub(super) enum Source {
    /// One payload.
    One(Box<RawValue>),
    /// Lines.
    Lines(Box<dyn BufRead + Send>),
}

/// What the brokers took, as it is listed.
#[derive(Serialize)]
struct Published {
    /// The line it came from; absent for an event from the command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(rename = "type")]
    ty: String,
    source: String,
    id: String,
    topic: String,
    partition: i32,
    offset: i64,
    key: Option<String>,
}

impl Row for Published {
    const COLUMNS: &'static [&'static str] =
        &["line", "type", "id", "topic", "partition", "offset", "key"];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![vec![
            self.line.map_or("-".to_owned(), |line| line.to_string()),
            self.ty.clone(),
            self.id.clone(),
            self.topic.clone(),
            self.partition.to_string(),
            self.offset.to_string(),
            self.key.clone().unwrap_or_else(|| "-".to_owned()),
        ]]
    }
}

/// An event on its way.
struct Pending {
    line: Option<u64>,
    event: JsonEvent,
    receipt: PendingReceipt,
}

/// One run of the command.
pub(super) struct Run {
    publisher: Publisher,
    admin: Admin,
    drafter: Drafter,
    topics: HashSet<String>,
    listing: Listing<ForReader<BufWriter<StdoutLock<'static>>>, Published>,
    keep_going: bool,
    pending: VecDeque<Pending>,
    published: u64,
    failed: u64,
    /// No more input is taken: it ended, or something failed.
    closed: bool,
}

/// Fails when the topic does not exist, with what to do about it.
pub(super) async fn require_topic(admin: &Admin, topic: &str) -> anyhow::Result<()> {
    let topic = topic.to_owned();
    let counts = admin.partition_counts(std::slice::from_ref(&topic)).await?;
    let is_declared = || shop_schemas::topics().iter().any(|d| d.name == topic);
    anyhow::ensure!(
        counts.contains_key(&topic) || !is_declared(),
        "the topic {topic} does not exist; create it as it is declared with: evenkeel topics apply --execute"
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
        output: OutputFormat,
        keep_going: bool,
    ) -> Self {
        Self {
            topics: drafter.topic().map(str::to_owned).into_iter().collect(),
            publisher,
            admin,
            drafter,
            listing: Listing::stdout(output),
            keep_going,
            pending: VecDeque::new(),
            published: 0,
            failed: 0,
            closed: false,
        }
    }

    /// Publishes all that the source has. After a signal nothing more is sent, and receipts are waited for as long as
    /// `patience`.
    pub(super) async fn all(
        mut self,
        source: Source,
        mut stop: Stop,
        patience: Duration,
    ) -> anyhow::Result<Ending> {
        let signal = match source {
            Source::One(input) => {
                self.closed = true;
                self.send(None, input).await;
                self.settle(None, &mut stop).await?
            }
            Source::Lines(input) => {
                let signal = self.settle(Some(lines::read(input)), &mut stop).await?;
                anstream::eprintln!(
                    "evenkeel: published {}, failed {}{}",
                    self.published,
                    self.failed,
                    if signal.is_some() { ", stopped" } else { "" }
                );
                signal
            }
        };
        if signal.is_some() {
            self.give_up_after(patience).await?;
        }
        self.listing.finish()?;
        Ok(match signal {
            Some(number) => Ending::Stopped(number),
            None if self.failed > 0 => Ending::SomeFailed,
            None => Ending::Done,
        })
    }

    /// Takes lines and receipts as they come, until there is neither, or a signal comes.
    async fn settle(
        &mut self,
        mut input: Option<tokio::sync::mpsc::Receiver<std::io::Result<Line>>>,
        stop: &mut Stop,
    ) -> anyhow::Result<Option<u8>> {
        loop {
            let room = !self.closed && self.pending.len() < PENDING_MAX;
            let lines = input.as_mut().filter(|_| room);
            let front = self.pending.front_mut().map(|front| &mut front.receipt);
            if lines.is_none() && front.is_none() {
                return Ok(None);
            }
            tokio::select! {
                biased;
                number = stop.signalled() => return Ok(Some(number)),
                outcome = ready_or_never(front) => self.receive(outcome)?,
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

    /// Lists the front event's receipt, or says why there is none.
    fn receive(
        &mut self,
        outcome: Result<evenkeel::publisher::Receipt, PublishError>,
    ) -> std::io::Result<()> {
        let Some(Pending { line, event, .. }) = self.pending.pop_front() else {
            return Ok(());
        };
        match outcome {
            Ok(receipt) => {
                self.published += 1;
                self.listing.push(&Published {
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
                })?;
                if self.pending.is_empty() {
                    self.listing.flush()?;
                }
            }
            Err(error) => {
                self.closed |= matches!(error, PublishError::Fatal(_));
                self.fail(line, &format!("id {}: {error}", event.attributes.id));
            }
        }
        Ok(())
    }

    fn fail(&mut self, line: Option<u64>, reason: &str) {
        self.failed += 1;
        self.closed |= !self.keep_going;
        match line {
            Some(number) => anstream::eprintln!("evenkeel: line {number}: {reason}"),
            None => anstream::eprintln!("evenkeel: {reason}"),
        }
    }

    /// After a signal: the receipts that still come in time, and the ids of the events that may be on the log or not.
    async fn give_up_after(&mut self, patience: Duration) -> std::io::Result<()> {
        let deadline = tokio::time::Instant::now() + patience;
        while let Some(front) = self.pending.front_mut() {
            match tokio::time::timeout_at(deadline, &mut front.receipt).await {
                Ok(outcome) => self.receive(outcome)?,
                Err(_) => break,
            }
        }
        for Pending { line, event, .. } in std::mem::take(&mut self.pending) {
            let id = event.attributes.id;
            self.fail(
                line,
                &format!("id {id}: stopped before its acknowledgement"),
            );
        }
        Ok(())
    }
}

async fn next_or_never(
    lines: Option<&mut tokio::sync::mpsc::Receiver<std::io::Result<Line>>>,
) -> Option<std::io::Result<Line>> {
    match lines {
        Some(lines) => lines.recv().await,
        None => std::future::pending().await,
    }
}
