//! Errors of handlers, and the classifier that decides their class.
//!
//! - `handler_error`: any error with or without a class, stage and dependency
//! - `classify`: the default classifier; `http`: an HTTP status as an error
//! - `store_error`: errors of the inbox as errors of handlers

mod classify;
mod handler_error;
mod http;
mod store_error;

pub use classify::default_classifier;
pub(crate) use handler_error::Failure;
pub use handler_error::{Classifier, HandlerError};
pub use http::HttpStatus;
pub(super) use store_error::store_error;
