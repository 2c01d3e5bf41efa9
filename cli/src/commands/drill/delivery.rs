//! Repetitions on their way: published in order, at a rate, and followed on the log until the group has answered for them.
//!
//! What was delivered, and what became of it, is read from the retry topics, where repetition and answer stand in this order.
//! Receipts only say what could not be delivered.

use super::report::{Heard, Repetition, Tally};
use super::selection::{Fate, Found, type_of};
use crate::commands::dlq::Cluster;
use crate::pace::Pace;
use crate::progress::Progress;
use crate::receipt::ready_or_never;
use crate::stop::Stop;
use evenkeel::kafka::reader::{LogRecord, Reader, Reading, Start};
use evenkeel::publisher::{PendingReceipt, PublishError, Publisher, Receipt};
use evenkeel::recovery::{Drill, Entry, repetition, repetition_answer, repetition_of, retry_topic};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Repetitions that have no receipt yet, at most.
const UNDERWAY_MAX: usize = 100;
/// Failures after which the rest is not tried any more.
const FAILURES_MAX: u64 = 100;
/// How long one look for an answer takes.
const TURN: Duration = Duration::from_millis(100);
/// Records of retry topics that are read ahead.
const AHEAD_RECORDS: usize = 1024;

/// A repetition without a receipt.
struct Underway {
    topic: String,
    ty: String,
    event: String,
    receipt: PendingReceipt,
}

/// Delivers the events of a drill once more.
pub(super) struct Delivery {
    group: String,
    drill: Drill,
    publisher: Publisher,
    answers: mpsc::Receiver<anyhow::Result<LogRecord>>,
    pace: Pace,
    /// How long it is waited for an answer.
    wait: Duration,
    stop: Stop,
    stopped: Option<u8>,
    underway: VecDeque<Underway>,
    failures: u64,
    /// When something was delivered or answered last.
    heard_at: Instant,
    progress: Progress,
    tally: Tally,
}

/// How fast it goes, and how long it lasts.
pub(super) struct Limits {
    /// Records a second.
    pub(super) rate: u32,
    /// How long it is waited for an answer.
    pub(super) wait: Duration,
    /// Events that there are, at most.
    pub(super) total: u64,
}

/// What happened next.
enum Event {
    Stopped(u8),
    Receipt(Result<Receipt, PublishError>),
    Answer(Option<anyhow::Result<LogRecord>>),
    Found(Option<anyhow::Result<Found>>),
    /// It is time to look again.
    Due,
}

impl Delivery {
    /// Follows the retry topics of `topics` from their present ends on.
    pub(super) async fn begin(
        cluster: &Cluster,
        group: &str,
        topics: &[String],
        drill: Drill,
        publisher: Publisher,
        limits: Limits,
        stop: Stop,
    ) -> anyhow::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            answers: follow(cluster, group, topics).await?,
            group: group.to_owned(),
            drill,
            publisher,
            pace: Pace::new(limits.rate, now),
            wait: limits.wait,
            stop,
            stopped: None,
            underway: VecDeque::new(),
            failures: 0,
            heard_at: now,
            progress: Progress::start(limits.total, "repetitions answered for"),
            tally: Tally::default(),
        })
    }

    /// Delivers what is found, and waits until all of it is answered for, nobody answers any more, or a signal comes.
    pub(super) async fn all(
        &mut self,
        mut found: mpsc::Receiver<anyhow::Result<Found>>,
    ) -> anyhow::Result<()> {
        let mut is_read = false;
        loop {
            is_read |= self.stopped.is_some() || self.failures >= FAILURES_MAX;
            let has_room = !is_read && self.underway.len() < UNDERWAY_MAX;
            if is_read && self.underway.is_empty() && self.has_ended() {
                return Ok(());
            }
            let source = has_room.then_some(&mut found);
            match self.next(source).await {
                Event::Stopped(signal) => self.stopped = Some(signal),
                Event::Receipt(outcome) => self.receive(outcome),
                Event::Answer(Some(record)) => self.hear(&record?),
                Event::Answer(None) => anyhow::bail!("the retry topics are not read any more"),
                Event::Found(Some(found)) => self.deliver(found?).await,
                Event::Found(None) => is_read = true,
                Event::Due => {}
            }
        }
    }

    /// What came of it, and the signal that ended it.
    pub(super) fn end(self) -> (Tally, Option<u8>) {
        (self.tally, self.stopped)
    }

    /// Whether there is nothing more to wait for once all is sent.
    fn has_ended(&self) -> bool {
        self.stopped.is_some() || self.tally.is_answered() || self.heard_at.elapsed() >= self.wait
    }

    async fn next(&mut self, source: Option<&mut mpsc::Receiver<anyhow::Result<Found>>>) -> Event {
        let due = self.pace.due();
        let is_due = source.is_some() && due <= Instant::now();
        let wake = match source.is_some() && !is_due {
            true => due,
            false => self.heard_at + self.wait,
        };
        let found = async {
            match source.filter(|_| is_due) {
                Some(source) => source.recv().await,
                None => std::future::pending().await,
            }
        };
        let is_stopped = self.stopped.is_some();
        let front = self.underway.front_mut().map(|front| &mut front.receipt);
        tokio::select! {
            biased;
            signal = self.stop.signalled(), if !is_stopped => Event::Stopped(signal),
            outcome = ready_or_never(front) => Event::Receipt(outcome),
            answer = self.answers.recv() => Event::Answer(answer),
            found = found => Event::Found(found),
            () = sleep_until(wake.max(Instant::now() + Duration::from_millis(1))) => Event::Due,
        }
    }

    async fn deliver(&mut self, found: Found) {
        let Found { record, ty, fate } = found;
        let topic = record.topic.to_string();
        self.tally.found(&topic, &ty, fate);
        if fate != Fate::Repeated {
            return;
        }
        self.pace.goes(Instant::now());
        let event = format!("{topic}/{}@{}", record.partition, record.offset);
        let repeated = repetition(&self.group, record, &self.drill);
        match self.publisher.enqueue_record(repeated).await {
            Ok(receipt) => self.underway.push_back(Underway {
                topic,
                ty,
                event,
                receipt,
            }),
            Err(error) => self.fail(&topic, &ty, &event, &error),
        }
    }

    fn receive(&mut self, outcome: Result<Receipt, PublishError>) {
        let Some(front) = self.underway.pop_front() else {
            return;
        };
        match outcome {
            Ok(_) => {
                self.tally.delivered();
                self.heard_at = Instant::now();
            }
            Err(error) => self.fail(&front.topic, &front.ty, &front.event, &error),
        }
    }

    fn fail(&mut self, topic: &str, ty: &str, event: &str, error: &PublishError) {
        self.failures += 1;
        self.tally.undelivered(topic, ty);
        self.progress.say(&format!(
            "evenkeel: {event} cannot be delivered again: {error}"
        ));
        if self.failures == FAILURES_MAX {
            self.progress
                .say("evenkeel: so many fail that the rest is not tried");
        }
    }

    /// Takes a record of a retry topic: one of our repetitions, or what the group says of one.
    fn hear(&mut self, record: &LogRecord) {
        let place = |offset| (record.topic.to_string(), record.partition, offset);
        let headers = || record.headers.iter();
        if let Some((drill, origin)) = repetition_of(headers()) {
            if drill == self.drill.id {
                let source = source_of(&self.group, &record.topic);
                let repetition = Repetition {
                    event: format!("{source}/{}@{origin}", record.partition),
                    topic: source.to_owned(),
                    ty: type_of(record),
                };
                self.tally.seen(place(record.offset), repetition);
            }
            return;
        }
        let heard = match repetition_answer(headers()) {
            Some((of, outcome)) => Some((of, Heard::Settled(outcome))),
            None => match Entry::read(headers()) {
                Entry::Failed { of, .. } => Some((of, Heard::Failed)),
                _ => None,
            },
        };
        if let Some((of, heard)) = heard
            && self.tally.heard(&place(of), &heard)
        {
            self.heard_at = Instant::now();
            self.progress.advance();
        }
    }
}

/// The topic that a group's retry topic is of.
fn source_of<'a>(group: &str, retry: &'a str) -> &'a str {
    let prefix = retry_topic(group, "");
    retry.strip_prefix(&*prefix).unwrap_or(retry)
}

/// Reads the retry topics from now on, on a thread of its own. The receiver's end ends it.
async fn follow(
    cluster: &Cluster,
    group: &str,
    topics: &[String],
) -> anyhow::Result<mpsc::Receiver<anyhow::Result<LogRecord>>> {
    let topics = topics.iter().map(|topic| retry_topic(group, topic));
    let reading = Reading {
        topics: topics.collect(),
        partitions: Vec::new(),
        start: Start::End,
        end: None,
    };
    let cluster = cluster.clone();
    let open = move || Reader::open(&cluster.kafka, &reading, cluster.timeout);
    let mut reader = tokio::task::spawn_blocking(open).await??;
    let (sender, receiver) = mpsc::channel(AHEAD_RECORDS);
    tokio::task::spawn_blocking(move || {
        while !sender.is_closed() {
            match reader.next(TURN) {
                Ok(None) => {}
                // Nobody may listen any more.
                Ok(Some(record)) => drop(sender.blocking_send(Ok(record))),
                Err(error) => {
                    let _ = sender.blocking_send(Err(error.into()));
                    return;
                }
            }
        }
    });
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_of_a_retry_topic_is_known_by_its_group() {
        assert_eq!(source_of("a.b", "retry.a.b.shop.orders"), "shop.orders");
    }
}
