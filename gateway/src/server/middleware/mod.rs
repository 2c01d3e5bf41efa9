//! What surrounds every route, from the outside to the inside.
//!
//! | order | file | does |
//! |---|---|---|
//! | 1 | `observe` | log line, metrics and, by `request_span`, the span |
//! | 2 | `answers` | security headers; panics become problems |
//! | 3 | `paths` | long and ambiguous URLs |
//! | 4 | `cross_site` | requests of other web sites |
//! | 5 | `body_limits` | large and slow bodies |
//!
//! Between 1 and 2 stands [`add_context`](crate::http::add_context). Authentication and admission
//! belong to the routes that need them.

mod answers;
mod body_limits;
mod cross_site;
mod observe;
mod paths;
mod request_span;

pub(super) use answers::{catch_panics, note_caller, secure_headers};
pub use body_limits::BodyLimits;
pub(super) use body_limits::limit_body;
pub(super) use cross_site::{CrossSite, check_site};
pub(super) use observe::observe;
pub(super) use paths::check_path;
