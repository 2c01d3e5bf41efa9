//! `decode`: CloudEvents with a JSON payload, handled as a struct.
//!
//! `raw` is one thread that parses the same headers into strings, the time into a timestamp, and
//! the payload into the same struct. `validated` is evenkeel with schema validation, to show its
//! cost.

use crate::measure::result_check::ResultCheck;
use crate::measure::run::{evenkeel, rate, raw_loop};
use crate::order_event::OrderEvent;
use crate::spec::{Aim, Bound, Contestant, Data, Figure, Form, Plan, Spec, Turn};
use anyhow::Context;
use evenkeel::event::Event;
use evenkeel::handler::{Outcome, Router};
use rdkafka::message::{BorrowedHeaders, Headers, Message};
use std::hint::black_box;
use std::sync::Arc;

pub(crate) fn plan() -> Plan {
    let contestant = |name| Contestant {
        name,
        data: Some(Data {
            form: Form::Event,
            ..super::consume::DATA
        }),
    };
    Plan {
        title: "reads CloudEvents and handles their payload as a struct".to_owned(),
        unit: "messages/s",
        contestants: ["raw", "evenkeel", "validated"].map(contestant).into(),
        aims: vec![
            Aim::new("evenkeel", Figure::RatioTo("raw"), Bound::AtLeast(1.4)),
            Aim::new("evenkeel", Figure::UsPerMessage, Bound::AtMost(2.0)),
            Aim::new(
                "validated",
                Figure::UsMoreThan("evenkeel"),
                Bound::AtMost(3.0),
            ),
        ],
        runs: 5,
    }
}

pub(crate) async fn turn(spec: &Spec) -> anyhow::Result<Turn> {
    let check = Arc::new(ResultCheck::of(&spec.data));
    if spec.contestant == "raw" {
        raw_loop(spec, |record| {
            let headers = record.headers().context("an event has headers")?;
            black_box(Attributes::read(headers)?);
            let sample: OrderEvent = serde_json::from_slice(record.payload().unwrap_or_default())?;
            Ok(check.check_position(sample.key.into(), sample.place))
        })?;
    } else {
        let handler_check = Arc::clone(&check);
        let mut router = Router::new().on(move |event: Event<OrderEvent>| {
            handler_check.check_position(event.data.key.into(), event.data.place);
            black_box(&event.attributes);
            std::future::ready(Outcome::Done)
        });
        if spec.contestant == "validated" {
            router = router.with_catalogue(Arc::new(OrderEvent::catalogue()?));
        }
        evenkeel(spec, router, |_| {}).await?;
    }
    rate(spec.data.records, check.finish()?)
}

/// The headers as parsed by the raw loop.
#[derive(Debug, Default)]
#[allow(
    dead_code,
    reason = "made and thrown away, as a handler would use them"
)]
struct Attributes {
    specversion: String,
    id: String,
    source: String,
    ty: String,
    subject: Option<String>,
    time: Option<jiff::Timestamp>,
    datacontenttype: Option<String>,
}

impl Attributes {
    fn read(headers: &BorrowedHeaders) -> anyhow::Result<Self> {
        let mut read = Self::default();
        for header in headers.iter() {
            let Some(value) = header.value else { continue };
            let value = std::str::from_utf8(value)?;
            match header.key {
                "ce_specversion" => read.specversion = value.to_owned(),
                "ce_id" => read.id = value.to_owned(),
                "ce_source" => read.source = value.to_owned(),
                "ce_type" => read.ty = value.to_owned(),
                "ce_subject" => read.subject = Some(value.to_owned()),
                "ce_time" => read.time = Some(value.parse()?),
                "content-type" => read.datacontenttype = Some(value.to_owned()),
                _ => {}
            }
        }
        Ok(read)
    }
}
