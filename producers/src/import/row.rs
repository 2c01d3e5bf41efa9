//! What a line of a file must be able to become.

use evenkeel::event::{Event, EventType, derived_id};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A line's fields, the same for CSV and JSON lines.
///
/// Its JSON form is its content: two rows with the same JSON form are the same event.
pub trait Row: DeserializeOwned + Serialize {
    /// The event that it becomes.
    type Data: EventType;
    /// What the rows are, in the plural, for messages.
    const NOUN: &'static str;
    /// The columns that a CSV header must have.
    const COLUMNS_REQUIRED: &'static [&'static str];
    /// The columns that it may have.
    const COLUMNS_OPTIONAL: &'static [&'static str];

    /// The payload, or why the fields make none; `now` stands for a time that the row leaves out.
    fn data(&self, now: Timestamp) -> Result<Self::Data, String>;
}

/// The event of a row. Its id is derived from source, type and content, so a row that is imported again, from this file or
/// a copy of it, is the same event again.
pub fn event<R: Row>(row: &R, source: &str, now: Timestamp) -> Result<Event<R::Data>, String> {
    let content = serde_json::to_string(row).map_err(|error| error.to_string())?;
    let mut event = Event::new(source, row.data(now)?);
    event.attributes.id = derived_id(source, &content, R::Data::TYPE, 0);
    event.attributes.time = Some(now);
    Ok(event)
}
