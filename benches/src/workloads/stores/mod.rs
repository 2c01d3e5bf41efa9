//! Effects in the store of a service.

pub(super) mod effects;
pub(super) mod shared_rows;
