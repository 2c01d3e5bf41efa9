//! A failure that names a wait is tried again no sooner, and holds up its own key only.

use crate::support::{Case, Log, Member};
use evenkeel::event::Record;
use evenkeel::handler::{HandlerError, Router};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_waits_as_long_as_its_failure_asks() {
    let Some(case) = Case::new("it-retry-after", 1).await else {
        return;
    };
    let wait = Duration::from_secs(3);
    let records = ["limited", "other", "limited"].map(|key| case.record(Some(key), key));
    case.publish(records).await;
    let calls: Log<(String, Instant)> = Log::new();
    let called = calls.clone();
    let router = Router::new().raw(move |record: Record| {
        let calls = called.clone();
        async move {
            let key = String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned();
            let is_first = record.offset() == 0 && calls.entries().iter().all(|(of, _)| *of != key);
            calls.push((key, Instant::now()));
            match is_first {
                true => Err(HandlerError::transient("429: too many requests").retry_after(wait)),
                false => Ok(()),
            }
        }
    });
    let member = Member::start(&case.kafka, case.settings(), router);
    case.all_committed().await;
    let report = member.stop().await;
    assert_eq!(
        (report.settled, report.parked, report.dead_letters),
        (3, 0, 0)
    );
    let calls = calls.entries();
    let of = |key: &'static str| calls.iter().filter(move |(of, _)| of == key);
    let limited: Vec<Instant> = of("limited").map(|(_, at)| *at).collect();
    assert_eq!(limited.len(), 3, "one failure, two successes: {calls:?}");
    let waited = limited[1] - limited[0];
    assert!(waited >= wait && waited < 3 * wait, "{waited:?}");
    let other = of("other").next().expect("the other record is handled").1;
    assert!(other < limited[1], "the other key goes on meanwhile");
}
