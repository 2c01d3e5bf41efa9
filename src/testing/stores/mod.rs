//! Stores for tests: PostgreSQL, PgBouncer in front of it, and Redis.

pub(super) mod pgbouncer;
pub(super) mod postgres;
pub(super) mod redis;
pub(super) mod server;
