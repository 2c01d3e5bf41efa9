//! `consume`: reads a whole topic with an empty handler, each turn in a new group.
//!
//! `raw` is a program without a framework: a loop over `BaseConsumer::poll`, tuned like our
//! consumer, without offset tracking, ordering and commits. `evenkeel` has order per key, offset
//! tracking, limits, metrics and commits. Like the raw loop, it does not read headers.

use crate::measure::result_check::ResultCheck;
use crate::measure::run::{evenkeel, rate, raw_loop};
use crate::spec::{Aim, Bound, Contestant, Data, Figure, Form, Plan, Spec, Turn};
use evenkeel::consumer::RecordHeaders;
use evenkeel::event::Record;
use evenkeel::handler::{Outcome, Router};
use rdkafka::message::Message;
use std::sync::Arc;

/// The data, unless the user chooses other sizes.
pub(crate) const DATA: Data = Data {
    records: 1_000_000,
    size: 328,
    partitions: 12,
    keys: 10_000,
    form: Form::Plain,
};

pub(crate) fn plan() -> Plan {
    let contestant = |name| Contestant {
        name,
        data: Some(DATA),
    };
    Plan {
        title: "reads a topic with an empty handler".to_owned(),
        unit: "messages/s",
        contestants: ["raw", "evenkeel"].map(contestant).into(),
        aims: vec![
            Aim::new("evenkeel", Figure::RatioTo("raw"), Bound::AtLeast(1.0)),
            Aim::new("evenkeel", Figure::UsPerMessage, Bound::AtMost(1.2)),
        ],
        runs: 5,
    }
}

pub(crate) async fn turn(spec: &Spec) -> anyhow::Result<Turn> {
    let check = Arc::new(ResultCheck::of(&spec.data));
    if spec.contestant == "raw" {
        raw_loop(spec, |record| {
            Ok(check.check_record(record.key(), record.payload()))
        })?;
    } else {
        let handler_check = Arc::clone(&check);
        let router = Router::new().raw(move |record: Record| {
            handler_check.check_record(record.key(), record.value());
            std::future::ready(Outcome::Done)
        });
        evenkeel(spec, router, |settings| {
            settings.headers = RecordHeaders::Skip;
        })
        .await?;
    }
    rate(spec.data.records, check.finish()?)
}
