//! Clients: records of other clients, compression codecs, and tokens.

/// Every codec is written and read.
mod compression;
/// kcat reads what we publish, and we read what kcat publishes.
mod interop;
/// OAUTHBEARER: every client of the library renews its token from a file, at any time.
mod tokens;
