//! Effects in the store of a service, and its outbox.
//!
//! - [`effects`], [`shared_rows`], [`outbox`]: the workloads
//! - [`store`]: the store of a turn; [`handlers`]: what inserts the effects

pub(super) mod effects;
pub(super) mod handlers;
pub(super) mod outbox;
pub(super) mod shared_rows;
pub(super) mod store;
