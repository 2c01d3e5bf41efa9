//! The checks of one event. Pure: no store, no clock, no protocol.
//!
//! | file | content |
//! |---|---|
//! | `attributes.rs` | the attributes, checked and completed |
//! | `payload.rs` | the data: schema, record key, fingerprint |
//! | `unique_json.rs` | JSON without repeated member names |
//! | `media_type.rs` | media types of JSON |

mod attributes;
mod media_type;
mod payload;
mod unique_json;

pub(super) use attributes::complete;
pub(super) use media_type::MediaType;
pub(super) use payload::{Payload, PayloadFault, check};
pub(super) use unique_json::parse;
