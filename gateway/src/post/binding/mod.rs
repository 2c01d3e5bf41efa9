//! The HTTP binding of CloudEvents 1.0.2: from a request to new events. Knows no route, no right
//! and no schema.
//!
//! | file | content |
//! |---|---|
//! | `mode.rs` | the mode of a request, by its content type |
//! | `body.rs` | the body within its limits, as text |
//! | `binary.rs`, `header_value.rs` | an event of `ce-*` headers and a body |
//! | `structured.rs` | an event, or a batch, of the JSON event format |

mod binary;
mod body;
mod header_value;
mod mode;
mod structured;

pub(super) use binary::{attribute, binary};
pub(super) use body::{body_text, check_length, read_body, too_large};
pub(super) use mode::{Mode, mode};
pub(super) use structured::{batch, structured};
