//! The relay: publishes committed events to Kafka, in order per key, and deletes them once the
//! brokers have acknowledged them.
//!
//! Owns one task. `window` and `slot_leases` decide and are pure; `run` calls the store and the
//! publisher accordingly. Several relays on one store share its slots; when a relay is killed, the
//! others take over its slots as its leases expire.

mod blocked_keys;
mod report;
mod run;
mod service;
mod settings;
mod slot_leases;
mod telemetry;
mod window;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use report::RelayReport;
pub use service::Relay;
pub use settings::RelaySettings;
