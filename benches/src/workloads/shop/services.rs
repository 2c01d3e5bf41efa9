//! The shop's services that run, and the effects that an order has in each.

use evenkeel::event::EventType;
use shop_schemas::{
    OrderPlaced, PaymentAuthorized, ShipmentDispatched, StockReceived, StockReserved,
};
use std::collections::BTreeMap;

/// Number of articles, each of which is delivered once.
pub(super) const ARTICLES: u64 = 50;

/// A service.
pub(super) struct Service {
    /// Its name, which is that of its program and of its group.
    pub(super) name: &'static str,
    /// Number of daemons, which share the group and the store.
    pub(super) instances: u32,
    /// The events of an order that it handles. Each has one effect.
    events: &'static [&'static str],
}

/// All events of an order that is paid, reserved and dispatched.
const EVENTS: &[&str] = &[
    OrderPlaced::TYPE,
    PaymentAuthorized::TYPE,
    StockReserved::TYPE,
    ShipmentDispatched::TYPE,
];

/// The services, with as many instances as in the demo.
pub(super) static SERVICES: [Service; 5] = [
    Service {
        name: "payments",
        instances: 2,
        events: &[OrderPlaced::TYPE],
    },
    Service {
        name: "inventory",
        instances: 2,
        events: &[OrderPlaced::TYPE],
    },
    Service {
        name: "shipping",
        instances: 2,
        events: &[PaymentAuthorized::TYPE, StockReserved::TYPE],
    },
    Service {
        name: "notifications",
        instances: 1,
        events: EVENTS,
    },
    Service {
        name: "orderboard",
        instances: 1,
        events: EVENTS,
    },
];

impl Service {
    /// The number of effects in its store by event type, after this many orders.
    pub(super) fn effects(&self, orders: u64) -> BTreeMap<&'static str, u64> {
        let events = self.events.iter().map(|event| (*event, orders));
        let deliveries = (self.name == "inventory").then_some((StockReceived::TYPE, ARTICLES));
        events.chain(deliveries).collect()
    }
}

/// The number of effects of an order in all services.
pub(super) fn effects_of_order() -> u64 {
    let events = SERVICES.iter().map(|service| service.events.len() as u64);
    events.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_of_an_order_is_on_a_topic_that_declares_the_service() {
        for service in &SERVICES {
            for event in service.effects(1).keys() {
                let mut topics = shop_schemas::topics().iter();
                let topic = topics.find(|topic| topic.events.iter().any(|known| known == event));
                let topic = topic.unwrap_or_else(|| panic!("{event} is on no topic"));
                let mut readers = topic.consumers.iter();
                let is_declared = readers.any(|reader| reader == service.name);
                assert!(is_declared, "{} and {}", service.name, topic.name);
            }
        }
        assert_eq!(effects_of_order(), 12);
    }
}
