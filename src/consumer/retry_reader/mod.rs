//! The threads that read the retry partitions of assigned partitions and hand out records that are
//! due.
//!
//! # From the log to a worker
//!
//! | step | file | runs on |
//! |---|---|---|
//! | find the retry partition, create it if it is missing | `reader/lookup` | threads of its own |
//! | start at the committed offset, with the offsets settled above it | `reader/bootstrap` | reader |
//! | read entries into the parked set, from then on | `reader/entries`, `reader/gap_check` | reader |
//! | wait until a record is due, fetch its content | `dispatcher`, `dispatcher/fetch` | dispatcher |
//! | hand it to the worker of its key | `dispatcher` | dispatcher |
//! | delete settled entries | `retention` | a task |
//!
//! `reader/unread` holds the partitions that are not read yet. The health reports
//! `reader/read_errors` and `losses`. `inspect` reads progress and parked records outside of the
//! group. `telemetry` has the log lines.
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
