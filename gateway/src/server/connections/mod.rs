//! The connections of the public address, with bounds on their number, time and memory.
//!
//! Knows no route. A connection is a task and bounded buffers; one sweep a second closes those that
//! are idle, that send a head too slowly, or that do not read their answer. So an idle connection
//! costs neither a timer nor a wakeup.
//!
//! - [`ConnectionLimits`]: the bounds
//! - `activity`: what one connection does, and when it is closed
//! - `message_end`: whether the next request of HTTP/1.1 has begun
//! - `open`: the table of connections, and which make room for others
//! - `socket`, `request_body`, `counted_body`: what notes the activity
//! - [`Server`]: the accept loop, and the settings of HTTP

mod activity;
mod counted_body;
mod limits;
mod message_end;
mod open;
mod request_body;
mod serve;
mod socket;

pub use limits::ConnectionLimits;
pub use serve::{HEAD_BYTES_MAX, Server, bind};
