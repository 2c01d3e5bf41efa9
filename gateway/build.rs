//! Generates the gRPC messages, servers and clients from `schemas/proto`. Needs no `protoc`.

use std::error::Error;

/// The folder of the `.proto` files, relative to this package.
const PROTO: &str = "../schemas/proto";
/// The files, relative to [`PROTO`].
const FILES: [&str; 2] = ["evenkeel/gateway/v1/events.proto", "shop/v1/orders.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    for file in FILES {
        println!("cargo::rerun-if-changed={PROTO}/{file}");
    }
    let descriptors = protox::compile(FILES, [PROTO])?;
    tonic_prost_build::configure()
        // `connect()` of the clients needs tonic's feature `channel`, which the gateway does not
        // link: a client is made of any channel, `EventsClient::new(channel)`.
        .build_transport(false)
        // Payloads are shared, not copied, from the log reader to every stream.
        .bytes(".evenkeel.gateway.v1")
        .bytes(".shop.v1")
        // Encoded in one order, because the fingerprint of a request is that of its encoding.
        .btree_map(".evenkeel.gateway.v1")
        .compile_fds(descriptors)?;
    Ok(())
}
