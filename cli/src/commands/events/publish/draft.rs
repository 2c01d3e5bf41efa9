//! Converts a payload, or a complete CloudEvent in JSON, into a validated event with its topic and
//! key. Pure.

use super::payload;
use evenkeel::event::{
    Attributes, ContentMode, Headers, JsonEvent, OutgoingRecord, TraceContext, decode, encode_json,
    new_id,
};
use evenkeel::schema::Catalogue;
use serde_json::Value;
use serde_json::value::RawValue;
use shop_schemas::TopicDeclaration;

/// The source of the record key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeyRule {
    /// The member that the topic's declaration names.
    Declared,
    /// The value at a JSON pointer.
    At(String),
    /// This key for every event.
    Fixed(String),
    /// No key.
    None,
}

/// Creates events from the input.
pub(super) struct Drafter {
    /// The schemas that payloads must follow.
    pub(super) catalogue: Catalogue,
    /// The required type of every event. `None`: each event has its own.
    pub(super) ty: Option<String>,
    /// The topic for all events. `None`: the declared one.
    pub(super) topic: Option<String>,
    /// Where the record key comes from.
    pub(super) key: KeyRule,
    /// CloudEvents source of payloads. A complete event keeps its own.
    pub(super) source: String,
    /// CloudEvents subject of payloads. `None`: the key.
    pub(super) subject: Option<String>,
    /// Where the attributes are in the record.
    pub(super) mode: ContentMode,
}

impl Drafter {
    /// Rejects settings that would fail for every line.
    pub(super) fn check(&self) -> Result<(), String> {
        match &self.ty {
            None => Ok(()),
            Some(ty) => {
                self.topic_of(ty)?;
                self.key_pointer(ty).map(drop)
            }
        }
    }

    /// The topic of all events, if it is the same.
    pub(super) fn topic(&self) -> Option<&str> {
        let ty = self.ty.as_deref();
        ty.and_then(|ty| self.topic_of(ty).ok())
            .or(self.topic.as_deref())
    }

    /// The event of one JSON object. The payload keeps its exact text.
    pub(super) fn draft(&self, input: Box<RawValue>) -> Result<JsonEvent, String> {
        let (mut attributes, data, own) = match is_event(&value(&input)?) {
            true => {
                let (attributes, data) = read_event(&input)?;
                (attributes, data, true)
            }
            false => (self.new_attributes()?, input, false),
        };
        let ty = &attributes.ty;
        if let Some(wanted) = self.ty.as_ref().filter(|wanted| *wanted != ty) {
            return Err(format!("it is a {ty}, not a {wanted}"));
        }
        self.catalogue
            .validate(ty, &value(&data)?)
            .map_err(|error| error.to_string())?;
        let key = self.key_of(ty, &data)?;
        let topic = self.topic_of(ty)?.to_owned();
        if !own {
            attributes.subject = self.subject.clone().or_else(|| key.clone());
        }
        let event = JsonEvent::new(attributes, topic, data);
        Ok(match key {
            Some(key) => event.with_key(key),
            None => event,
        })
    }

    /// The record of an event. It starts the event's trace.
    pub(super) fn encode(&self, event: &JsonEvent) -> Result<OutgoingRecord, String> {
        encode_json(event, self.mode, Some(&TraceContext::root()))
            .map_err(|error| error.to_string())
    }

    /// The attributes of a payload: a new id, the source of the flags, and the present time.
    fn new_attributes(&self) -> Result<Attributes, String> {
        let ty = self
            .ty
            .as_ref()
            .ok_or("not a CloudEvent (specversion, type, source, id), and no TYPE is given")?;
        let mut attributes = Attributes::new(new_id(), &self.source, ty);
        attributes.time = Some(jiff::Timestamp::now());
        attributes.datacontenttype = Some("application/json".to_owned());
        Ok(attributes)
    }

    /// The topic of a type: that of the flag, else the declared one.
    fn topic_of<'a>(&'a self, ty: &str) -> Result<&'a str, String> {
        match (&self.topic, declaration(ty)) {
            (Some(topic), _) => Ok(topic),
            (None, Some(declared)) => Ok(&declared.name),
            (None, None) => Err(format!("no topic is declared for {ty}; give --topic")),
        }
    }

    /// The JSON pointer to the key in the payload. `None` for a fixed key or no key.
    fn key_pointer(&self, ty: &str) -> Result<Option<String>, String> {
        match (&self.key, declaration(ty)) {
            (KeyRule::Fixed(_) | KeyRule::None, _) => Ok(None),
            (KeyRule::At(pointer), _) => Ok(Some(pointer.clone())),
            (KeyRule::Declared, Some(declared)) => Ok(Some(format!("/{}", declared.key))),
            (KeyRule::Declared, None) => Err(format!(
                "no key is declared for {ty}; give --key-field, --key or --no-key"
            )),
        }
    }

    /// The record key of an event. Numbers become text, digit by digit.
    fn key_of(&self, ty: &str, data: &RawValue) -> Result<Option<String>, String> {
        if let KeyRule::Fixed(key) = &self.key {
            return Ok(Some(key.clone()));
        }
        let Some(pointer) = self.key_pointer(ty)? else {
            return Ok(None);
        };
        let none = || format!("no text or number at {pointer} for the record key");
        let found = payload::at(data, &pointer).ok_or_else(none)?;
        match value(found)? {
            Value::String(text) => Ok(Some(text)),
            // As text: two account numbers that are equal as f64 are two keys.
            Value::Number(_) => Ok(Some(found.get().to_owned())),
            _ => Err(none()),
        }
    }
}

/// The declaration of the topic of a type.
fn declaration(ty: &str) -> Option<&'static TopicDeclaration> {
    let travels = |topic: &&TopicDeclaration| topic.events.iter().any(|event| event == ty);
    shop_schemas::topics().iter().find(travels)
}

/// Whether an object is a CloudEvent rather than a payload: it has all required attributes.
fn is_event(input: &Value) -> bool {
    ["specversion", "id", "source", "type"]
        .iter()
        .all(|name| input.get(name).is_some_and(Value::is_string))
}

/// The parsed value of a text, for validation. Numbers have the precision of `f64`.
fn value(text: &RawValue) -> Result<Value, String> {
    serde_json::from_str(text.get()).map_err(|error| error.to_string())
}

/// Reads a CloudEvent with the reader that consumers use.
fn read_event(input: &RawValue) -> Result<(Attributes, Box<RawValue>), String> {
    let mut headers = Headers::new();
    headers.push("content-type", Some(b"application/cloudevents+json"));
    let text = input.get().as_bytes();
    let envelope = decode(headers.iter(), Some(text)).map_err(|error| error.to_string())?;
    let data = envelope.data.ok_or("the event has no data")?;
    let data = serde_json::from_slice(&data).map_err(|_| "the event's data is not JSON")?;
    Ok((envelope.attributes, data))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TYPE: &str = "shop.order-cancelled.v1";

    fn drafter() -> Drafter {
        Drafter {
            catalogue: shop_schemas::catalogue().unwrap(),
            ty: Some(TYPE.to_owned()),
            topic: None,
            key: KeyRule::Declared,
            source: "/test".to_owned(),
            subject: None,
            mode: ContentMode::Binary,
        }
    }

    fn text(value: Value) -> Box<RawValue> {
        serde_json::value::to_raw_value(&value).unwrap()
    }

    fn payload() -> Value {
        json!({"order_id": "o-1", "reason": "changed my mind"})
    }

    fn event(ty: &str) -> Value {
        json!({"specversion": "1.0", "id": "7", "source": "/elsewhere", "type": ty, "data": payload()})
    }

    #[test]
    fn a_payload_becomes_an_event_with_declared_topic_and_key() {
        let draft = drafter().draft(text(payload())).unwrap();
        assert_eq!(draft.topic, "shop.orders");
        assert_eq!(draft.key.as_deref(), Some(&b"o-1"[..]));
        assert_eq!(draft.attributes.ty, TYPE);
        assert_eq!(draft.attributes.source, "/test");
        assert_eq!(draft.attributes.subject.as_deref(), Some("o-1"));
        assert_eq!(value(&draft.data).unwrap(), payload());
    }

    #[test]
    fn numbers_and_keys_stay_as_they_are_written() {
        let by_account = |account: &str| {
            let drafter = Drafter {
                ty: Some("other.v1".to_owned()),
                catalogue: Catalogue::from_texts([("other.v1", "{}")]).unwrap(),
                topic: Some("t".to_owned()),
                key: KeyRule::At("/account".to_owned()),
                ..drafter()
            };
            let payload = format!(r#"{{"z":1.10,"account":{account}}}"#);
            let plain = RawValue::from_string(payload.clone()).unwrap();
            let whole = format!(
                r#"{{"specversion":"1.0","id":"7","source":"/s","type":"other.v1","data":{payload}}}"#
            );
            let whole = RawValue::from_string(whole).unwrap();
            [plain, whole].map(|input| {
                let draft = drafter.draft(input).unwrap();
                assert_eq!(draft.data.get(), payload);
                draft.key.unwrap()
            })
        };
        for account in ["23958446825181076828", "23958446825181076999"] {
            assert_eq!(by_account(account), [account, account]);
        }
    }

    #[test]
    fn a_full_event_keeps_its_identity() {
        let draft = drafter().draft(text(event(TYPE))).unwrap();
        let attributes = draft.attributes;
        assert_eq!(
            (attributes.id.as_str(), attributes.source.as_str()),
            ("7", "/elsewhere")
        );
        assert_eq!(value(&draft.data).unwrap(), payload());
    }

    #[test]
    fn a_full_event_keeps_a_time_that_no_instant_holds() {
        let (time, mut input) = ("9999-12-31T23:59:59.9999999Z", event(TYPE));
        input["time"] = json!(time);
        let drafter = drafter();
        let record = drafter
            .encode(&drafter.draft(text(input)).unwrap())
            .unwrap();
        assert_eq!(record.headers.last("ce_time"), Some(time.as_bytes()));
    }

    #[test]
    fn unpublishable_input_is_refused_with_the_reason() {
        let check = |drafter: Drafter, input: Value, expected: &str| {
            let reason = drafter.draft(text(input)).unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        };
        check(drafter(), json!({"order_id": "o-1"}), "required");
        check(
            drafter(),
            event("shop.order-placed.v1"),
            "not a shop.order-cancelled.v1",
        );
        let untyped = || Drafter {
            ty: None,
            ..drafter()
        };
        check(untyped(), payload(), "no TYPE");
        check(untyped(), event("unknown.v1"), "unknown.v1");
        let no_such_member = Drafter {
            key: KeyRule::At("/lines".to_owned()),
            ..drafter()
        };
        check(no_such_member, payload(), "/lines");
        let mut without_data = event(TYPE);
        without_data.as_object_mut().unwrap().remove("data");
        check(drafter(), without_data, "no data");
    }

    #[test]
    fn an_undeclared_type_needs_a_topic_and_a_key() {
        let undeclared = |topic: Option<&str>, key| {
            let drafter = Drafter {
                ty: Some("other.v1".to_owned()),
                topic: topic.map(str::to_owned),
                key,
                ..drafter()
            };
            drafter.check()
        };
        assert!(undeclared(None, KeyRule::None).is_err());
        assert!(undeclared(Some("t"), KeyRule::Declared).is_err());
        assert!(undeclared(Some("t"), KeyRule::None).is_ok());
    }
}
