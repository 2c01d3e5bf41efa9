//! `effects`: inserts one row for each event, in the same transaction as the inbox row. Every
//! commit waits for the disk.
//!
//! For each store there are three contestants. The first uses one transaction per event, like a
//! service without group commit. The second shares transactions by group commit. The last is a
//! batch handler, which inserts the rows of its events in one statement.

use super::handlers::{CommitMode, Seen};
use super::store::{Store, StoreKind};
use crate::measure::result_check::ResultCheck;
use crate::measure::run::{evenkeel, rate};
use crate::order_event::OrderEvent;
use crate::spec::{Aim, Bound, Contestant, Data, Figure, Form, Plan, Spec, Turn};
use std::sync::Arc;

/// The data of group commit, unless the user chooses other sizes.
pub(crate) const DATA: Data = Data {
    records: 100_000,
    keys: 1_000,
    form: Form::Event,
    ..crate::workloads::throughput::consume::DATA
};

pub(crate) fn plan() -> Plan {
    let contestant = |(name, records)| Contestant {
        name,
        data: Some(Data { records, ..DATA }),
    };
    let contestants = [
        ("sqlite-single", 20_000),
        ("sqlite", DATA.records),
        ("sqlite-batch", 200_000),
        ("postgres-single", 20_000),
        ("postgres", DATA.records),
        ("postgres-batch", 200_000),
    ];
    let aim = |contestant, figure, bound| Aim::new(contestant, figure, Bound::AtLeast(bound));
    Plan {
        title: "one effect an event, inbox on, the disk waited for".to_owned(),
        unit: "events/s",
        contestants: contestants.map(contestant).into(),
        aims: vec![
            aim("sqlite", Figure::RatioTo("sqlite-single"), 5.0),
            aim("sqlite", Figure::Value, 40_000.0),
            aim("sqlite-batch", Figure::Value, 60_000.0),
            aim("postgres", Figure::RatioTo("postgres-single"), 10.0),
            aim("postgres", Figure::Value, 15_000.0),
            aim("postgres-batch", Figure::Value, 60_000.0),
        ],
        runs: 3,
    }
}

pub(crate) async fn turn(spec: &Spec) -> anyhow::Result<Turn> {
    let (store, mode) = match spec.contestant.split_once('-') {
        Some((store, "single")) => (store, CommitMode::Single),
        Some((store, _)) => (store, CommitMode::Batch),
        None => (spec.contestant.as_str(), CommitMode::Group),
    };
    let kind = match store {
        "sqlite" => StoreKind::Sqlite,
        _ => StoreKind::Postgres,
    };
    measure(spec, mode, &Store::create(kind).await?).await
}

/// Handles the topic's events with one member on this store. Each must have one effect, and those
/// of a key must be in order.
pub(crate) async fn measure(spec: &Spec, mode: CommitMode, store: &Store) -> anyhow::Result<Turn> {
    let check = Arc::new(ResultCheck::of(&spec.data));
    let handler_check = Arc::clone(&check);
    let seen: Seen = Arc::new(move |event: &OrderEvent| {
        handler_check.check_position(event.key.into(), event.place);
    });
    let router = store.router(mode, seen).await?;
    evenkeel(spec, router, |settings| {
        store.group().clone_into(&mut settings.group);
        settings.concurrency = mode.concurrency();
    })
    .await?;
    store.check_once(spec.data.records).await?;
    rate(spec.data.records, check.finish()?)
}
