//! Stores for tests: PostgreSQL, PgBouncer in front of it, and Redis.
//!
//! `server.rs` runs a server as a local process. The other files know one server each: its program,
//! its flags, and how to find out that it answers. Containers are not used: a process starts in a
//! second, and a test can suspend and kill it.

pub(super) mod pgbouncer;
pub(super) mod postgres;
pub(super) mod redis;
pub(super) mod server;
