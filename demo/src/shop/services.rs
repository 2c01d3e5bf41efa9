//! The shop's services, with the subscriptions that the audit expects of each.
//!
//! This list does not come from the services, because they would omit a forgotten handler. A test
//! compares it with the topics' declarations.

use evenkeel::event::EventType;
use shop_schemas::{
    OrderCancelled, OrderPlaced, PaymentAuthorized, PaymentDeclined, ShipmentDispatched,
    StockReceived, StockRejected, StockReleased, StockReserved,
};

/// The topic and the type of an event that a service must handle.
type Subscription<'a> = (&'a str, &'a str);

/// Services by group name, with their subscriptions.
pub(crate) type Services<'a> = &'a [(&'a str, &'a [Subscription<'a>])];

/// The gateway. It has a store with an outbox, and no group: it handles no event.
pub(crate) const GATEWAY: &str = "gateway";

/// The shop's services, in the order of the report.
pub(crate) const SERVICES: Services<'static> = &[
    (
        "payments",
        &[
            subscription::<OrderPlaced>(),
            subscription::<OrderCancelled>(),
        ],
    ),
    (
        "inventory",
        &[
            subscription::<StockReceived>(),
            subscription::<OrderPlaced>(),
            subscription::<OrderCancelled>(),
            subscription::<PaymentDeclined>(),
        ],
    ),
    (
        "shipping",
        &[
            subscription::<PaymentAuthorized>(),
            subscription::<StockReserved>(),
            subscription::<StockReleased>(),
            subscription::<OrderCancelled>(),
        ],
    ),
    ("notifications", ABOUT_ORDERS),
    ("orderboard", ABOUT_ORDERS),
];

const ABOUT_ORDERS: &[Subscription<'static>] = &[
    subscription::<OrderPlaced>(),
    subscription::<OrderCancelled>(),
    subscription::<StockReserved>(),
    subscription::<StockRejected>(),
    subscription::<StockReleased>(),
    subscription::<PaymentAuthorized>(),
    subscription::<PaymentDeclined>(),
    subscription::<ShipmentDispatched>(),
];

/// Whether a service reads a topic: it has a subscription to it, or it is a retry topic of its
/// group.
pub(crate) fn is_read_by(service: &str, topic: &str) -> bool {
    let rest = topic.strip_prefix("retry.");
    let rest = rest.and_then(|rest| rest.strip_prefix(service));
    let is_retry = rest.is_some_and(|rest| rest.starts_with('.'));
    let own = SERVICES.iter().filter(|(name, _)| *name == service);
    let mut subscriptions = own.flat_map(|(_, subscriptions)| *subscriptions);
    is_retry || subscriptions.any(|(name, _)| *name == topic)
}

/// The retry topics of the services, which their members create when they begin.
pub(crate) fn retry_topics() -> impl Iterator<Item = String> {
    SERVICES.iter().flat_map(|(service, subscriptions)| {
        let topics = subscriptions.iter();
        topics.map(move |(topic, _)| format!("retry.{service}.{topic}"))
    })
}

const fn subscription<T: EventType>() -> Subscription<'static> {
    (T::TOPIC, T::TYPE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_service_reads_its_sources_and_its_own_retry_topics() {
        let orders = OrderPlaced::TOPIC;
        assert!(is_read_by("payments", orders));
        assert!(is_read_by("payments", &format!("retry.payments.{orders}")));
        assert!(!is_read_by(
            "payments",
            &format!("retry.paymentsx.{orders}")
        ));
        assert!(!is_read_by("payments", &format!("dlq.payments.{orders}")));
        assert!(!is_read_by("payments", ShipmentDispatched::TOPIC));
        assert!(!is_read_by("strangers", orders));
        for topic in retry_topics() {
            let readers = SERVICES.iter().filter(|(name, _)| is_read_by(name, &topic));
            assert_eq!(readers.count(), 1, "{topic}");
        }
    }

    #[test]
    fn every_subscription_is_on_a_topic_declaring_type_and_service() {
        for (service, subscriptions) in SERVICES {
            for (topic, ty) in *subscriptions {
                let declaration = shop_schemas::topics()
                    .iter()
                    .find(|declaration| declaration.name == *topic)
                    .unwrap_or_else(|| panic!("{topic} is not declared"));
                let has = |list: &[String], name: &str| list.iter().any(|entry| entry == name);
                assert!(has(&declaration.events, ty), "{ty} on {topic}");
                assert!(has(&declaration.consumers, service), "{service} of {topic}");
            }
        }
    }

    #[test]
    fn every_declared_consumer_has_a_subscription_to_its_topic() {
        let expected: BTreeSet<(&str, &str)> = SERVICES
            .iter()
            .flat_map(|(service, subscriptions)| {
                subscriptions.iter().map(|(topic, _)| (*topic, *service))
            })
            .collect();
        let declared: BTreeSet<(&str, &str)> = shop_schemas::topics()
            .iter()
            .flat_map(|topic| {
                let services = topic.consumers.iter();
                services.map(|service| (topic.name.as_str(), service.as_str()))
            })
            .collect();
        assert_eq!(expected, declared);
    }

    #[test]
    fn every_event_of_the_shop_has_a_subscription() {
        for declaration in shop_schemas::topics() {
            for ty in &declaration.events {
                let subscription = (declaration.name.as_str(), ty.as_str());
                assert!(
                    SERVICES
                        .iter()
                        .any(|(_, subscriptions)| subscriptions.contains(&subscription)),
                    "{ty}"
                );
            }
        }
    }
}
