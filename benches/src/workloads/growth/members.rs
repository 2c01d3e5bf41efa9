//! Members of one group that share a store: 1, 2, 4 or 8 consumers in one process, each with a
//! client and an inbox of its own, as processes have them. Members of a process that share a SQLite
//! file compete for its lock like processes: the queue of writers belongs to an inbox.
//!
//! The group forms on an empty topic, since a rebalance would be part of the rate. Then the events
//! are written. The measurement begins when the brokers have all of them, and counts the effects
//! from there on: processor time of the writer is not part of it.

use super::point::Point;
use crate::cluster::write;
use crate::measure::run::{rate, wait_for_effects};
use crate::measure::usage::UsageReading;
use crate::order_event::OrderEvent;
use crate::spec::{Data, Spec, Turn};
use crate::workloads::stores::effects;
use crate::workloads::stores::handlers::{CommitMode, Seen};
use crate::workloads::stores::store::{Store, StoreKind};
use anyhow::{Context, bail};
use evenkeel::consumer::{Consumer, ConsumerSettings};
use evenkeel::handler::Router;
use evenkeel::kafka::KafkaConfig;
use evenkeel::kafka::admin::{Admin, GroupDescription};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

pub(super) const POINTS: [Point; 8] = [
    Point::new("members-1-postgres", 1, "1").on(StoreKind::Postgres),
    Point::new("members-2-postgres", 2, "2").on(StoreKind::Postgres),
    Point::new("members-4-postgres", 4, "4").on(StoreKind::Postgres),
    Point::new("members-8-postgres", 8, "8").on(StoreKind::Postgres),
    Point::new("members-1-sqlite", 1, "1").on(StoreKind::Sqlite),
    Point::new("members-2-sqlite", 2, "2").on(StoreKind::Sqlite),
    Point::new("members-4-sqlite", 4, "4").on(StoreKind::Sqlite),
    Point::new("members-8-sqlite", 8, "8").on(StoreKind::Sqlite),
];

/// The events that a turn writes.
pub(super) const DATA: Data = effects::DATA;

/// Time limit for the group to form, and of a request about it.
const WITHIN: Duration = Duration::from_secs(60);
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

pub(super) async fn turn(spec: &Spec, point: &Point) -> anyhow::Result<Turn> {
    let store = Store::create(point.store.context("members share a store")?).await?;
    let (handled, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
    let mut members = Vec::new();
    for _ in 0..point.x {
        let consumer = member(spec, &store, &handled).await?;
        members.push(tokio::spawn(consumer.run(stop.clone())));
    }
    wait_until_assigned(spec, store.group(), members.len()).await?;
    let (kafka, topic, data) = (
        KafkaConfig::new(&spec.brokers),
        spec.topic.clone(),
        spec.data,
    );
    tokio::task::spawn_blocking(move || write(&kafka, &topic, data)).await??;
    let (before, begun) = (handled.load(Ordering::Relaxed), UsageReading::now());
    if before > data.records / 2 {
        bail!("{before} events were handled while they were written: use more --records");
    }
    let last = wait_for_effects(data.records, || {
        effects_so_far(&store, &handled, data.records)
    })
    .await?;
    stop.cancel();
    for member in members {
        member.await??;
    }
    store.check_once(data.records).await?;
    rate(data.records - before, last.since(&begun)?)
}

/// A member of the store's group, which counts what its handler has inserted.
async fn member(
    spec: &Spec,
    store: &Store,
    handled: &Arc<AtomicU64>,
) -> anyhow::Result<Consumer<Router>> {
    let mode = CommitMode::Group;
    let handled = Arc::clone(handled);
    let seen: Seen = Arc::new(move |_: &OrderEvent| {
        handled.fetch_add(1, Ordering::Relaxed);
    });
    let router = store.router(mode, seen).await?;
    let mut settings = ConsumerSettings::new(store.group(), [spec.topic.clone()]);
    settings.concurrency = mode.concurrency();
    Ok(Consumer::new(spec.kafka()?, settings, router)?)
}

/// What handlers have inserted, and at the end what is committed: the store is not asked while it
/// is measured.
async fn effects_so_far(store: &Store, handled: &AtomicU64, events: u64) -> anyhow::Result<u64> {
    match handled.load(Ordering::Relaxed) {
        handled if handled < events => Ok(handled),
        _ => store.effects().await,
    }
}

/// Waits until every member has its share of the topic.
async fn wait_until_assigned(spec: &Spec, group: &str, members: usize) -> anyhow::Result<()> {
    let admin = Admin::connect(&spec.kafka()?, WITHIN).await?;
    let partitions = usize::try_from(spec.data.partitions)?;
    let deadline = Instant::now() + WITHIN;
    loop {
        let described = admin.describe_group(group).await?;
        let has_formed = described.is_some_and(|group| {
            let shares = shares(&group, &spec.topic);
            group.state == "Stable" && are_even(&shares, members, partitions)
        });
        if has_formed {
            return Ok(());
        }
        if Instant::now() > deadline {
            let within = WITHIN.as_secs();
            bail!("{members} members did not share {partitions} partitions within {within} s");
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

/// The number of partitions of each member.
fn shares(group: &GroupDescription, topic: &str) -> Vec<usize> {
    let members = group.members.iter();
    members
        .map(|member| member.assignment.get(topic).map_or(0, Vec::len))
        .collect()
}

/// Whether all partitions are assigned, and no member has two more than another.
fn are_even(shares: &[usize], members: usize, partitions: usize) -> bool {
    let least = partitions / members;
    shares.len() == members
        && shares.iter().sum::<usize>() == partitions
        && shares
            .iter()
            .all(|share| (least..=least + 1).contains(share))
}

#[cfg(test)]
mod tests {
    use super::are_even;

    #[test]
    fn a_group_has_formed_when_all_partitions_are_shared_evenly() {
        assert!(are_even(&[12], 1, 12));
        assert!(are_even(&[2, 2, 2, 2, 1, 1, 1, 1], 8, 12));
        assert!(!are_even(&[12, 0], 2, 12), "a member has none");
        assert!(!are_even(&[6, 5], 2, 12), "a partition is on its way");
        assert!(!are_even(&[6, 6], 3, 12), "a member is missing");
        assert!(!are_even(&[8, 4], 2, 12), "uneven");
    }
}
