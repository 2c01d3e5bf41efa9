//! A run as it is seen from outside.
//!
//! - [`sampler`]: reads all parts in rounds, once per second, on a thread of its own; [`brokers`],
//!   [`store`], [`readiness`]: where the parts come from; `request`: a request that may be late;
//!   `log_requests`: which partitions share one
//! - [`latest`]: merges the newest reading of every part into a [`sample`]; [`rates`]: rates over
//!   the last seconds, and lag in seconds of work; both pure
//! - [`load_meter`]: the maxima of a load, and a warning; pure
//! - [`progress`]: the display

mod brokers;
pub(crate) mod latest;
pub(crate) mod load_meter;
mod log_requests;
pub(crate) mod progress;
pub(crate) mod rates;
pub(crate) mod readiness;
mod request;
pub(crate) mod sample;
pub(crate) mod sampler;
pub(crate) mod store;
