//! Events from the fields of a request: an order, or a cancellation. Pure, but for the clock's
//! reading, which is an argument.

use crate::http::{FieldError, Problem, ProblemKind};
use crate::post::NewEvent;
use evenkeel::event::{EventType, new_id};
use serde_json::value::to_raw_value;
use serde_json::{Map, Value};
use shop_schemas::{OrderCancelled, OrderPlaced};

/// The members that a caller may set. The gateway computes the others.
const ORDER_MEMBERS: [&str; 5] = [
    "order_id",
    "customer_id",
    "lines",
    "total_cents",
    "placed_at",
];

/// The event that places the order of a request's data. The order's id is the event's key.
///
/// Missing members are added: a new `order_id`, the `total_cents` of the lines, and `now` as
/// `placed_at`. A given total must be that of the lines. With an event id, `order_id` and
/// `placed_at` must be given, because a repetition must have the same content. Numbers are written
/// without fraction and exponent: for the schema `2.0` is an integer, but consumers cannot decode
/// it as one.
///
/// # Errors
/// With pointers to what is wrong. The event's schema is checked when it is posted.
pub fn placement(
    data: Value,
    event_id: Option<String>,
    now: jiff::Timestamp,
) -> Result<NewEvent, Problem> {
    let mut order = object(data)?;
    known_members(&order, &ORDER_MEMBERS)?;
    if event_id.is_some() {
        for member in ["order_id", "placed_at"] {
            if !order.contains_key(member) {
                let detail = "is required with an event id, so that a repetition of the request \
                              has the same content";
                return Err(invalid(&format!("/{member}"), detail));
            }
        }
    }
    whole_numbers(&order)?;
    let order_id = match order.get("order_id") {
        None => format!("o-{}", new_id()),
        Some(Value::String(order_id)) => order_id.clone(),
        Some(_) => return Err(invalid("/order_id", "is not a string")),
    };
    order.insert("order_id".to_owned(), order_id.into());
    if let Some(total) = total_cents(order.get("lines")) {
        match order.get("total_cents").and_then(Value::as_u64) {
            Some(given) if given != total => {
                return Err(invalid("/total_cents", "is not the total of the lines"));
            }
            Some(_) => {}
            None if order.contains_key("total_cents") => {}
            None => {
                order.insert("total_cents".to_owned(), total.into());
            }
        }
    }
    let placed_at = || Value::from(format!("{now:.3}"));
    order.entry("placed_at").or_insert_with(placed_at);
    event(OrderPlaced::TYPE, event_id, order)
}

/// The event that cancels this order, for the reason in the request's data.
///
/// # Errors
/// As for [`placement`].
pub fn cancellation(
    order_id: &str,
    data: Value,
    event_id: Option<String>,
) -> Result<NewEvent, Problem> {
    let mut cancelled = object(data)?;
    known_members(&cancelled, &["reason"])?;
    cancelled.insert("order_id".to_owned(), order_id.into());
    event(OrderCancelled::TYPE, event_id, cancelled)
}

fn object(data: Value) -> Result<Map<String, Value>, Problem> {
    match data {
        Value::Object(object) => Ok(object),
        _ => Err(invalid("", "is not a JSON object")),
    }
}

/// A misspelt member would be ignored by all consumers, so it is refused.
fn known_members(object: &Map<String, Value>, known: &[&str]) -> Result<(), Problem> {
    let is_unknown = |name: &&String| !known.contains(&name.as_str());
    let unknown = object.keys().filter(is_unknown).take(20);
    let errors: Vec<FieldError> = unknown
        .map(|name| FieldError {
            pointer: format!("/{}", name.replace('~', "~0").replace('/', "~1")),
            detail: format!("is unknown; known are {}", known.join(", ")),
        })
        .collect();
    if errors.is_empty() {
        return Ok(());
    }
    let problem = Problem::new(ProblemKind::InvalidEvent, "the request has unknown members");
    Err(problem.with_errors(errors))
}

/// Refuses numbers that are written as no integer. What is no number is left to the schema.
fn whole_numbers(order: &Map<String, Value>) -> Result<(), Problem> {
    let lines = order.get("lines").and_then(Value::as_array);
    let lines = lines.into_iter().flatten().enumerate();
    let of_lines = lines.flat_map(|(index, line)| {
        ["quantity", "price_cents"]
            .map(|member| (format!("/lines/{index}/{member}"), line.get(member)))
    });
    let total = ("/total_cents".to_owned(), order.get("total_cents"));
    let of_order = of_lines.chain([total]);
    let is_fraction = |value: Option<&Value>| value.is_some_and(Value::is_f64);
    let errors: Vec<FieldError> = of_order
        .filter(|(_, value)| is_fraction(*value))
        .take(20)
        .map(|(pointer, _)| FieldError {
            pointer,
            detail: "must be a whole number without fraction or exponent".to_owned(),
        })
        .collect();
    if errors.is_empty() {
        return Ok(());
    }
    let problem = Problem::new(ProblemKind::InvalidEvent, "the request is invalid");
    Err(problem.with_errors(errors))
}

/// The total of the lines. None if they are not as the schema says, which is checked later.
fn total_cents(lines: Option<&Value>) -> Option<u64> {
    lines?.as_array()?.iter().try_fold(0_u64, |total, line| {
        let price = line.get("price_cents")?.as_u64()?;
        let quantity = line.get("quantity")?.as_u64()?;
        total.checked_add(price.checked_mul(quantity)?)
    })
}

fn event(
    ty: &str,
    event_id: Option<String>,
    data: Map<String, Value>,
) -> Result<NewEvent, Problem> {
    let data = to_raw_value(&data).map_err(|_| invalid("", "cannot be written as JSON"))?;
    Ok(NewEvent::new(ty, data).with_id(event_id))
}

fn invalid(pointer: &str, detail: &str) -> Problem {
    let error = FieldError {
        pointer: pointer.to_owned(),
        detail: detail.to_owned(),
    };
    Problem::new(ProblemKind::InvalidEvent, "the request is invalid").with_errors(vec![error])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: jiff::Timestamp = jiff::Timestamp::UNIX_EPOCH;

    fn placed(body: &Value, id: Option<&str>) -> Result<Value, String> {
        match placement(body.clone(), id.map(str::to_owned), NOW) {
            Ok(event) => Ok(serde_json::from_str(event.data.get()).expect("JSON")),
            Err(problem) => {
                let first = problem.errors.first();
                Err(first.map_or(String::new(), |error| error.pointer.clone()))
            }
        }
    }

    #[test]
    fn what_a_caller_omits_is_computed() {
        let lines = json!([{"article": "a", "quantity": 2, "price_cents": 150}]);
        let order = json!({"customer_id": "c-1", "lines": lines});
        let data = placed(&order, None).expect("an order");
        assert_eq!(data["total_cents"], 300);
        assert_eq!(data["placed_at"], "1970-01-01T00:00:00.000Z");
        let order_id = data["order_id"].as_str().expect("an id");
        assert!(order_id.starts_with("o-"), "{order_id}");
    }

    #[test]
    fn contradictions_are_refused_with_their_pointer() {
        let lines = json!([{"article": "a", "quantity": 2, "price_cents": 150}]);
        for (order, id, pointer) in [
            (
                json!({"lines": lines, "total_cents": 299}),
                None,
                "/total_cents",
            ),
            (
                json!({"lines": lines, "totalCents": 300}),
                None,
                "/totalCents",
            ),
            (json!({"order_id": 7, "lines": lines}), None, "/order_id"),
            (json!({"lines": lines}), Some("e-1"), "/order_id"),
            (
                json!({"order_id": "o-1", "lines": lines}),
                Some("e-1"),
                "/placed_at",
            ),
            (json!([]), None, ""),
            (
                json!({"lines": lines, "total_cents": 299.0}),
                None,
                "/total_cents",
            ),
            (
                json!({"lines": [{"article": "a", "quantity": 2.0, "price_cents": 150}]}),
                None,
                "/lines/0/quantity",
            ),
            (
                json!({"lines": [{"article": "a", "quantity": 2, "price_cents": 1e2}]}),
                None,
                "/lines/0/price_cents",
            ),
        ] {
            assert_eq!(placed(&order, id), Err(pointer.to_owned()), "{order}");
        }
    }

    #[test]
    fn what_is_no_number_is_left_to_the_schema() {
        for line in [
            json!({"quantity": "2.0", "price_cents": null}),
            json!({"quantity": -1}),
            json!(2.5),
        ] {
            let order = json!({"lines": [line]});
            assert!(placed(&order, None).is_ok(), "{order}");
        }
    }

    #[test]
    fn totals_that_overflow_are_left_to_the_schema() {
        let line = json!({"article": "a", "quantity": 2, "price_cents": u64::MAX});
        let data = placed(&json!({"lines": [line]}), None).expect("an order");
        assert!(data.get("total_cents").is_none());
    }
}
