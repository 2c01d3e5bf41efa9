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
use evenkeel::recovery::{
    Drill, Entry, Owner, repetition, repetition_answer, repetition_of, retry_topic,
};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Repetitions on their way or not answered for, at most: a group that stands still is not to find a log full of them. With
/// [`FAILED_MAX`] it is less than the 100 failures in a row at which a group's flood guard stops it.
const UNANSWERED_MAX: u64 = 80;
/// Repetitions of which a handler fails, after which the rest is not delivered: each may be a dead letter.
const FAILED_MAX: u64 = 10;
/// Events that cannot be delivered after which the rest is not tried any more.
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
    /// Since when the group owes an answer: when it gave its last one, or was delivered the first that it has not answered for.
    silent_since: Instant,
    has_given_up: bool,
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
            silent_since: now,
            has_given_up: false,
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
            is_read |= self.is_ending();
            let has_room = !is_read && self.has_room();
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
                // Nothing else has happened, an answer neither.
                Event::Due => self.give_up_on_silence(is_read),
            }
        }
    }

    /// What came of it, and the signal that ended it.
    pub(super) fn end(self) -> (Tally, Option<u8>) {
        (self.tally, self.stopped)
    }

    /// Whether nothing more is delivered, whatever there is.
    fn is_ending(&self) -> bool {
        let is_hopeless = self.failures >= FAILURES_MAX || self.tally.failed() >= FAILED_MAX;
        self.stopped.is_some() || self.has_given_up || is_hopeless
    }

    fn has_room(&self) -> bool {
        self.tally.unanswered() + (self.underway.len() as u64) < UNANSWERED_MAX
    }

    /// Whether there is nothing more to wait for once all is sent.
    fn has_ended(&self) -> bool {
        self.stopped.is_some() || self.tally.unanswered() == 0 || self.has_given_up
    }

    /// When the group has been silent for too long.
    fn silent_until(&self) -> Instant {
        match self.tally.unanswered() > 0 && !self.has_given_up {
            true => self.silent_since + self.wait,
            false => Instant::now() + self.wait,
        }
    }

    fn give_up_on_silence(&mut self, is_read: bool) {
        if self.silent_until() > Instant::now() {
            return;
        }
        self.has_given_up = true;
        let rest = if is_read {
            ""
        } else {
            ": the rest is not delivered"
        };
        let text = format!(
            "evenkeel: {} has answered nothing for {:?}{rest}",
            self.group, self.wait
        );
        self.progress.say(&text);
    }

    async fn next(&mut self, source: Option<&mut mpsc::Receiver<anyhow::Result<Found>>>) -> Event {
        let due = self.pace.due();
        let is_due = source.is_some() && due <= Instant::now();
        let wake = match source.is_some() && !is_due {
            true => due.min(self.silent_until()),
            false => self.silent_until(),
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
                if self.tally.unanswered() == 0 {
                    self.silent_since = Instant::now();
                }
                self.tally.delivered();
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
        let owner = Owner {
            group: &self.group,
            topic: source_of(&self.group, &record.topic),
        };
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
            None => match Entry::read(headers(), owner) {
                Entry::Failed { of, .. } => Some((of, Heard::Failed)),
                _ => None,
            },
        };
        let failed = self.tally.failed();
        if let Some((of, heard)) = heard
            && self.tally.heard(&place(of), &heard)
        {
            self.silent_since = Instant::now();
            self.progress.advance();
        }
        if failed < FAILED_MAX && self.tally.failed() == FAILED_MAX {
            self.progress.say(&format!(
                "evenkeel: handlers failed of {FAILED_MAX} repetitions: the rest is not delivered"
            ));
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
