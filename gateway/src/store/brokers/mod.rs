//! The store that is the brokers: nothing is kept but where the last events were written.
//!
//! `store.rs` publishes and waits for the acknowledgements, `settled.rs` decides the answer, and
//! `places.rs` keeps the places of the last events.

mod places;
mod settled;
mod store;

pub use store::BrokerStore;
