//! The CloudEvents source of this program's events.

/// The CloudEvents source of all events that `stock` publishes.
pub const SOURCE: &str = "/shop/stock";
