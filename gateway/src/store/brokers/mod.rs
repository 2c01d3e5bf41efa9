//! The store that is the brokers: nothing is kept but where the last events were written.
//!
//! `store.rs` publishes, `in_flight.rs` waits for the acknowledgements, also of callers that left,
//! `settled.rs` decides the answer, and `places.rs` keeps the places of the last events.

mod in_flight;
mod places;
mod settled;
mod store;

pub use store::BrokerStore;
