//! What surrounds every route: the parts of `surround`, from the outside to the inside.
//!
//! | order | file | does |
//! |---|---|---|
//! | 1 | `observe` | log line and, by `request_metrics` and `request_span`, metrics and the span |
//! | 2 | `http/context` | the context of the request, and its headers in the answer |
//! | 3 | `answers` | security headers; panics become problems |
//! | 4 | `paths` | long and ambiguous URLs |
//! | 5 | `cross_site` | requests of other web sites |
//! | 6 | `body_limits` | large and slow bodies |
//!
//! Authentication and admission belong to the routes that need them: `identify`.

mod answers;
mod body_limits;
mod cross_site;
mod identify;
mod observe;
mod paths;
mod request_metrics;
mod request_span;
mod surround;

pub use body_limits::BodyLimits;
pub(super) use body_limits::LimitedBody;
pub(super) use cross_site::CrossSite;
pub(super) use identify::{identify, identify_and_admit};
pub(super) use request_metrics::RequestMetrics;
pub(super) use surround::{Known, Surroundings, surround, surround_route};
