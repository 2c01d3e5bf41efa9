//! Streams of events: resumable on any gateway, by cursors over all partitions of their topics.
//!
//! Owns the reading of topics for callers. Knows no group and commits nothing; a stream is only
//! its position, which the client keeps.
//!
//! # The way of a record
//! 1. One reader per topic (`topic_log.rs`) follows the end of the log, decodes each record
//!    once, and keeps the latest ones in a ring that all subscriptions of this gateway share.
//! 2. A subscription whose position is in the ring reads from it. One that is behind the ring first
//!    catches up with a reader of its own, up to the ring's end, and then continues in the ring at
//!    exactly these offsets. A limited number catches up at once; the others wait in order.
//! 3. Positions per partition decide what is delivered, so that a change of the source neither
//!    loses nor repeats an event. Events of one partition, and thus of one key, keep their order.
//! 4. [`router`] writes the frames as server-sent events or WebSocket messages.
//!
//! # Guarantees
//! - A client that reconnects with the last cursor that it received gets every later event of its
//!   filter once, on any gateway of the same cluster. It sees an event again only if it did not
//!   keep the event's cursor.
//! - What cannot be delivered is reported: [`Frame::Gap`] while streaming, 410 at a reconnect. A
//!   gap comes before any frame whose cursor has passed it. Passed offsets count as deleted if they
//!   are below the first one that the broker has by then, so a gap can be reported for offsets that
//!   held no event: markers of transactions that were deleted meanwhile.
//! - A log that was cut is reported as a gap that goes back, if it is noticed: `topic_log` tells
//!   when it is not.
//! - Only committed records are streamed.
//!
//! # Memory
//! | what | bound |
//! |---|---|
//! | ring of a topic | [`ring_bytes_max`](StreamSettings::ring_bytes_max), 16 MiB |
//! | reader of a topic | about 10 MiB: 6 MiB of fetched records, and one response |
//! | a subscription | 24 bytes per partition of its topics, and about 1 KiB |
//! | its output | three chunks of 16 KiB, each with at most one larger event |
//! | catching up | about 6 MiB each, [`catch_ups_max`](StreamSettings::catch_ups_max) at once |

mod catch_up;
mod cursor;
mod frame;
mod ring;
mod routes;
mod settings;
mod source;
mod streams;
mod subscription;
mod telemetry;
mod topic_log;

pub use cursor::{Cursor, CursorError, TopicIdentity, TopicPosition};
pub use frame::{Filter, Frame, StreamedEvent};
pub use routes::router;
pub use settings::StreamSettings;
pub use streams::{StreamStart, Streams};
pub use subscription::Subscription;
