//! The CloudEvents source of this program's events.

/// The CloudEvents source of all events that `orders` publishes.
pub const SOURCE: &str = "/shop/orders";
