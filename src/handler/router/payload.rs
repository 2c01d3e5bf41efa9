//! The payload of an event on its way to a handler.
//!
//! It stays the bytes that came, checked against a schema or not: numbers keep their text, and what waits for the store costs no
//! more than its record.

use crate::event::{Attributes, Event, EventType};
use crate::handler::{DeadReason, Outcome, Stage};
use crate::schema::{Catalogue, ValidationError};
use std::borrow::Cow;

/// A payload, as it stands in its record.
pub(super) struct Payload<'a>(Cow<'a, [u8]>);

impl<'a> Payload<'a> {
    /// Takes the bytes once they follow the schema of their type; or the outcome for those that do not.
    pub(super) fn checked(
        catalogue: Option<&Catalogue>,
        ty: &str,
        data: Cow<'a, [u8]>,
    ) -> Result<Self, Outcome> {
        if let Some(catalogue) = catalogue {
            let checked = catalogue.check(ty, &data);
            match checked.map_err(|error| unreadable(ty, &error))? {
                // A type that the catalogue does not know is judged by `serde` alone.
                Ok(()) | Err(ValidationError::UnknownType(_)) => {}
                Err(error) => return Err(dead(Stage::Schema, error)),
            }
        }
        Ok(Self(data))
    }

    /// The event that a handler gets; or the outcome for a payload that is not of its type.
    pub(super) fn read<T: EventType>(self, attributes: Attributes) -> Result<Event<T>, Outcome> {
        // Text is checked once as a whole, which is much faster than string by string; what is wrong with other bytes is the
        // parser's to say.
        let data = match std::str::from_utf8(&self.0) {
            Ok(text) => serde_json::from_str(text),
            Err(_) => serde_json::from_slice(&self.0),
        };
        match data {
            Ok(data) => Ok(Event { attributes, data }),
            Err(error) => Err(unreadable(T::TYPE, &error)),
        }
    }
}

pub(super) fn dead(stage: Stage, error: impl std::fmt::Display) -> Outcome {
    Outcome::Dead(DeadReason::new(stage, error.to_string()))
}

/// Says where a payload is wrong without repeating any of it, which `serde_json`'s own message would.
fn unreadable(ty: &str, error: &serde_json::Error) -> Outcome {
    let problem = if error.is_data() {
        "does not have the shape of its type"
    } else {
        "is not JSON"
    };
    dead(
        Stage::Decode,
        format!(
            "the payload of {ty} {problem} (line {}, column {})",
            error.line(),
            error.column()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
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

    #[test]
    fn a_payload_is_judged_alike_with_and_without_a_schema() {
        let twice = read::<Large>(r#"{"amount": 1, "amount": 2}"#);
        let Err(Outcome::Dead(reason)) = twice else {
            panic!("a member that stands twice: {twice:?}")
        };
        assert_eq!(reason.stage, Stage::Decode);
        let refused = read::<Large>(r#"{"amount": "1"}"#);
        let Err(Outcome::Dead(reason)) = refused else {
            panic!("no number: {refused:?}")
        };
        assert_eq!(reason.stage, Stage::Schema);
    }
}
