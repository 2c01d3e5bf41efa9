//! The content of a simulation: orders and cancellations, determined by a seed. No client and no
//! clock.

use crate::articles::{ARTICLE_COUNT, article};
use crate::orders::line::total_cents;
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shop_schemas::{OrderCancelled, OrderLine, OrderPlaced};

/// Number of latest orders that may still be cancelled.
const CANCELLABLE_MAX: usize = 1000;
/// Maximum quantity of an article in a line.
const QUANTITY_MAX: u32 = 5;
/// Maximum number of lines of an order.
const LINES_MAX: u32 = 3;

/// Parameters of the orders.
#[derive(Debug, Clone, PartialEq)]
pub struct Content {
    /// Name of the run. It is the prefix of order ids.
    pub run_id: String,
    /// The same seed and run id give the same events.
    pub seed: u64,
    /// Number of customers.
    pub customers: u32,
    /// Share of events that cancel an earlier order, from 0 to 1.
    pub cancel_share: f64,
}

/// The next event of a customer.
#[derive(Debug, Clone, PartialEq)]
pub enum Happening {
    /// A customer orders. The order's first event.
    Placed(OrderPlaced),
    /// A customer cancels. The order's second event.
    Cancelled(OrderCancelled),
}

/// Generates events one after the other.
#[derive(Debug)]
pub struct Customers {
    content: Content,
    random: StdRng,
    orders: u64,
    cancellable: Vec<String>,
}

impl Customers {
    /// Customers without orders.
    pub fn new(content: Content) -> Self {
        Self {
            random: StdRng::seed_from_u64(content.seed),
            content,
            orders: 0,
            cancellable: Vec::new(),
        }
    }

    /// The next event. `now` is the time of an order and influences nothing else.
    pub fn next(&mut self, now: Timestamp) -> Happening {
        let cancels = self.random.random_bool(self.content.cancel_share);
        if cancels && !self.cancellable.is_empty() {
            let index = self.random.random_range(0..self.cancellable.len());
            return Happening::Cancelled(OrderCancelled {
                order_id: self.cancellable.swap_remove(index),
                reason: "the customer changed their mind".to_owned(),
            });
        }
        Happening::Placed(self.order(now))
    }

    fn order(&mut self, now: Timestamp) -> OrderPlaced {
        let Content {
            run_id,
            seed,
            customers,
            ..
        } = &self.content;
        let order_id = format!("{run_id}-{seed}-{:07}", self.orders);
        let customer_id = format!("customer-{:04}", self.random.random_range(0..*customers));
        self.orders += 1;
        let lines: Vec<OrderLine> = (0..self.random.random_range(1..=LINES_MAX))
            .map(|_| {
                let article = article(self.random.random_range(0..ARTICLE_COUNT));
                OrderLine {
                    article: article.name,
                    quantity: self.random.random_range(1..=QUANTITY_MAX),
                    price_cents: article.price_cents,
                }
            })
            .collect();
        if self.cancellable.len() == CANCELLABLE_MAX {
            let index = self.random.random_range(0..CANCELLABLE_MAX);
            self.cancellable.swap_remove(index);
        }
        self.cancellable.push(order_id.clone());
        OrderPlaced {
            order_id,
            customer_id,
            total_cents: total_cents(&lines)
                .expect("a few articles at catalogue prices fit by far"),
            lines,
            placed_at: now.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn happenings(seed: u64, run_id: &str) -> Vec<Happening> {
        let mut customers = Customers::new(Content {
            run_id: run_id.to_owned(),
            seed,
            customers: 10,
            cancel_share: 0.1,
        });
        (0..5000)
            .map(|_| customers.next(Timestamp::UNIX_EPOCH))
            .collect()
    }

    #[test]
    fn equal_seed_and_run_give_equal_events_others_differ() {
        assert_eq!(happenings(7, "run"), happenings(7, "run"));
        assert_ne!(happenings(7, "run"), happenings(8, "run"));
        assert_ne!(happenings(7, "run"), happenings(7, "another"));
    }

    #[test]
    fn an_order_is_cancelled_at_most_once_after_being_placed() {
        let mut open = HashSet::new();
        let mut placed = HashSet::new();
        let mut cancelled = 0;
        for happening in happenings(7, "run") {
            match happening {
                Happening::Placed(order) => {
                    assert!(placed.insert(order.order_id.clone()));
                    open.insert(order.order_id);
                }
                Happening::Cancelled(order) => {
                    assert!(open.remove(&order.order_id));
                    cancelled += 1;
                }
            }
        }
        assert!(
            (400..600).contains(&cancelled),
            "{cancelled} of 5000 at a share of 0.1"
        );
    }

    #[test]
    fn every_event_follows_its_schema_and_some_orders_are_dear() {
        let catalogue = shop_schemas::catalogue().expect("compiles");
        let mut dear = 0;
        for happening in happenings(7, "run") {
            let (ty, data) = match &happening {
                Happening::Placed(order) => {
                    dear += u32::from(order.total_cents > 500_000);
                    ("shop.order-placed.v1", serde_json::to_value(order))
                }
                Happening::Cancelled(order) => {
                    ("shop.order-cancelled.v1", serde_json::to_value(order))
                }
            };
            catalogue
                .validate(ty, &data.expect("serialises"))
                .expect("valid");
        }
        assert!((50..500).contains(&dear), "{dear} of about 4500 orders");
    }
}
