//! The threads that read the retry partitions of assigned partitions and hand out records that are
//! due.
//!
//! # From the log to a worker
//!
//! | step | file | runs on |
//! |---|---|---|
//! | find the retry partition, create it if it is missing | `lookup` | threads of its own |
//! | start at the committed offset, with the offsets settled above it | `bootstrap` | reader |
//! | read entries into the parked set, from then on | `reader`, `gap_check` | reader |
//! | wait until a record is due, fetch its content | `dispatch`, `fetch` | dispatcher |
//! | hand it to the worker of its key | `dispatch` | dispatcher |
//! | delete what is settled | `retention` | a task |
//!
//! `unread` holds partitions on their way to the reader, `read_errors` and `losses` what the health
//! reports, and `inspect` is the operator's view.
//!
//! # Why two threads and two clients
//!
//! The reader must see every entry, in order, to know which keys wait: it reads sequentially and
//! keeps offsets only. The content of a record may lie far behind when it becomes due, so that
//! another client fetches it. With one client, a fetch would move the position of the reader, and a
//! broker that does not answer would stop both.

mod dispatcher;
pub(crate) mod inspect;
mod losses;
pub(crate) mod reader;
pub(crate) mod retention;
mod telemetry;
