//! Limits the time of a handler: [`ConsumerSettings::handler_timeout`].
//!
//! - `limit`: the clock that stops while a delivery waits for the store or the brokers
//! - `service`: the same around a handler service, with its layers
//!
//! [`ConsumerSettings::handler_timeout`]: crate::consumer::ConsumerSettings::handler_timeout

mod limit;
mod service;

pub(super) use limit::{TooSlow, outside_handler_time, with_time_limit};
pub(crate) use service::Limited;
