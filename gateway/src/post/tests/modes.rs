//! The modes of the HTTP binding, with requests as clients send them.

use super::*;

const SPEC: (&str, &str) = ("ce-specversion", "1.0");
const TYPE: (&str, &str) = ("ce-type", OPENED);
const DATA: &str = r#"{"account":"a-1"}"#;

/// The event of a request is accepted, and has these members. `null` is an absent one.
async fn accepts(
    path: &str,
    content_type: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
    expected: Value,
) {
    let gateway = Gateway::new();
    let answer = gateway.post(path, content_type, headers, body).await;
    assert_eq!(answer.status, 202, "{expected}: {answer:?}");
    let accepted = gateway.accepted();
    let [event] = accepted.as_slice() else {
        panic!("{expected}: {} events", accepted.len())
    };
    let found = published(event);
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(
            found.get(name).unwrap_or(&Value::Null),
            value,
            "{name} of {found}"
        );
    }
    assert_eq!(answer.body["id"], found["id"]);
    assert_eq!(answer.body["source"], "/callers/web");
}

/// A request is refused with this status and these pointers, and nothing is accepted.
async fn refuses(
    path: &str,
    content_type: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
    (status, expected): (u16, &[&str]),
) {
    let gateway = Gateway::new();
    let answer = gateway.post(path, content_type, headers, body).await;
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert_eq!(pointers(&answer.body), expected, "{answer:?}");
    assert_eq!(gateway.accepted().len(), 0);
}

/// Structured events with these members beside type and data.
fn structured(members: &str) -> String {
    let comma = if members.is_empty() { "" } else { "," };
    format!(r#"{{"specversion":"1.0","type":"{OPENED}","data":{DATA}{comma}{members}}}"#)
}

async fn accepts_structured(members: &str, expected: Value) {
    accepts("/events", STRUCTURED, &[], structured(members), expected).await;
}

async fn refuses_body(body: impl Into<Body>, expected: (u16, &[&str])) {
    refuses("/events", STRUCTURED, &[], body, expected).await;
}

#[tokio::test]
async fn structured_events_are_accepted() {
    let source = r#""id":"1","source":"/callers/web","#;
    let full = format!(
        r#"{source}"subject":"accounts/a-1","time":"2018-04-05T17:31:00+02:00",
           "datacontenttype":"application/json","comexampleextension1":"value",
           "comexampleothervalue":5"#
    );
    accepts_structured(
        &full,
        json!({
            "type": OPENED, "id": "1", "source": "/callers/web", "subject": "accounts/a-1",
            "time": "2018-04-05T15:31:00Z", "datacontenttype": JSON, "data": DATA,
            "comexampleextension1": "value", "comexampleothervalue": "5",
        }),
    )
    .await;
    accepts_structured("", json!({"source": "/callers/web", "subject": null})).await;
    // An absent attribute may be null, as in the JSON format's example.
    accepts_structured(r#""subject":null,"id":null,"x":null"#, json!({"x": null})).await;
    accepts_structured(
        r#""x":true,"y":-2,"z":1.5"#,
        json!({"x":"true","y":"-2","z":"1.5"}),
    )
    .await;
    accepts_structured(r#""id":"\u0061""#, json!({"id": "a"})).await;
    let vendor = r#""datacontenttype":"application/vnd.bank+json;charset=utf-8""#;
    accepts_structured(vendor, json!({"datacontenttype": JSON})).await;
    accepts_structured(
        r#""traceparent":"forged","traceid":"x""#,
        json!({"traceparent": null}),
    )
    .await;
    let charset = "application/cloudevents+json; charset=UTF-8";
    accepts(
        "/events",
        charset,
        &[],
        structured(""),
        json!({"data": DATA}),
    )
    .await;
    let marked = format!("\u{feff}{}", structured(""));
    accepts("/events", STRUCTURED, &[], marked, json!({"data": DATA})).await;
    // Headers of the event may be there too, and do not count.
    let headers = [("ce-id", "other"), ("ce-type", "other")];
    accepts(
        "/events",
        STRUCTURED,
        &headers,
        structured(r#""id":"1""#),
        json!({"id": "1"}),
    )
    .await;
}

#[tokio::test]
async fn data_keeps_its_text() {
    for data in [
        r#"{ "account" : "a-1", "n": 123456789012345678901234567890 }"#,
        r#"{"account":"a-1","n":1.50,"m":1e2}"#,
        r#"{"z":1,"account":"\u0061-1","a":[1, 2]}"#,
    ] {
        let body = format!(r#"{{"specversion":"1.0","type":"{OPENED}","data": {data} }}"#);
        accepts("/events", STRUCTURED, &[], body, json!({"data": data})).await;
        let path = format!("/events/{OPENED}");
        accepts(
            &path,
            JSON,
            &[],
            format!(" {data}\n"),
            json!({"data": data}),
        )
        .await;
    }
}

#[tokio::test]
async fn base64_data_is_json() {
    let event = |members: &str| format!(r#"{{"specversion":"1.0","type":"{OPENED}",{members}}}"#);
    let encoded = "eyJhY2NvdW50IjoiYS0xIn0=";
    for members in [
        format!(r#""data_base64":"{encoded}""#),
        format!(r#""data_base64":"{encoded}","data":null"#),
        format!(r#""data_base64":null,"data":{DATA}"#),
        // Encoders of other languages escape characters of Base64.
        r#""data_base64":"eyJhY2NvdW50IjoiYS0xIn0\u003D""#.to_owned(),
    ] {
        accepts(
            "/events",
            STRUCTURED,
            &[],
            event(&members),
            json!({"data": DATA}),
        )
        .await;
    }
    for (members, status) in [
        (format!(r#""data_base64":"{encoded}","data":{{}}"#), 400),
        (r#""data_base64":"eyJhY2NvdW50IjoiYS0xIn0""#.to_owned(), 400),
        (r#""data_base64":"not base64""#.to_owned(), 400),
        (r#""data_base64":"_w==""#.to_owned(), 400),
        (r#""data_base64":"/w==""#.to_owned(), 400),
        (r#""data_base64":"aGVsbG8=""#.to_owned(), 400),
        (r#""data_base64":"""#.to_owned(), 400),
        (
            r#""data_base64":{"type":"Buffer","data":[1]}"#.to_owned(),
            400,
        ),
        // `{}`, which violates the schema.
        (r#""data_base64":"e30=""#.to_owned(), 422),
    ] {
        refuses_body(event(&members), (status, &["/data_base64"])).await;
    }
}

#[tokio::test]
async fn malformed_structured_events_are_refused_with_pointers() {
    for (members, pointer) in [
        (r#""id":7"#, "/id"),
        (r#""id":"""#, "/id"),
        (r#""id":"a\nb""#, "/id"),
        (r#""id":"\ud800""#, "/id"),
        (r#""source":["/callers/web"]"#, "/source"),
        (r#""subject":"""#, "/subject"),
        (r#""time":"yesterday""#, "/time"),
        (r#""time":1522949460"#, "/time"),
        (r#""datacontenttype":"text/xml""#, "/datacontenttype"),
        (
            r#""dataschema":"https://example.com/schema""#,
            "/dataschema",
        ),
        (r#""tenantId":"x""#, "/tenantId"),
        (r#""my-ext":"x""#, "/my-ext"),
        (r#""a/b":"x""#, "/a~1b"),
        (r#""ext":{"a":1}"#, "/ext"),
        (r#""ext":[1]"#, "/ext"),
        (r#""evenkeelattempt":"1""#, "/evenkeelattempt"),
        (r#""Data":{}"#, "/Data"),
        // Readers differ in which of the two counts.
        (r#""id":"1","id":"2""#, "/id"),
        (r#""data":{"account":"a-2"}"#, "/data"),
        (r#""\u0064ata":{"account":"a-2"}"#, "/data"),
    ] {
        refuses_body(structured(members), (400, &[pointer])).await;
    }
    refuses_body(structured(r#""id":7,"time":"x""#), (400, &["/id"])).await;
    refuses_body(
        structured(r#""subject":"","time":"x""#),
        (400, &["/subject", "/time"]),
    )
    .await;
}

#[tokio::test]
async fn events_without_a_mandatory_member_are_refused() {
    let ty = format!(r#""type":"{OPENED}""#);
    for (body, pointers) in [
        (format!(r#"{{{ty},"data":{DATA}}}"#), &["/specversion"][..]),
        (
            format!(r#"{{"specversion":"0.3",{ty},"data":{DATA}}}"#),
            &["/specversion"][..],
        ),
        (
            format!(r#"{{"specversion":1.0,{ty},"data":{DATA}}}"#),
            &["/specversion"][..],
        ),
        (
            format!(r#"{{"specversion":"1.0","data":{DATA}}}"#),
            &["/type"][..],
        ),
        (
            format!(r#"{{"specversion":"1.0","type":"","data":{DATA}}}"#),
            &["/type"][..],
        ),
        (format!(r#"{{"specversion":"1.0",{ty}}}"#), &["/data"][..]),
        ("{}".to_owned(), &["/data", "/specversion", "/type"][..]),
        ("[]".to_owned(), &[""][..]),
        ("\"{}\"".to_owned(), &[""][..]),
        ("{".to_owned(), &[""][..]),
        (format!("{} x", structured("")), &[""][..]),
        ("\u{feff}\u{feff}{}".to_owned(), &[""][..]),
        (String::new(), &[""; 0][..]),
    ] {
        refuses_body(body, (400, pointers)).await;
    }
    refuses_body(&b"{\"id\":\"\xE9\"}"[..], (400, &[])).await;
}

#[tokio::test]
async fn too_many_members_are_refused() {
    let members: Vec<_> = (0..100).map(|n| format!(r#""x{n}":"1""#)).collect();
    refuses_body(structured(&members.join(",")), (400, &["/x61"])).await;
    refuses_body(
        structured(&members[..17].join(",")),
        (400, &["/extensions"]),
    )
    .await;
    accepts_structured(&members[..16].join(","), json!({"x15": "1"})).await;
}

#[tokio::test]
async fn binary_events_are_accepted() {
    let headers = [
        ("CE-SpecVersion", "1.0"),
        ("Ce-Type", OPENED),
        ("ce-id", "partition:1/offset:23"),
        ("ce-source", "/callers/web"),
        ("ce-subject", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
        ("ce-time", "\"2020-05-07T14:16:30.245Z\""),
        ("ce-knativearrivaltime", "2021-11-17T22:48:50.315578709Z"),
        ("ce-traceparent", "forged"),
    ];
    accepts(
        "/events",
        "application/json; charset=utf-8",
        &headers,
        DATA,
        json!({
            "type": OPENED, "id": "partition:1/offset:23", "subject": "Euro € 😀",
            "time": "2020-05-07T14:16:30.245Z", "data": DATA, "datacontenttype": JSON,
            "knativearrivaltime": "2021-11-17T22:48:50.315578709Z", "traceparent": null,
        }),
    )
    .await;
    let raw = [SPEC, TYPE, ("ce-subject", "é"), ("ce-rate", "100%")];
    let expected = json!({"subject": "é", "rate": "100%"});
    accepts("/events", "application/vnd.x+json", &raw, DATA, expected).await;
    let marked = format!("\u{feff}{DATA}");
    accepts(
        "/events",
        JSON,
        &[SPEC, TYPE],
        marked,
        json!({"data": DATA}),
    )
    .await;
}

#[tokio::test]
async fn malformed_binary_events_are_refused() {
    let no_headers: &[(&str, &str)] = &[];
    for (headers, count) in [
        // An event in the body, but not its content type.
        (no_headers, 2),
        (&[TYPE][..], 1),
        (&[SPEC][..], 1),
        (&[("ce-specversion", "0.3"), TYPE][..], 1),
        (&[("ce-specversion", "1.0"), SPEC, TYPE][..], 1),
        (&[SPEC, TYPE, ("ce-id", "%C0%A0")][..], 1),
        (&[SPEC, TYPE, ("ce-id", "\"1")][..], 1),
        (&[SPEC, TYPE, ("ce-id", "1"), ("ce-id", "2")][..], 1),
        (&[SPEC, TYPE, ("ce-id", "")][..], 1),
        (&[SPEC, TYPE, ("ce-id", "a%0Ab")][..], 1),
        (&[SPEC, TYPE, ("ce-time", "now")][..], 1),
        (&[SPEC, TYPE, ("ce-my-ext", "1")][..], 1),
        (&[SPEC, TYPE, ("ce-", "1")][..], 1),
        (&[SPEC, TYPE, ("ce-dataschema", "x")][..], 1),
        (
            &[SPEC, TYPE, ("ce-datacontenttype", "application/json")][..],
            1,
        ),
        (&[SPEC, TYPE, ("ce-kafkaheadercontenttype", "1")][..], 1),
    ] {
        let pointers = vec![""; count];
        refuses("/events", JSON, headers, structured(""), (400, &pointers)).await;
    }
    for body in ["", "\n", "{", "{}}", "hello"] {
        refuses("/events", JSON, &[SPEC, TYPE], body, (400, &[])).await;
    }
    refuses("/events", JSON, &[SPEC, TYPE], &b"\xFF"[..], (400, &[])).await;
}

#[tokio::test]
async fn data_is_posted_to_its_type() {
    let path = format!("/events/{OPENED}");
    accepts(
        &path,
        JSON,
        &[],
        DATA,
        json!({"type": OPENED, "data": DATA}),
    )
    .await;
    let encoded = "/events/bank%2Eopened.v1";
    accepts(encoded, JSON, &[], DATA, json!({"type": OPENED})).await;
    let headers = [
        ("ce-id", "1"),
        ("ce-subject", "s"),
        ("ce-time", "2020-05-07T14:16:30Z"),
    ];
    let expected = json!({"id": "1", "subject": "s", "time": "2020-05-07T14:16:30Z"});
    accepts(&path, "application/vnd.bank+json", &headers, DATA, expected).await;
    accepts(&path, JSON, &[SPEC, TYPE], DATA, json!({"type": OPENED})).await;

    refuses(
        &path,
        JSON,
        &[("ce-type", "bank.closed.v1")],
        DATA,
        (400, &[""]),
    )
    .await;
    refuses(
        &path,
        JSON,
        &[("ce-specversion", "0.3")],
        DATA,
        (400, &[""]),
    )
    .await;
    refuses("/events/bank.unknown.v1", JSON, &[], DATA, (404, &[""])).await;
    refuses("/events/%FF", JSON, &[], DATA, (400, &[])).await;
    refuses(&path, JSON, &[], r#"{"account":7}"#, (422, &["/account"])).await;
    refuses(&path, JSON, &[], "{}", (422, &["/account"])).await;
    refuses(
        &path,
        JSON,
        &[],
        r#"{"account":"a","account":"b"}"#,
        (400, &["/account"]),
    )
    .await;
    // JSON within JSON, as some clients encode it.
    refuses(&path, JSON, &[], r#""{\"account\":\"a-1\"}""#, (422, &[""])).await;
}

#[tokio::test]
async fn content_types_are_checked_before_the_body_is_read() {
    let to_type = format!("/events/{OPENED}");
    for (path, content_type) in [
        ("/events", ""),
        ("/events", "text/plain"),
        ("/events", "application/cloudevents+avro"),
        (
            "/events",
            "application/cloudevents+json; charset=iso-8859-1",
        ),
        ("/events", "application/x-www-form-urlencoded"),
        (to_type.as_str(), ""),
        (to_type.as_str(), STRUCTURED),
        (to_type.as_str(), BATCH),
        (to_type.as_str(), "text/json"),
    ] {
        let gateway = Gateway::new();
        // Reading this body would never end.
        let body = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
        let answer = gateway
            .post(path, content_type, &[], Body::from_stream(body))
            .await;
        assert_eq!(answer.status, 415, "{path} {content_type:?}");
        let accepted = answer.body["accepted"]
            .as_array()
            .expect("the accepted types");
        assert!(accepted.contains(&json!(JSON)), "{accepted:?}");
    }
    let gzip = [("content-encoding", "gzip")];
    refuses(&to_type, JSON, &gzip, DATA, (415, &[])).await;
}

#[tokio::test]
async fn bodies_are_bounded() {
    let gateway = Gateway::with_limits(PostLimits::default().with_body_bytes_max(100));
    let path = format!("/events/{OPENED}");
    for (length, status) in [(100, 202), (101, 413)] {
        let body = format!("{DATA}{}", " ".repeat(length - DATA.len()));
        let answer = gateway.post(&path, JSON, &[], body.clone()).await;
        assert_eq!(answer.status, status, "{length}");
        let declared = length.to_string();
        let headers = [("content-length", declared.as_str())];
        let answer = gateway.post(&path, JSON, &headers, body).await;
        assert_eq!(answer.status, status, "{declared} declared");
    }
}

#[tokio::test]
async fn a_batch_is_accepted_in_its_order() {
    let gateway = Gateway::new();
    let event = |id: &str, data: &str| {
        format!(r#"{{"specversion":"1.0","type":"{OPENED}","id":"{id}","data":{data}}}"#)
    };
    let body = format!(
        "[{}, {}]",
        event("b", DATA),
        event("a", r#"{"account":"a-2"}"#)
    );
    let answer = gateway.post("/events", BATCH, &[], body).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let ids: Vec<_> = gateway
        .accepted()
        .into_iter()
        .map(|event| event.id)
        .collect();
    assert_eq!(ids, ["b", "a"]);
    assert_eq!(answer.body["events"][1]["id"], "a");
    assert_eq!(
        answer.body["events"][1]["status"],
        "/events/a?source=%2Fcallers%2Fweb"
    );
    assert!(!answer.headers.contains_key("location"));
    let one = format!("[{}]", event("c", DATA));
    let answer = gateway.post("/events", BATCH, &[], one).await;
    assert_eq!(answer.body["events"][0]["id"], "c");
}

#[tokio::test]
async fn a_batch_is_accepted_whole_or_not() {
    let event = |members: &str| {
        format!(r#"{{"specversion":"1.0","type":"{OPENED}","data":{DATA},{members}}}"#)
    };
    let first = event(r#""id":"1""#);
    for (second, status, pointers) in [
        (event(r#""id":"1""#), 400, &["/1/id"][..]),
        (event(r#""time":"x","id":"2""#), 400, &["/1/time"][..]),
        (event(r#""id":7"#), 400, &["/1/id"][..]),
        (
            event(r#""specversion":"1.0""#),
            400,
            &["/1/specversion"][..],
        ),
        ("7".to_owned(), 400, &["/1"][..]),
        (
            event("").replace(",}", ",\"data\":1}"),
            400,
            &["/1/data"][..],
        ),
        (
            event(r#""id":"2""#).replace("a-1", ""),
            422,
            &["/1/data/account"][..],
        ),
        (
            event(r#""id":"2""#).replace("\"a-1\"", "7"),
            422,
            &["/1/data/account"][..],
        ),
        (event(r#""source":"/other""#), 403, &["/1/source"][..]),
        (
            event("\"id\":\"2\"").replace("opened", "unknown"),
            404,
            &["/1/type"][..],
        ),
    ] {
        let body = format!("[{first},{second}]");
        refuses("/events", BATCH, &[], body, (status, pointers)).await;
    }
    for body in ["[]", "{}", "[", "[1", "null"] {
        refuses("/events", BATCH, &[], body, (400, &[""])).await;
    }
}

#[tokio::test]
async fn batches_are_bounded() {
    let gateway = Gateway::with_limits(PostLimits::default().with_batch_max(2));
    for (count, status) in [(2, 202), (3, 413)] {
        let body = format!("[{}]", vec![structured(""); count].join(","));
        let answer = gateway.post("/events", BATCH, &[], body).await;
        assert_eq!(answer.status, status, "{count}");
    }
}
