//! Tests of the commands: the real binaries against a cluster of their own.
//!
//! - [`single`]: one event per command, its receipt, and the errors of publishing
//! - [`import`]: files and standard input, bad lines, repetition, interruption and continuation
//! - [`simulate`]: rate, journal and summary
//! - [`readers`]: exit codes with any reader, and output that cannot be written
//! - [`shop`]: a cluster with the shop's topics, and running commands against it

mod import;
mod readers;
mod shop;
mod simulate;
mod single;
