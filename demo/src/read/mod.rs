//! What the audit reads, each source afresh when everything has stopped: the topics, the stores, the producers' journals.
//!
//! Turns what it finds into facts; judges nothing.

mod journal;
mod stores;
mod topics;

pub(crate) use journal::{Defaults, read_journal};
pub(crate) use stores::{count_effects, has_unpublished, read_books, read_effects};
pub(crate) use topics::{Span, read_topics};
