//! The events that each service must handle, by topic and event type.
//!
//! This list does not come from the services, because they would omit a forgotten handler. A test
//! compares it with the topics' declarations.

use evenkeel::event::EventType;
use shop_schemas::{
    OrderCancelled, OrderPlaced, PaymentAuthorized, PaymentDeclined, ShipmentDispatched,
    StockReceived, StockRejected, StockReleased, StockReserved,
};

/// A topic and an event type.
type Kind<'a> = (&'a str, &'a str);

/// Services by group name, with the events that they must handle.
pub(crate) type Duties<'a> = &'a [(&'a str, &'a [Kind<'a>])];

/// The shop's services, in the order of the report.
pub(crate) const DUTIES: Duties<'static> = &[
    (
        "payments",
        &[kind::<OrderPlaced>(), kind::<OrderCancelled>()],
    ),
    (
        "inventory",
        &[
            kind::<StockReceived>(),
            kind::<OrderPlaced>(),
            kind::<OrderCancelled>(),
            kind::<PaymentDeclined>(),
        ],
    ),
    (
        "shipping",
        &[
            kind::<PaymentAuthorized>(),
            kind::<StockReserved>(),
            kind::<StockReleased>(),
            kind::<OrderCancelled>(),
        ],
    ),
    ("notifications", ABOUT_ORDERS),
    ("orderboard", ABOUT_ORDERS),
];

const ABOUT_ORDERS: &[Kind<'static>] = &[
    kind::<OrderPlaced>(),
    kind::<OrderCancelled>(),
    kind::<StockReserved>(),
    kind::<StockRejected>(),
    kind::<StockReleased>(),
    kind::<PaymentAuthorized>(),
    kind::<PaymentDeclined>(),
    kind::<ShipmentDispatched>(),
];

const fn kind<T: EventType>() -> Kind<'static> {
    (T::TOPIC, T::TYPE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_duty_is_on_a_topic_declaring_type_and_service() {
        for (service, kinds) in DUTIES {
            for (topic, ty) in *kinds {
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
    fn every_declared_consumer_has_a_duty_on_its_topic() {
        let duties: BTreeSet<(&str, &str)> = DUTIES
            .iter()
            .flat_map(|(service, kinds)| kinds.iter().map(|(topic, _)| (*topic, *service)))
            .collect();
        let declared: BTreeSet<(&str, &str)> = shop_schemas::topics()
            .iter()
            .flat_map(|topic| {
                let services = topic.consumers.iter();
                services.map(|service| (topic.name.as_str(), service.as_str()))
            })
            .collect();
        assert_eq!(duties, declared);
    }

    #[test]
    fn every_event_of_the_shop_is_somebodys_duty() {
        for declaration in shop_schemas::topics() {
            for ty in &declaration.events {
                let kind = (declaration.name.as_str(), ty.as_str());
                assert!(
                    DUTIES.iter().any(|(_, kinds)| kinds.contains(&kind)),
                    "{ty}"
                );
            }
        }
    }
}
