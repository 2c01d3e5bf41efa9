//! Executes commands that are not lasting: retry, drop of a parked record, accepted loss.
//!
//! Each is executed once, by the members that run when it arrives. A member that owns no partition
//! of the command's scope does not acknowledge it.

use crate::consumer::commit::TopicPartition;
use crate::consumer::poll::operator::acknowledgements::retry_detail;
use crate::consumer::poll::operator::parked_records::DropOutcome;
use crate::consumer::poll::rebalance::RebalanceContext;
use crate::consumer::shared::Shared;
use crate::consumer::state::partition::Partition;
use crate::control::{Action, Command, CommandOutcome, Scope};
use std::sync::Arc;

/// Executes a command and acknowledges it.
///
/// Does nothing if this member owns no partition of the command's scope.
pub(super) fn execute(shared: &Shared, member: &RebalanceContext, command: &Command) {
    let scope = command.action.scope();
    let mut partitions = Vec::new();
    for assigned in member.assignments().all() {
        let partition = &assigned.partition;
        if scope.may_affect(&partition.topic, partition.partition) {
            partitions.push(Arc::clone(partition));
        }
    }
    if partitions.is_empty() {
        return;
    }
    let (outcome, detail) = match &command.action {
        Action::RetryNow { .. } => (
            CommandOutcome::Applied,
            retry_now(shared, &partitions, &scope),
        ),
        Action::Drop { .. } => drop_parked(shared, &partitions, command),
        Action::AcceptLoss { .. } => (CommandOutcome::Applied, accept_loss(shared, &partitions)),
        _ => return,
    };
    let partitions = partitions.iter().map(|partition| Scope::Partition {
        topic: partition.topic.to_string(),
        partition: partition.partition,
    });
    let mut partitions: Vec<Scope> = partitions.collect();
    partitions.sort();
    shared
        .control
        .acknowledge(&command.id, partitions, outcome, &detail);
}

/// Retries waiting and parked records at once. Returns the detail of the acknowledgement.
fn retry_now(shared: &Shared, partitions: &[Arc<Partition>], scope: &Scope) -> String {
    let parked = partitions
        .iter()
        .map(|partition| shared.release_parked(partition, scope));
    let parked: usize = parked.sum();
    let in_place = match scope {
        Scope::Key { .. } => 0,
        _ => shared.control.retry_now(scope),
    };
    if *scope == Scope::Group {
        // Records stopped by the flood guard wait as well.
        shared.dead_letters.release_flood();
    }
    let unread = partitions.iter().filter(|partition| {
        let retry = partition.retry.as_ref();
        retry.is_some_and(|retry| !retry.is_open())
    });
    let unread: Vec<TopicPartition> = unread.map(|partition| topic_partition(partition)).collect();
    let paused = partitions.iter().filter(|partition| {
        shared
            .control
            .is_paused(&partition.topic, partition.partition)
    });
    let paused: Vec<TopicPartition> = paused.map(|partition| topic_partition(partition)).collect();
    retry_detail(in_place, parked, &unread, &paused)
}

/// Accepts lost entries. Returns the detail of the acknowledgement.
fn accept_loss(shared: &Shared, partitions: &[Arc<Partition>]) -> String {
    let accepted = partitions
        .iter()
        .map(|partition| shared.accept_loss(partition));
    match accepted.sum() {
        0_u64 => "no entry is lost here".to_owned(),
        lost => format!("the loss of {lost} entries is accepted"),
    }
}

/// Drops the first parked record of a key. Returns the outcome, and the detail of the
/// acknowledgement.
fn drop_parked(
    shared: &Shared,
    partitions: &[Arc<Partition>],
    command: &Command,
) -> (CommandOutcome, String) {
    let Action::Drop {
        scope: Scope::Key { key, .. },
    } = &command.action
    else {
        let detail = "only the first parked record of a key can be dropped";
        return (CommandOutcome::Refused, detail.to_owned());
    };
    let dropped = partitions
        .iter()
        .map(|partition| shared.drop_parked(partition, key, command));
    // In all partitions: a producer may have spread a key over several.
    let dropped: Vec<DropOutcome> = dropped.collect();
    let mut dropped = dropped.into_iter();
    let found = dropped.rfind(|dropped| *dropped != DropOutcome::NotParked);
    let (outcome, detail) = match found {
        Some(DropOutcome::Dropped) => (
            CommandOutcome::Applied,
            "the first parked record of the key goes to the dead-letter topic, and the next one is retried",
        ),
        Some(DropOutcome::HeldForReplay) => (
            CommandOutcome::Refused,
            "the key waits for the replay of its dead letter; release it instead",
        ),
        Some(DropOutcome::NotParked) | None => (
            CommandOutcome::Applied,
            "no record of the key is parked here",
        ),
    };
    (outcome, detail.to_owned())
}

/// The topic and number of a partition.
fn topic_partition(partition: &Partition) -> TopicPartition {
    (Arc::clone(&partition.topic), partition.partition)
}
