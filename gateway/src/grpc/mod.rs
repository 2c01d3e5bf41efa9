//! gRPC: the same commands, answers and streams as over HTTP.
//!
//! | service | methods | file |
//! |---|---|---|
//! | `evenkeel.gateway.v1.Events` | `Post`, `Get`, `Watch` | `events.rs` |
//! | `shop.v1.Orders` (feature `shop`) | `Place`, `Cancel`, `Get`, `Watch` | `orders.rs` |
//! | `grpc.health.v1.Health` | `Check` | `health.rs` |
//!
//! The messages are in `schemas/proto`; [`proto`] has them as Rust types, with clients. Rights,
//! schemas, admission and stores are those of the HTTP routes: a service maps messages and decides
//! nothing. A problem becomes a status with its details (`status_code.rs`).
//!
//! Every call but those of `Health` has a caller, by the bearer token in `authorization`, and the
//! deadline of `grpc-timeout` (`call.rs`, `timeout.rs`). A call without a valid token, or a post of
//! a caller above its rate, is refused before its message is read. A post is admitted by load
//! before its message is decoded. Another content type, such as that of gRPC-Web, gets HTTP's 415.
//!
//! # Bounds
//! A request has at most [`PostLimits::body_bytes_max`](crate::post::PostLimits::body_bytes_max)
//! bytes, one of `Get` or `Watch` 128 KiB; a longer one is refused with `INVALID_ARGUMENT`, as
//! `too-large`. A message that posts has the time and the places that bodies have over HTTP
//! ([`AdmissionSettings`](crate::admission::AdmissionSettings)). The HTTP/2 settings of the server
//! bound the calls of a connection at a time, [`Streams`](crate::stream::Streams) the open streams.
//! A stream buffers nothing of its own.
//!
//! ```no_run
//! use evenkeel_gateway::grpc::Grpc;
//! # use evenkeel_gateway::{access::Authenticator, admission::Admission, post::Posting};
//! # use evenkeel_gateway::{status::StatusReader, stream::Streams};
//!
//! # async fn example(
//! #     posting: Posting, admission: Admission, status: StatusReader, streams: Streams,
//! #     authenticator: Authenticator,
//! # ) {
//! let grpc = Grpc::new(posting, admission, status, streams, authenticator, "gateway-1".into());
//! let (routes, health) = grpc.routes().await;
//! let router: axum::Router = axum::Router::new().merge(routes);
//! // As the first step of a stop:
//! health.set_serving(false).await;
//! # let _ = router;
//! # }
//! ```

mod call;
mod details;
mod event_status;
mod events;
mod health;
#[cfg(feature = "shop")]
mod orders;
pub mod proto;
mod services;
mod status_code;
mod timeout;
mod watch;

pub use health::HealthHandle;
pub use services::Grpc;
