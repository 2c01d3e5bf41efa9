//! Limits the time of a handler.

mod limit;
mod service;

pub(super) use limit::{TooSlow, limited, outside};
pub(crate) use service::Limited;
