//! The sources of the audit, each read after everything has stopped: the topics, the stores, the
//! producers' journals.
//!
//! Converts them into facts. Contains no rules of the audit.

mod journal;
mod stores;
mod topics;

pub(crate) use journal::{Defaults, read_journal};
pub(crate) use stores::{open_store, read_books, read_effects};
pub(crate) use topics::{Span, read_topics};
