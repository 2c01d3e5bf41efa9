//! The generated messages, servers and clients. Their documentation is in `schemas/proto`.
#![allow(
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::large_futures
)]
#![allow(missing_docs, rustdoc::all, unreachable_pub, rust_2018_idioms)]

/// The package `evenkeel.gateway.v1`.
pub mod gateway {
    tonic::include_proto!("evenkeel.gateway.v1");
}

/// The package `shop.v1`.
#[cfg(feature = "shop")]
pub mod shop {
    tonic::include_proto!("shop.v1");
}
