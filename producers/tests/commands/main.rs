//! The commands as their users run them: the real binaries against a cluster of their own.
//!
//! - [`single`]: one event per command, its receipt, and what is said when it cannot be published
//! - [`import`]: files and standard input, bad lines, importing twice, interrupting and going on
//! - [`simulate`]: rate, journal and summary
//! - [`shop`]: a cluster with the shop's topics, and running commands against it

mod import;
mod shop;
mod simulate;
mod single;
