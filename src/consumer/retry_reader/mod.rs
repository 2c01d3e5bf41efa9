//! The threads that read the retry partitions of assigned partitions and hand out records that are
//! due.

mod bootstrap;
mod dispatch;
mod fetch;
mod gap_check;
pub(crate) mod inspect;
mod lookup;
mod losses;
mod read_errors;
pub(crate) mod reader;
pub(crate) mod retention;
mod unread;
