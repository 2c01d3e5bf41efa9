//! The gateway over sockets: posts beside a plain route, overload, streams.
//!
//! The clients of a server run in a process of their own, so that the processor time and the memory
//! of a turn are the server's alone. Both share the processors with the brokers.
//!
//! - [`posts`], [`overload`], [`streams`]: one workload each; [`servers`]: what they measure

pub(super) mod overload;
pub(super) mod posts;
mod servers;
pub(super) mod streams;
