//! The gateway as a server: connections, TLS, the assembly of all routes, and a stop without loss.
//!
//! | part | does |
//! |---|---|
//! | [`Server`], [`ConnectionLimits`] | accepts connections, bounds their number, time and memory |
//! | [`Tls`] | the certificate, reloaded when its files change |
//! | [`router()`], [`Parts`] | assembles the routes, and what surrounds them |
//! | [`GatewaySettings`], `Gateway` | builds a whole gateway, runs and stops it |
//! | `program` (feature `shop`) | the binary: flags, configuration file, exit code |
//!
//! The answers to hostile requests:
//!
//! | request | answer |
//! |---|---|
//! | a head that does not arrive within 10 s | the connection is closed |
//! | a head above 16 KiB, or more than 100 headers (HTTP/1.1) | 431 |
//! | path and query above 4 KiB | 414 |
//! | `//`, `..`, `%2e`, `%2f`, `%5c` in the path | 404 |
//! | a body above the bound | 413, before it is read if it declares its length |
//! | a body that arrives too slowly | 408 |
//! | a body that is still sent after an early answer | 1 MiB of it, or 1 s, is read and discarded |
//! | a request for a page of another site | 403 |
//! | a connection without a request for 60 s | the connection is closed |
//! | more than 10,000 connections | the longest idle ones are closed |

mod connections;
#[cfg(feature = "shop")]
mod gateway;
mod middleware;
mod posts;
mod problems;
#[cfg(feature = "shop")]
pub mod program;
mod router;
mod settings;
mod stop;
#[cfg(feature = "shop")]
mod stores;
mod tls;

pub use connections::{ConnectionLimits, HEAD_BYTES_MAX, Server, bind};
#[cfg(feature = "shop")]
pub use gateway::Gateway;
pub use middleware::BodyLimits;
pub use router::{Parts, RouterSettings, router};
pub use settings::{AccessSettings, GatewaySettings, StoreAddress, TlsFiles};
pub use stop::{StopReport, StopSettings};
pub use tls::{Tls, TlsError};
