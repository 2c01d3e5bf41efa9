//! Effects in the store of a service, and its outbox.

pub(super) mod effects;
pub(super) mod outbox;
pub(super) mod shared_rows;
