//! Commands on the stores of services: `outbox`, `store`.

pub(crate) mod outbox;
pub(crate) mod store;
