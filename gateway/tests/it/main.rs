//! Integration tests of the gateway.
//!
//! - `access`: which tokens are accepted, and that refusals tell nothing
//! - `admission`: overload is refused quickly, and those told to come back find room
//! - `grpc`: the same commands, answers and streams over gRPC
//! - `post`: an event that is accepted is on its topic, as it was posted
//! - `server`: hostile requests on a real socket, TLS, and a stop that loses nothing; behind HAProxy,
//!   nginx and Envoy, a kill and a drain lose nothing; the description of the interface names the
//!   routes and problems that exist
//! - `shop`: orders are placed, cancelled and read
//! - `status`: the states of an event, of real groups on a real Kafka
//! - `stores`: what is accepted survives, and is published once
//! - `streams`: a stream resumes without a gap, on any instance
//!
//! `support` has a whole gateway in this process.

mod access;
mod admission;
mod grpc;
mod post;
mod server;
mod shop;
mod status;
mod stores;
mod streams;
mod support;
