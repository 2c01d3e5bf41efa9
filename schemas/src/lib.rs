//! The shop's events: their Rust types, their JSON Schema documents, and the topics they travel on.
//!
//! Owns what the shop's services say to one another, and nothing of how they say it. Every service depends on this crate
//! and none depends on another service.
//!
//! - [`orders`], [`stock`], [`payments`], [`shipments`]: one module per part of the shop, with its events
//! - [`catalogue`]: the schemas of all events (`events/*.schema.json`), compiled
//! - [`topics`]: the declaration of every topic (`topics/*.json`): partitions, retention, who writes, who reads
//!
//! # Compatibility
//! The schemas are open: a payload may carry members that its schema does not name, and readers leave them alone.
//! Producers and consumers are deployed at different times. With closed schemas, the first producer that adds an optional
//! member would send its events to the dead-letter topics of every consumer that still has the old schema. The price is
//! that a misspelt optional member passes; required members, types and bounds are still checked, and services publish
//! through the Rust types, which write no undeclared member. So a version may gain optional members, and nothing else;
//! whatever changes the meaning of a member, or removes or requires one, is a new version with a type of its own.
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

/// Says what an event is called, which topic it travels on, and which member is both its key and its subject.
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
pub use orders::{OrderCancelled, OrderLine, OrderPlaced};
pub use payments::{PaymentAuthorized, PaymentDeclined};
pub use shipments::ShipmentDispatched;
pub use stock::{ReservedLine, StockReceived, StockRejected, StockReleased, StockReserved};
pub use topics::{TopicDeclaration, topics};
