//! The row type of an import.

use evenkeel::event::{Event, EventType, derived_id};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The fields of a row, equal for CSV and JSON lines.
///
/// Its JSON form is its content: two rows with the same JSON form are the same event.
pub trait Row: DeserializeOwned + Serialize {
    /// Payload type of the row's event.
    type Data: EventType;
    /// The plural noun for rows in messages.
    const NOUN: &'static str;
    /// Columns that a CSV header must have.
    const COLUMNS_REQUIRED: &'static [&'static str];
    /// Columns that a CSV header may have.
    const COLUMNS_OPTIONAL: &'static [&'static str];

    /// The payload, or the reason why the fields are invalid. `now` replaces a missing time.
    fn data(&self, now: Timestamp) -> Result<Self::Data, String>;
}

/// The event of a row. Its id is derived from source, type and content. A row that is imported
/// again, from this file or from a copy, is the same event.
pub fn event<R: Row>(row: &R, source: &str, now: Timestamp) -> Result<Event<R::Data>, String> {
    let content = serde_json::to_string(row).map_err(|error| error.to_string())?;
    let mut event = Event::new(source, row.data(now)?);
    event.attributes.id = derived_id(source, &content, R::Data::TYPE, 0);
    event.attributes.time = Some(now);
    Ok(event)
}
