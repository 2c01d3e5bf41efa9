//! The validity rules of the W3C specification, one row each.

use super::*;

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn context(traceparent: &[u8], tracestate: Option<&[u8]>) -> Option<TraceContext> {
    let mut headers = Headers::new();
    headers.push(TRACEPARENT, Some(traceparent));
    if let Some(tracestate) = tracestate {
        headers.push(TRACESTATE, Some(tracestate));
    }
    TraceContext::from_headers(headers.iter())
}

#[test]
fn a_valid_traceparent_is_read_unchanged() {
    for traceparent in [
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff",
        "00-00000000000000000000000000000001-0000000000000001-00",
        "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-holds",
    ] {
        let context = context(traceparent.as_bytes(), None).expect(traceparent);
        assert_eq!(context.traceparent, traceparent);
        assert_eq!(context.tracestate, None);
    }
}

#[test]
fn a_malformed_traceparent_is_no_context() {
    for traceparent in [
        "",
        "00",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
        "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "0g-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00F067AA0BA902B7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
        "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
        " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-+1",
        "00-4bf92f3577b34da6a3ce929d0e0e473ß-00f067aa0ba902b7-01",
    ] {
        assert_eq!(
            context(traceparent.as_bytes(), Some(b"a=b")),
            None,
            "{traceparent}"
        );
    }
    assert_eq!(context(b"\xff\xfe", None), None);
}

#[test]
fn the_last_traceparent_counts() {
    let mut headers = Headers::new();
    let valid = format!("00-{TRACE_ID}-00f067aa0ba902b7-01");
    headers.push(TRACEPARENT, Some(valid.as_bytes()));
    assert!(TraceContext::from_headers(headers.iter()).is_some());
    headers.push(TRACEPARENT, Some(b"broken"));
    assert_eq!(TraceContext::from_headers(headers.iter()), None);
}

#[test]
fn a_child_keeps_flags_and_tracestate_under_a_new_span() {
    let traceparent = format!("00-{TRACE_ID}-00f067aa0ba902b7-03");
    let parent = context(traceparent.as_bytes(), Some(b"vendor=1,other=2")).expect("valid");
    let child = parent.child();

    let fields: Vec<_> = child.traceparent.split('-').collect();
    assert_eq!((fields[0], fields[1], fields[3]), ("00", TRACE_ID, "03"));
    assert_ne!(fields[2], "00f067aa0ba902b7");
    assert!(Parent::parse(&child.traceparent).is_some());
    assert_eq!(child.tracestate.as_deref(), Some("vendor=1,other=2"));
    assert_ne!(parent.child(), child);
}

/// It keeps the flags that version 00 knows.
#[test]
fn a_child_of_a_later_version_uses_version_00() {
    let traceparent = format!("cc-{TRACE_ID}-00f067aa0ba902b7-fd-future");
    let child = context(traceparent.as_bytes(), None)
        .expect("valid")
        .child();
    assert!(child.traceparent.starts_with(&format!("00-{TRACE_ID}-")));
    assert!(child.traceparent.ends_with("-01"));
}

#[test]
fn a_child_of_an_invalid_context_is_a_root() {
    let broken = TraceContext {
        traceparent: "nonsense".to_owned(),
        tracestate: Some("vendor=1".to_owned()),
    };
    let child = broken.child();
    assert!(Parent::parse(&child.traceparent).is_some());
    assert_eq!(child.tracestate, None);
}

#[test]
fn roots_are_valid_sampled_and_differ() {
    let (one, other) = (TraceContext::root(), TraceContext::root());
    for root in [&one, &other] {
        assert_eq!(Parent::parse(&root.traceparent).expect("valid").flags, 1);
    }
    assert_ne!(one.traceparent, other.traceparent);
}

#[test]
fn a_tracestate_that_is_empty_or_no_text_is_dropped() {
    let traceparent = format!("00-{TRACE_ID}-00f067aa0ba902b7-01");
    for tracestate in [&b""[..], b"\xff"] {
        let context = context(traceparent.as_bytes(), Some(tracestate)).expect("valid");
        assert_eq!(context.tracestate, None);
    }
}

#[test]
fn what_is_written_is_read_again() {
    let mut context = TraceContext::root();
    context.tracestate = Some("vendor=1".to_owned());
    let mut headers = Headers::new();
    context.write(&mut headers);
    assert_eq!(TraceContext::from_headers(headers.iter()), Some(context));
}

#[test]
fn an_id_of_zeros_is_drawn_again() {
    let mut draws = [0_u64, 0, 7].into_iter();
    assert_eq!(
        nonzero(|| draws.next().expect("stops at the first that is not zero")),
        7
    );
}

#[test]
fn a_long_tracestate_keeps_the_first_members_that_fit() {
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let kept = |state: &str| {
        let mut headers = Headers::new();
        headers.push("traceparent", Some(traceparent.as_bytes()));
        headers.push("tracestate", Some(state.as_bytes()));
        let context = TraceContext::from_headers(headers.iter()).expect("valid");
        context.child().tracestate
    };
    let member = |name: char, length: usize| format!("{name}={}", "x".repeat(length - 2));
    let (a, b, long) = (member('a', 100), member('b', 128), member('l', 129));
    let exactly = format!("{b},{b},{b},{}", member('c', 125));
    assert_eq!(exactly.len(), 512);
    for (state, expected) in [
        (exactly.clone(), Some(exactly.clone())),
        (format!("{exactly},d=1"), Some(exactly)),
        (
            format!("{long},{a},{b},{long},{b},{b},{a}"),
            Some(format!("{a},{b},{b},{b}")),
        ),
        ("x".repeat(900_000), None),
        ("\u{e4}".repeat(300), None),
    ] {
        assert_eq!(kept(&state), expected, "{state:.20}");
    }
}
