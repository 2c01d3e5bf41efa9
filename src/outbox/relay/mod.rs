//! The relay: publishes committed events to Kafka, in order per key, and deletes them once the
//! brokers have acknowledged them.
//!
//! Owns one task. `in_flight_rows` and `slot_leases` decide and are pure; `run` calls the store and
//! the publisher accordingly. Several relays on one store share its slots; when a relay is killed,
//! the others take over its slots as its leases expire.
//!
//! # The loop
//! One round: hand ready rows to the publisher, call the store for all pending work (renew, delete,
//! mark, release, read, measure), hand what became ready to the publisher, then wait for the first
//! of: a stop, an acknowledgement, a commit, a time. All results are collected between two rounds,
//! so the store sees few and large calls, and rows are acknowledged while it is called.
//!
//! # Invariants
//! - At most one row of a key is being sent (`in_flight_rows`).
//! - A row is sent only while its slot's lease holds by this process's clock (`slot_leases`).
//! - A row is deleted only after its acknowledgement, and by number and event id.
//! - A key is read again only after the store has deleted its published rows.
//! - A slot is released only after the results of its rows were recorded, also at the end and at a
//!   hand-over: its next relay does not repeat them.
//! - A relay that hands over leaves another one registered, which the store decides in one step.
//! - A relay deregisters at the start of its end. One that has drained looks for rows once more
//!   after it, so what was left to it meanwhile is published. One that ends without a drain may
//!   count until then, and rows that are left to it wait for the next start.
//!
//! # Cancellation
//! Dropping the task loses nothing: all decisions are derived from the table. Sends on their way
//! may still land; they are repetitions or the next row of their key.
//!
//! # Files
//! `service.rs`, `settings.rs` and `report.rs` are public. `run` is the task (`finish.rs` its end),
//! `answer_limit.rs` its limit of a call of the store, `in_flight_rows` and `blocked_keys.rs`
//! the rows in memory, `telemetry.rs` logs and metrics, `simulation.rs` thousands of random
//! schedules against the rows in memory, and `tests` their rules, and relays that stop.

mod answer_limit;
mod blocked_keys;
mod in_flight_rows;
mod report;
mod run;
mod service;
mod settings;
mod slot_leases;
mod telemetry;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use report::RelayReport;
pub use service::Relay;
pub use settings::RelaySettings;
