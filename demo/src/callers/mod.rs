//! The callers of the gateways: customers that order over HTTP, and readers of streams.
//!
//! - [`load`]: posts orders, and records what was answered
//! - [`streams`]: reads events, is cut at random, and resumes

mod load;
mod streams;

pub(crate) use load::{HttpLoad, Requests};
pub(crate) use streams::StreamOutcome;

use crate::shop::CUSTOMERS;
use anyhow::Context;
use evenkeel::event::{EventType, new_id};
use evenkeel_gateway::client::Client;
use shop_producers::simulate::content::{Content, Customers, Happening};
use shop_schemas::OrderPlaced;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use streams::{Streams, Wish};

/// Share of events that cancel an earlier order, as `orders simulate` has it by default.
const CANCEL_SHARE: f64 = 0.05;

/// All callers of a run.
pub(crate) struct Callers {
    client: Client,
    content: Content,
    streams: Streams,
}

impl Callers {
    /// Opens the streams at these gateways, from these offsets on: one of all event types, one of
    /// the first order that is placed over HTTP, and one of a single type.
    ///
    /// # Errors
    /// If a topic has no offsets.
    pub(crate) fn start(
        urls: Vec<String>,
        from: &BTreeMap<(String, i32), i64>,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let client = Client::new(urls);
        let content = Content {
            // The Kafka may have the orders of an earlier run with this seed.
            run_id: format!("http-{}", new_id()),
            seed,
            customers: CUSTOMERS,
            cancel_share: CANCEL_SHARE,
        };
        let first = first_order(&content).context("a simulation begins with an order")?;
        let all = || shop_schemas::topics().iter();
        let of_orders = all().filter(|topic| topic.key == "order_id");
        let wishes = vec![
            Wish {
                name: "all types",
                types: all().flat_map(|topic| topic.events.clone()).collect(),
                key: None,
            },
            Wish {
                name: "one key",
                types: of_orders.flat_map(|topic| topic.events.clone()).collect(),
                key: Some(first),
            },
            Wish {
                name: "one type",
                types: vec![OrderPlaced::TYPE.to_owned()],
                key: None,
            },
        ];
        let streams = Streams::start(&client, wishes, from, seed)?;
        Ok(Self {
            client,
            content,
            streams,
        })
    }

    /// Starts to place orders over HTTP, at this rate per second, for this long. Each outcome is a
    /// line of the journal.
    ///
    /// # Errors
    /// If the journal cannot be opened.
    pub(crate) fn place_orders(
        &self,
        rate: u32,
        length: Duration,
        journal: &Path,
    ) -> anyhow::Result<HttpLoad> {
        HttpLoad::start(
            self.client.clone(),
            self.content.clone(),
            rate,
            length,
            journal,
        )
    }

    /// Lets the streams read on to these offsets, and ends them.
    ///
    /// # Errors
    /// If a stream's task panicked.
    pub(crate) async fn finish(
        self,
        to: &BTreeMap<(String, i32), i64>,
    ) -> anyhow::Result<Vec<StreamOutcome>> {
        self.streams.finish(to).await
    }
}

/// The id of the first order of a simulation.
fn first_order(content: &Content) -> Option<String> {
    let mut customers = Customers::new(content.clone());
    match customers.next(jiff::Timestamp::now()) {
        Happening::Placed(order) => Some(order.order_id),
        Happening::Cancelled(_) => None,
    }
}
