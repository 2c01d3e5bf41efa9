//! The gateway over sockets: posts beside plain routes, overload, an outage, streams.
//!
//! The clients of a server run in a process of their own, so that the processor time and the memory
//! of a turn are the server's alone. Both share the processors with the brokers. The clients of the
//! outage run on a thread of the server's process: its aims are latencies.
//!
//! - [`posts`], [`overload`], [`outage`], [`streams`]: one workload each
//! - [`servers`], [`plain`]: what they measure; [`answer_times`]: answers, measured by the server
//! - [`connection`], [`answers`]: what the clients send and measure
//! - [`own_kafka`]: brokers that a turn may stop; [`log_check`]: accepted events beside the topic

mod answer_times;
mod answers;
mod connection;
mod log_check;
pub(super) mod outage;
pub(super) mod overload;
mod own_kafka;
mod plain;
pub(super) mod posts;
mod servers;
pub(super) mod streams;
