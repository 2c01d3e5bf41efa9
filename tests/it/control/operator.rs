//! Helper: an operator who gives commands to a group through its control topic, and reads the acknowledgements.

use crate::support::{Case, Gate, Log, Place, WITHIN, place};
use evenkeel::control::{
    Action, Command, CommandOutcome, Entry, History, Recorded, Scope, control_topic,
};
use evenkeel::event::{Headers, OutgoingRecord, Record};
use evenkeel::handler::{HandlerError, Router};
use evenkeel::kafka::reader::LogRecord;
use evenkeel::publisher::Publisher;
use evenkeel::testing::eventually;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Logs what it handles.
pub(crate) fn logging(handled: &Log<(Instant, Place)>) -> Router {
    let handled = handled.clone();
    Router::new().raw(move |record: Record| {
        let handled = handled.clone();
        async move { handled.push((Instant::now(), place(&record))) }
    })
}

/// Logs the offset of each record, holds its handler until the gate opens, and then returns the
/// outcome of that offset.
pub(crate) fn held(
    started: &Log<i64>,
    gate: &Gate,
    outcome: fn(i64) -> Result<(), HandlerError>,
) -> Router {
    let (started, gate) = (started.clone(), gate.clone());
    Router::new().raw(move |record: Record| {
        let (started, gate) = (started.clone(), gate.clone());
        async move {
            started.push(record.offset());
            gate.pass().await;
            outcome(record.offset())
        }
    })
}

/// A case with a publisher that stays: one for each command would take longer than the command.
pub(crate) struct Operator {
    case: Case,
    publisher: Publisher,
}

impl std::ops::Deref for Operator {
    type Target = Case;

    fn deref(&self) -> &Case {
        &self.case
    }
}

impl Operator {
    /// On the shared Apache Kafka; none where there is none.
    pub(crate) async fn new(partitions: i32) -> Option<Self> {
        let case = Case::new("it-control", partitions).await?;
        Some(Self::of(case))
    }

    /// For this case.
    pub(crate) fn of(case: Case) -> Self {
        let publisher = case.publisher();
        Self { case, publisher }
    }

    pub(crate) fn partition_scope(&self, partition: i32) -> Scope {
        let topic = self.topic.clone();
        Scope::Partition { topic, partition }
    }

    pub(crate) fn position(&self, partition: i32, offset: i64) -> evenkeel::kafka::RecordPosition {
        let text = format!("{}/{partition}@{offset}", self.topic);
        text.parse().expect("a position")
    }

    /// Gives a command, and returns it with the moment at which it stood on the topic.
    pub(crate) async fn command(&self, action: Action) -> (Command, Instant) {
        let command = Command::new("ada", "a test", action).expect("a command");
        self.write(
            &command.key(),
            Some(command.value().expect("it can be written as JSON")),
        )
        .await;
        (command, Instant::now())
    }

    /// Pauses, and returns when all owners say that it is done.
    pub(crate) async fn pause(&self, scope: Scope) -> Command {
        self.applied(Action::Pause { scope }).await
    }

    /// Resumes, and returns when all owners say that it is done.
    pub(crate) async fn resume(&self, scope: Scope) -> Command {
        self.applied(Action::Resume { scope }).await
    }

    async fn applied(&self, action: Action) -> Command {
        let scope = action.scope();
        let concerned = (0..self.partitions).filter(|number| scope.covers(&self.topic, *number));
        let concerned: Vec<i32> = concerned.collect();
        let (command, _) = self.command(action).await;
        let outcomes = self.acknowledged(&command, &concerned).await;
        assert!(
            outcomes
                .iter()
                .all(|outcome| *outcome == CommandOutcome::Applied),
            "{command:?}: {outcomes:?}"
        );
        command
    }

    /// Writes to the control topic.
    pub(crate) async fn write(&self, key: &str, value: Option<Vec<u8>>) {
        let record = OutgoingRecord {
            topic: control_topic(&self.group),
            partition: None,
            key: Some(key.to_owned().into()),
            value: value.map(Into::into),
            headers: Headers::new(),
            timestamp_ms: None,
        };
        let written = self.publisher.publish_record(record).await;
        written.expect("the brokers acknowledge the record");
    }

    /// All that the control topic remembers.
    pub(crate) async fn history(&self) -> Vec<Recorded> {
        let mut history = History::default();
        for LogRecord { key, value, .. } in self.read(&control_topic(&self.group)).await {
            if let Ok(entry) = Entry::read(key.as_deref(), value.as_deref()) {
                let key = String::from_utf8(key.unwrap_or_default()).expect("the bytes are UTF-8");
                history.apply(&key, entry);
            }
        }
        history.recorded().collect()
    }

    /// Waits until the owners of these partitions have acknowledged the command finally; what each said.
    pub(crate) async fn acknowledged(
        &self,
        command: &Command,
        partitions: &[i32],
    ) -> Vec<CommandOutcome> {
        eventually("the command is acknowledged", WITHIN, || async {
            let history = self.history().await;
            let recorded = history.iter().find(|at| at.command.id == command.id)?;
            let last = |partition: &i32| {
                let scope = self.partition_scope(*partition);
                let mut acks = recorded.acks.iter().rev();
                let ack = acks.find(|ack| ack.partitions.contains(&scope))?;
                assert!(!ack.member.is_empty(), "{ack:?}");
                ack.outcome.is_final().then_some(ack.outcome)
            };
            partitions.iter().map(last).collect()
        })
        .await
    }

    /// The partitions that each acknowledgement of the command is about.
    pub(crate) async fn answers(&self, command: &Command) -> Vec<Vec<Scope>> {
        let history = self.history().await;
        let recorded = history.into_iter().find(|at| at.command.id == command.id);
        let acks = recorded.map(|recorded| recorded.acks).unwrap_or_default();
        acks.into_iter().map(|ack| ack.partitions).collect()
    }

    /// Publishes that many records to each of these partitions, round by round.
    pub(crate) async fn publish_rounds(&self, partitions: &[i32], rounds: std::ops::Range<usize>) {
        let mut pending = Vec::new();
        for round in rounds {
            for partition in partitions {
                let key = format!("p{partition}-{}", round % 7);
                let mut record = self.record(Some(&key), round.to_string());
                record.partition = Some(*partition);
                let enqueued = self.publisher.enqueue_record(record).await;
                pending.push(enqueued.expect("the buffer takes the record"));
            }
        }
        for receipt in pending {
            receipt.await.expect("the brokers acknowledge the record");
        }
    }
}

pub(crate) fn of(handled: &Log<(Instant, Place)>, partition: i32) -> Vec<(Instant, i64)> {
    let all = handled.entries().into_iter();
    let own = all.filter(|(_, (number, _))| *number == partition);
    own.map(|(at, (_, offset))| (at, offset)).collect()
}

/// Publishes rounds until told to stop; how many it published.
pub(crate) fn load(
    case: &Arc<Operator>,
    partitions: i32,
    stop: &Arc<AtomicBool>,
) -> tokio::task::JoinHandle<usize> {
    let (case, stop) = (Arc::clone(case), Arc::clone(stop));
    tokio::spawn(async move {
        let partitions: Vec<i32> = (0..partitions).collect();
        let mut rounds = 0;
        while !stop.load(Ordering::Relaxed) {
            case.publish_rounds(&partitions, rounds..rounds + 5).await;
            rounds += 5;
            // Enough to be busy, and little enough for a test to look at.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        rounds
    })
}

/// Keys come round robin, seven of them: the offsets of each are to be handled in their order.
pub(crate) fn in_order_by_key(offsets: &[i64]) {
    for key in 0..7 {
        let own = offsets.iter().filter(|offset| *offset % 7 == key);
        assert!(own.is_sorted(), "key {key}");
    }
}
