//! The suite that every idempotency store passes.
