//! The payload of an event before it reaches a handler.
//!
//! It remains the received bytes, checked against a schema or not: numbers keep their text, and a
//! delivery that waits for the store needs no more memory than its record.

use super::whole_numbers;
use crate::event::{Attributes, Event, EventType};
use crate::handler::{DeadReason, Outcome, Stage};
use crate::schema::{PayloadValidator, ValidationError, check, parse};
use serde_path_to_error::{Path, Segment};
use std::borrow::Cow;

/// A payload: the bytes of its record.
pub(super) struct Payload<'a>(Cow<'a, [u8]>);

impl<'a> Payload<'a> {
    /// Accepts the bytes if they follow the schema of their type; otherwise returns the outcome.
    pub(super) fn checked(
        catalogue: Option<&dyn PayloadValidator>,
        ty: &str,
        data: Cow<'a, [u8]>,
    ) -> Result<Self, Outcome> {
        if let Some(catalogue) = catalogue {
            let checked = check(catalogue, ty, &data);
            match checked.map_err(|error| unreadable(ty, &error))? {
                // Only `serde` checks a type that the catalogue does not know.
                Ok(()) | Err(ValidationError::UnknownType(_)) => {}
                Err(error) => return Err(dead(Stage::Schema, error)),
            }
        }
        Ok(Self(data))
    }

    /// Builds the event for a handler. Returns the outcome of a payload that is not of the
    /// handler's type.
    pub(super) fn read<T: EventType>(self, attributes: Attributes) -> Result<Event<T>, Outcome> {
        let error = match parse(&self.0) {
            Ok(data) => return Ok(Event { attributes, data }),
            Err(error) => error,
        };
        if !error.is_data() {
            return Err(unreadable(T::TYPE, &error));
        }
        // A schema accepts `2.0` as an integer, so a handler must accept it too.
        if let Some(json) = whole_numbers::with_plain_integers(&self.0)
            && let Ok(data) = parse(&json)
        {
            return Ok(Event { attributes, data });
        }
        Err(type_mismatch::<T>(&self.0, &error))
    }
}

/// The outcome of a record that no attempt can save. `error` must not contain any of the payload.
pub(super) fn dead(stage: Stage, error: impl std::fmt::Display) -> Outcome {
    Outcome::Dead(DeadReason::new(stage, error.to_string()))
}

/// Describes where a payload is invalid JSON without repeating any of it, unlike the message of
/// `serde_json`.
fn unreadable(ty: &str, error: &serde_json::Error) -> Outcome {
    let (line, column) = (error.line(), error.column());
    let message = format!("the payload of {ty} is not JSON (line {line}, column {column})");
    dead(Stage::Decode, message)
}

/// Describes by a JSON pointer where a payload does not match its type.
fn type_mismatch<T: EventType>(json: &[u8], error: &serde_json::Error) -> Outcome {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let read: Result<T, _> = serde_path_to_error::deserialize(&mut reader);
    let pointer = read.err().map(|error| pointer(error.path()));
    let at = match pointer.as_deref() {
        None | Some("") => String::new(),
        Some(pointer) => format!(" at {pointer}"),
    };
    let (ty, line, column) = (T::TYPE, error.line(), error.column());
    let message = format!(
        "the payload of {ty} does not have the shape of its type{at} (line {line}, column {column})"
    );
    dead(Stage::Decode, message)
}

/// A path as a JSON pointer (RFC 6901).
fn pointer(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        let name = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } | Segment::Enum { variant: key } => {
                key.replace('~', "~0").replace('/', "~1")
            }
            Segment::Unknown => continue,
        };
        pointer.push('/');
        pointer.push_str(&name);
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Catalogue;
    use serde_json::value::RawValue;

    const SCHEMA: &str = r#"{"type": "object", "properties": {"amount": {"type": "number"}}}"#;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Exact {
        amount: Box<RawValue>,
    }

    impl EventType for Exact {
        const TYPE: &'static str = "test.exact.v1";
        const TOPIC: &'static str = "test";

        fn key(&self) -> String {
            String::new()
        }
    }

    #[derive(Debug, serde::Serialize, serde::Deserialize)]
    struct Large {
        amount: u128,
    }

    impl EventType for Large {
        const TYPE: &'static str = Exact::TYPE;
        const TOPIC: &'static str = Exact::TOPIC;

        fn key(&self) -> String {
            String::new()
        }
    }

    fn read<T: EventType>(json: &str) -> Result<T, Outcome> {
        let catalogue = Catalogue::from_texts([(T::TYPE, SCHEMA)]).expect("a schema");
        let data = Cow::Borrowed(json.as_bytes());
        let payload = Payload::checked(Some(&catalogue), T::TYPE, data)?;
        let event = payload.read::<T>(Attributes::new("1", "/test", T::TYPE))?;
        Ok(event.data)
    }

    #[test]
    fn numbers_keep_their_text_beside_a_schema() {
        for amount in ["12345678901234567.89", "1.10", "1e2", "0.1000", "-0"] {
            let json = format!(r#"{{"amount": {amount}}}"#);
            let exact: Exact = read(&json).expect(amount);
            assert_eq!(exact.amount.get(), amount);
        }
        let json = format!(r#"{{"amount": {}}}"#, u128::MAX);
        assert_eq!(read::<Large>(&json).expect("it fits").amount, u128::MAX);
    }

    #[derive(Debug, serde::Serialize, serde::Deserialize)]
    struct Lines {
        lines: Vec<Line>,
    }

    #[derive(Debug, serde::Serialize, serde::Deserialize)]
    struct Line {
        #[serde(rename = "per/unit")]
        quantity: u32,
    }

    impl EventType for Lines {
        const TYPE: &'static str = "test.lines.v1";
        const TOPIC: &'static str = "test";

        fn key(&self) -> String {
            String::new()
        }
    }

    #[test]
    fn an_integer_may_have_a_point_and_others_are_reported() {
        let read = |json: &str| {
            let payload = Payload::checked(None, Lines::TYPE, Cow::Borrowed(json.as_bytes()))?;
            payload.read::<Lines>(Attributes::new("1", "/test", Lines::TYPE))
        };
        let lines = read(r#"{"lines": [{"per/unit": 2.0}, {"per/unit": 1e3}]}"#);
        let lines = lines.expect("integers").data.lines;
        let quantities: Vec<u32> = lines.iter().map(|line| line.quantity).collect();
        assert_eq!(quantities, [2, 1_000]);
        let check = |json: &str, expected: &str| {
            let Err(Outcome::Dead(reason)) = read(json) else {
                panic!("{json} is no such payload")
            };
            assert!(reason.message.contains(expected), "{}", reason.message);
        };
        let half = r#"{"lines": [{"per/unit": 1}, {"per/unit": 2.5}]}"#;
        check(
            half,
            "of its type at /lines/1/per~1unit (line 1, column 44)",
        );
        check(
            r#"{"lines": [{"per/unit": -1.0}]}"#,
            "at /lines/0/per~1unit (",
        );
        check("[]", "does not have the shape of its type (");
        check("{", "is not JSON (");
    }

    #[test]
    fn a_payload_has_the_same_outcome_with_and_without_schema() {
        let twice = read::<Large>(r#"{"amount": 1, "amount": 2}"#);
        let Err(Outcome::Dead(reason)) = twice else {
            panic!("a member that occurs twice: {twice:?}")
        };
        assert_eq!(reason.stage, Stage::Decode);
        let refused = read::<Large>(r#"{"amount": "1"}"#);
        let Err(Outcome::Dead(reason)) = refused else {
            panic!("no number: {refused:?}")
        };
        assert_eq!(reason.stage, Stage::Schema);
    }
}
