//! The orders of a run, and the stock that suffices for all of them. Every order is paid, reserved
//! and dispatched, so each has the same effects.

use super::services::ARTICLES;
use crate::spec::Spec;
use evenkeel::event::Event;
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::testing::unique;
use shop_schemas::{OrderLine, OrderPlaced, StockReceived};
use std::time::Duration;

/// The source of all events of the bench.
const SOURCE: &str = "/bench/shop";
const CUSTOMERS: u64 = 1_000;
/// Units of each article: the most of a delivery. An order takes two units.
const QUANTITY: u32 = 1_000_000;
const PRICE_CENTS: u64 = 1_990;
/// Time limit for the brokers to acknowledge what was enqueued.
const FLUSH_MAX: Duration = Duration::from_secs(60);

/// Places orders by number.
pub(super) struct Orders {
    /// Begins the keys of this run's events.
    run: String,
    publisher: Publisher,
}

impl Orders {
    pub(super) fn new(spec: &Spec) -> anyhow::Result<Self> {
        let settings = PublisherSettings::new(SOURCE);
        Ok(Self {
            run: unique("bench-shop"),
            publisher: Publisher::new(&spec.kafka()?, settings)?,
        })
    }

    /// The name of this run.
    pub(super) fn run(&self) -> &str {
        &self.run
    }

    /// Publishes a delivery of each article.
    pub(super) async fn deliver_stock(&self) -> anyhow::Result<()> {
        for number in 0..ARTICLES {
            let delivery = Event::new(SOURCE, delivery(&self.run, number));
            self.publisher.publish(&delivery).await?;
        }
        Ok(())
    }

    /// Enqueues the order with this number, without waiting for its receipt.
    pub(super) fn place(&self, number: u64) -> impl Future<Output = anyhow::Result<()>> + use<> {
        let order = Event::new(SOURCE, order(&self.run, number));
        let publisher = self.publisher.clone();
        async move {
            // The effects show whether every order arrived.
            let _receipt = publisher.enqueue(&order).await?;
            Ok(())
        }
    }

    /// Waits until all enqueued orders are acknowledged.
    pub(super) async fn flush(&self) -> anyhow::Result<()> {
        Ok(self.publisher.flush(FLUSH_MAX).await?)
    }
}

/// The number of the order of this run with that key.
pub(super) fn number_of(run: &str, key: &[u8]) -> Option<u64> {
    let key = std::str::from_utf8(key).ok()?;
    key.strip_prefix(run)?.strip_prefix('-')?.parse().ok()
}

fn article(run: &str, number: u64) -> String {
    format!("{run}-article-{:03}", number % ARTICLES)
}

fn delivery(run: &str, number: u64) -> StockReceived {
    StockReceived {
        article: article(run, number),
        quantity: QUANTITY,
        delivery_id: format!("{run}-delivery"),
    }
}

fn order(run: &str, number: u64) -> OrderPlaced {
    let line = |number| OrderLine {
        article: article(run, number),
        quantity: 1,
        price_cents: PRICE_CENTS,
    };
    OrderPlaced {
        order_id: format!("{run}-{number:08}"),
        customer_id: format!("customer-{:04}", number % CUSTOMERS),
        // Neighbouring orders share no article.
        lines: vec![line(number * 2), line(number * 2 + 1)],
        total_cents: 2 * PRICE_CENTS,
        placed_at: jiff::Timestamp::now().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel::event::EventType;
    use std::collections::BTreeSet;

    #[test]
    fn events_follow_their_schemas_and_keys_begin_with_the_run() {
        let catalogue = shop_schemas::catalogue().expect("the schemas compile");
        let (order, delivery) = (order("run", 12_345_678), delivery("run", 49));
        assert!(order.key().starts_with("run-") && delivery.key().starts_with("run-"));
        let json = serde_json::to_value(&order).expect("it serialises");
        let checked = catalogue.validate(OrderPlaced::TYPE, &json);
        checked.expect("a valid order");
        let json = serde_json::to_value(&delivery).expect("it serialises");
        let checked = catalogue.validate(StockReceived::TYPE, &json);
        checked.expect("a valid delivery");
    }

    #[test]
    fn orders_take_only_delivered_articles_and_all_of_them() {
        let delivered: BTreeSet<String> =
            (0..ARTICLES).map(|n| delivery("run", n).article).collect();
        let lines = (0..100).flat_map(|number| order("run", number).lines);
        let ordered: BTreeSet<String> = lines.map(|line| line.article).collect();
        assert_eq!(ordered, delivered);
    }

    #[test]
    fn the_number_of_an_order_is_in_its_key() {
        let key = order("run-1", 42).key();
        assert_eq!(number_of("run-1", key.as_bytes()), Some(42));
        assert_eq!(number_of("run-2", key.as_bytes()), None);
        assert_eq!(number_of("run-1", b"run-1-article-007"), None);
    }
}
