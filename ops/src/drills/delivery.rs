//! Delivers repetitions: publishes them in order, at a rate, and reads the log until the group has
//! answered each.
//!
//! Deliveries and their outcomes are read from the retry topics, where a repetition precedes its
//! answer. Receipts only show which events could not be delivered.
//!
//! One loop waits for whatever comes first: a stop, a receipt, an answer, the next event when the
//! rate permits it, or the time at which the group has been silent for too long. Only the readers
//! run on threads of their own, and no state is shared. Answers are processed before new events are
//! delivered, so that the loop never delivers more while there are unread answers.

use super::DrillError;
use super::selection::{Fate, SettledEvent, type_of};
use super::tally::{Repetition, RepetitionAnswer, Tally};
use crate::sending::rate_limit::RateLimit;
use crate::sending::receipts::ready_or_never;
use crate::{Cluster, Observer, blocking};
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::reader::{LogRecord, Reader, Reading, Start};
use evenkeel::publisher::{PendingReceipt, PublishError, Publisher, Receipt};
use evenkeel::recovery::{
    Drill, Owner, RetryTopicEntry, repetition, repetition_answer, repetition_of, retry_topic,
};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Maximum number of repetitions that are in flight or unanswered, so that a group that makes no
/// progress does not find a log full of them. With [`FAILED_MAX`], it is below the 100 consecutive
/// failures at which a group's flood guard stops the group.
const UNANSWERED_MAX: u64 = 80;
/// Number of failed repetitions after which the drill ends. Each may become a dead letter.
const FAILED_MAX: u64 = 10;
/// Number of undeliverable events after which the drill ends.
const FAILURES_MAX: u64 = 100;
/// How long one poll for an answer takes.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// Number of records of retry topics that are read ahead.
const READ_AHEAD_MAX: usize = 1024;

/// New records of retry topics.
pub(super) type Answers = mpsc::Receiver<Result<LogRecord, KafkaError>>;

/// A repetition without a receipt.
struct InFlight {
    /// Source topic and type of the event, for the counts.
    topic: String,
    ty: String,
    /// Position of the event, for messages.
    event: String,
    receipt: PendingReceipt,
}

/// Delivers the events of a drill again.
pub(super) struct Delivery<'a> {
    group: String,
    drill: Drill,
    publisher: Publisher,
    answers: Answers,
    rate: RateLimit,
    /// How long to wait for the next answer.
    wait: Duration,
    stop: CancellationToken,
    is_stopped: bool,
    in_flight: VecDeque<InFlight>,
    failures: u64,
    /// Start of the group's current silence: its last answer, or the first unanswered delivery
    /// after that.
    silent_since: Instant,
    is_ended_by_silence: bool,
    observer: &'a dyn Observer,
    tally: Tally,
}

/// Rate and waiting time of a drill.
///
/// ```
/// use evenkeel_ops::drills::Limits;
/// use std::time::Duration;
///
/// let limits = Limits::default().with_wait(Duration::from_secs(60));
/// assert_eq!(limits.rate, 100);
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Limits {
    /// Bounds the repetitions per second. Default 100. 0 counts as 1. At the bound the drill waits.
    /// It also waits while 80 repetitions are in flight or unanswered, at any rate.
    pub rate: u32,
    /// Bounds the wait for the next answer of the group. Default 30 s. At the bound the drill ends,
    /// with the result [`Unanswered`](super::DrillResult::Unanswered). Choose it longer than the
    /// slowest handler and its retries in place.
    pub wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rate: 100,
            wait: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// Sets [`rate`](Self::rate).
    #[must_use]
    pub fn with_rate(mut self, rate: u32) -> Self {
        self.rate = rate;
        self
    }

    /// Sets [`wait`](Self::wait).
    #[must_use]
    pub fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }
}

/// The next event of the loop.
enum Event {
    Stopped,
    Receipt(Result<Receipt, PublishError>),
    Answer(Option<Result<LogRecord, KafkaError>>),
    Settled(Option<Result<SettledEvent, KafkaError>>),
    /// A deadline has passed.
    Due,
}

impl<'a> Delivery<'a> {
    /// Creates a delivery whose answers come from [`follow_answers`].
    pub(super) fn new(
        group: String,
        answers: Answers,
        drill: Drill,
        publisher: Publisher,
        limits: Limits,
        stop: CancellationToken,
        observer: &'a dyn Observer,
    ) -> Self {
        let now = Instant::now();
        Self {
            group,
            answers,
            drill,
            publisher,
            rate: RateLimit::new(limits.rate, now),
            wait: limits.wait,
            stop,
            is_stopped: false,
            in_flight: VecDeque::new(),
            failures: 0,
            silent_since: now,
            is_ended_by_silence: false,
            observer,
            tally: Tally::default(),
        }
    }

    /// Delivers the found events. Returns when all are answered, the group is silent for too long,
    /// or the drill is stopped. Repetitions in flight have a receipt by then, so that the counts
    /// are those of the log.
    pub(super) async fn deliver_all(
        &mut self,
        mut found: mpsc::Receiver<Result<SettledEvent, KafkaError>>,
    ) -> Result<(), DrillError> {
        let mut is_read = false;
        loop {
            is_read |= self.is_ending();
            let has_room = !is_read && self.has_room();
            if is_read && self.in_flight.is_empty() && self.has_ended() {
                return Ok(());
            }
            let source = has_room.then_some(&mut found);
            match self.next(source).await {
                Event::Stopped => self.is_stopped = true,
                Event::Receipt(outcome) => self.receive(outcome),
                Event::Answer(Some(record)) => self.process(&record?),
                Event::Answer(None) => return Err(DrillError::AnswersEnded),
                Event::Settled(Some(found)) => self.deliver(found?).await,
                Event::Settled(None) => is_read = true,
                // No other event occurred, and no answer arrived.
                Event::Due => self.end_if_silent(is_read),
            }
        }
    }

    /// Returns the counts and whether the drill was stopped.
    pub(super) fn end(self) -> (Tally, bool) {
        (self.tally, self.is_stopped)
    }

    /// Whether no more events are delivered.
    fn is_ending(&self) -> bool {
        let has_too_many_failures =
            self.failures >= FAILURES_MAX || self.tally.failed() >= FAILED_MAX;
        self.is_stopped || self.is_ended_by_silence || has_too_many_failures
    }

    /// Whether another repetition may be delivered.
    fn has_room(&self) -> bool {
        self.tally.unanswered() + (self.in_flight.len() as u64) < UNANSWERED_MAX
    }

    /// Whether there is nothing left to wait for after all events were sent.
    fn has_ended(&self) -> bool {
        self.is_stopped || self.tally.unanswered() == 0 || self.is_ended_by_silence
    }

    /// The time at which the group has been silent for too long.
    fn silent_until(&self) -> Instant {
        match self.tally.unanswered() > 0 && !self.is_ended_by_silence {
            true => self.silent_since + self.wait,
            false => Instant::now() + self.wait,
        }
    }

    /// Ends the delivery if the group has been silent for too long. What is in flight is still
    /// settled.
    fn end_if_silent(&mut self, is_read: bool) {
        if self.silent_until() > Instant::now() {
            return;
        }
        self.is_ended_by_silence = true;
        let rest = if is_read {
            ""
        } else {
            "; the rest is not delivered"
        };
        let text = format!("no answer of {} for {:?}{rest}", self.group, self.wait);
        self.observer.notice(&text);
    }

    /// Waits for the next event of the loop. `source` is absent while there is no room for another
    /// repetition. Earlier branches win: a stop, then what is known about sent repetitions.
    async fn next(
        &mut self,
        source: Option<&mut mpsc::Receiver<Result<SettledEvent, KafkaError>>>,
    ) -> Event {
        let due = self.rate.due();
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
        let is_stopped = self.is_stopped;
        let oldest = self.in_flight.front_mut().map(|oldest| &mut oldest.receipt);
        tokio::select! {
            biased;
            () = self.stop.cancelled(), if !is_stopped => Event::Stopped,
            outcome = ready_or_never(oldest) => Event::Receipt(outcome),
            answer = self.answers.recv() => Event::Answer(answer),
            found = found => Event::Settled(found),
            () = sleep_until(wake.max(Instant::now() + Duration::from_millis(1))) => Event::Due,
        }
    }

    /// Counts a settled event, and delivers it again if it is to be repeated.
    async fn deliver(&mut self, found: SettledEvent) {
        let SettledEvent { record, ty, fate } = found;
        let topic = record.topic.to_string();
        self.tally.count_settled(&topic, &ty, fate);
        if fate != Fate::Repeated {
            return;
        }
        self.rate.record_sent(Instant::now());
        let event = format!("{topic}/{}@{}", record.partition, record.offset);
        let repeated = repetition(&self.group, record, &self.drill);
        match self.publisher.enqueue_record(repeated).await {
            Ok(receipt) => self.in_flight.push_back(InFlight {
                topic,
                ty,
                event,
                receipt,
            }),
            Err(error) => self.fail(&topic, &ty, &event, &error),
        }
    }

    /// Counts the oldest repetition in flight. The group's silence begins with the first one that
    /// is unanswered.
    fn receive(&mut self, outcome: Result<Receipt, PublishError>) {
        let Some(oldest) = self.in_flight.pop_front() else {
            return;
        };
        match outcome {
            Ok(_) => {
                if self.tally.unanswered() == 0 {
                    self.silent_since = Instant::now();
                }
                self.tally.count_delivered();
            }
            Err(error) => self.fail(&oldest.topic, &oldest.ty, &oldest.event, &error),
        }
    }

    fn fail(&mut self, topic: &str, ty: &str, event: &str, error: &PublishError) {
        self.failures += 1;
        self.tally.count_undelivered(topic, ty);
        self.observer
            .notice(&format!("failed to deliver {event} again: {error}"));
        if self.failures == FAILURES_MAX {
            self.observer.notice(&format!(
                "{FAILURES_MAX} events could not be delivered again; the rest is not delivered"
            ));
        }
    }

    /// Processes a record of a retry topic: one of our repetitions, or the group's answer to one.
    /// An answer names the offset of its repetition. It may arrive before the receipt with that
    /// offset, so the offsets of repetitions are taken from the log.
    fn process(&mut self, record: &LogRecord) {
        let position = |offset| (record.topic.to_string(), record.partition, offset);
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
                self.tally
                    .add_repetition(position(record.offset), repetition);
            }
            return;
        }
        let answer = match repetition_answer(headers()) {
            Some((offset, outcome)) => Some((offset, RepetitionAnswer::Settled(outcome))),
            None => match RetryTopicEntry::read(headers(), owner) {
                RetryTopicEntry::Failed { retry_offset, .. } => {
                    Some((retry_offset, RepetitionAnswer::Failed))
                }
                _ => None,
            },
        };
        let failed = self.tally.failed();
        if let Some((offset, answer)) = answer
            && self.tally.record_answer(&position(offset), &answer)
        {
            self.silent_since = Instant::now();
            self.observer.advance();
        }
        if failed < FAILED_MAX && self.tally.failed() == FAILED_MAX {
            self.observer.notice(&format!(
                "handlers failed for {FAILED_MAX} repetitions; the rest is not delivered"
            ));
        }
    }
}

/// The source topic of a group's retry topic.
fn source_of<'a>(group: &str, retry: &'a str) -> &'a str {
    let prefix = retry_topic(group, "");
    retry.strip_prefix(&*prefix).unwrap_or(retry)
}

/// Reads the retry topics from their current ends, on a thread of its own. The thread ends when the
/// receiver is dropped. Returns when the ends are fixed: repetitions that are delivered afterwards
/// are read.
pub(super) async fn follow_answers(
    cluster: &Cluster,
    group: &str,
    topics: &[String],
) -> Result<Answers, KafkaError> {
    let topics = topics.iter().map(|topic| retry_topic(group, topic));
    let reading = Reading::whole(topics).with_start(Start::End).with_end(None);
    let cluster = cluster.clone();
    let open = move || Reader::open(&cluster.kafka, &reading, cluster.timeout);
    let mut reader = blocking::run(open).await?;
    let (sender, receiver) = mpsc::channel(READ_AHEAD_MAX);
    tokio::task::spawn_blocking(move || {
        while !sender.is_closed() {
            match reader.next(POLL_TIMEOUT) {
                Ok(None) => {}
                // The receiver may be gone.
                Ok(Some(record)) => drop(sender.blocking_send(Ok(record))),
                Err(error) => {
                    let _ = sender.blocking_send(Err(error));
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
    fn a_retry_topics_source_is_derived_from_its_group() {
        assert_eq!(source_of("a.b", "retry.a.b.shop.orders"), "shop.orders");
    }
}
