//! The shop's events: their Rust types, their JSON Schema documents, and the topics they are
//! published to.
//!
//! Every service depends on this crate, and none depends on another service. The crate defines the
//! events, not how they are published or handled.
//!
//! - [`orders`], [`stock`], [`payments`], [`shipments`]: one module per part of the shop, with its
//!   events
//! - [`catalogue`]: the schemas of all events (`events/*.schema.json`), compiled
//! - [`topics`]: the declaration of every topic (`topics/*.json`): partitions, retention,
//!   producers, consumers
//!
//! # Compatibility
//! The schemas are open: a payload may have fields that its schema does not name, and readers
//! ignore them. Producers and consumers are deployed at different times. With closed schemas, the
//! first producer that adds an optional field would send its events to the dead-letter topics of
//! every consumer that still has the old schema. The price is that a misspelt optional field
//! passes. Required fields, types and bounds are still validated, and services publish through the
//! Rust types, which write no undeclared field.
//!
//! So a version may only gain optional fields. A change that alters the meaning of a field, removes
//! it or requires it is a new version with an event type of its own.
//!
//! # Examples
//! ```
//! use evenkeel::event::EventType;
//! use shop_schemas::OrderCancelled;
//!
//! let catalogue = shop_schemas::catalogue()?;
//! let cancelled = OrderCancelled { order_id: "o-1".into(), reason: "changed my mind".into() };
//! catalogue.validate(OrderCancelled::TYPE, &serde_json::to_value(&cancelled)?)?;
//!
//! let declared = shop_schemas::topics().iter().any(|topic| topic.name == OrderCancelled::TOPIC);
//! assert!(declared);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

/// Defines an event's type and topic, and the field that is both its key and its subject.
macro_rules! event_type {
    ($event:ident: $name:literal on $topic:literal by $member:ident) => {
        impl evenkeel::event::EventType for $event {
            const TYPE: &'static str = $name;
            const TOPIC: &'static str = $topic;

            fn key(&self) -> String {
                self.$member.clone()
            }

            fn subject(&self) -> Option<String> {
                Some(self.key())
            }
        }
    };
}

mod catalogue;
pub mod orders;
pub mod payments;
pub mod shipments;
pub mod stock;
mod topics;

pub use catalogue::catalogue;
pub use orders::{LINES_MAX, OrderCancelled, OrderLine, OrderPlaced};
pub use payments::{PaymentAuthorized, PaymentDeclined};
pub use shipments::ShipmentDispatched;
pub use stock::{ReservedLine, StockReceived, StockRejected, StockReleased, StockReserved};
pub use topics::{TopicDeclaration, topics};
