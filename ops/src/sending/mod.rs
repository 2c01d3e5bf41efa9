//! How an operation sends records: at which rate, and when their receipts arrive.

pub(crate) mod rate_limit;
pub mod receipts;
