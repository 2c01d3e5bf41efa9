//! What operators hear of how the inbox recognises events: copies that had no effect, other events under an id that it knows, and
//! events that come too late to tell.
//!
//! Owns three metrics and two log lines. Changes nothing of how a delivery goes: what may be a copy was handled, as the store could
//! not know better.

use super::{Context, DeadReason, Outcome, Stage};
use crate::recovery::dead_letter::known_first_failure;
use crate::telemetry::{Line, Metric};
use jiff::Timestamp;
use std::time::Duration;

/// A line of a kind comes that often at most: a replay of old letters brings thousands.
const LINE_INTERVAL: Duration = Duration::from_secs(60);

/// The inbox knew the event: its effect is there already.
pub(super) fn suppressed(context: &Context) {
    count(Metric::Duplicates, context);
}

/// What is done with an event whose source and id the inbox knows from an event of other content. Either way it has no effect,
/// is counted, and named in a warning.
///
/// It is another event where a producer gives an id twice: a counter that began anew, a key in the place of an id. It is the same
/// event where a producer made it a second time for one cause, and not byte for byte: a handler without an inbox that publishes
/// the present time, say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReusedIds {
    /// It is taken for a copy: its effect is suppressed.
    #[default]
    Suppress,
    /// It is a dead letter of the stage [`Stage::Inbox`].
    DeadLetter,
}

/// The inbox knows the id from an event of other content.
pub(super) fn reused(context: &Context) -> Outcome {
    count(Metric::ReusedIds, context);
    if let Some(unsaid) = context.said().reused.due(LINE_INTERVAL) {
        let (source, id) = context.identity();
        tracing::warn!(
            group = context.group(),
            handler = context.handler(),
            record = ?context.record(),
            source,
            id,
            unsaid,
            "an event has no effect, as its id was completed before with other content: give each event an id of its own. \
             Router::with_reused_ids makes dead letters of such events"
        );
    }
    match context.reused_ids() {
        ReusedIds::Suppress => Outcome::Duplicate,
        ReusedIds::DeadLetter => Outcome::Dead(DeadReason::new(
            Stage::Inbox,
            "its id was completed before with other content: it is another event of the same id",
        )),
    }
}

/// An event that the inbox took for new is completed. It may be a copy all the same if the store has forgotten completions from
/// after the record was written.
pub(super) fn completed(context: &Context) {
    let inbox = context.inbox();
    let Some(before_ms) = inbox.and_then(|inbox| inbox.forgotten_before_ms()) else {
        return;
    };
    // A replay to its source is a young record of an event that other groups may have handled when it failed in one.
    let record = context.record();
    let failed = known_first_failure(record, Timestamp::now()).map(Timestamp::as_millisecond);
    let Some(known_ms) = record.timestamp_ms().into_iter().chain(failed).min() else {
        return;
    };
    if known_ms < before_ms {
        let late = LateEventHandled {
            context,
            known_ms,
            before_ms,
        };
        late.tell();
    }
}

fn count(metric: Metric, context: &Context) {
    let labels = [
        ("group", context.group().to_owned()),
        ("handler", context.handler().to_owned()),
    ];
    metrics::counter!(metric.name(), &labels).increment(1);
}

/// An event was handled as new that is older than what the inbox remembers.
struct LateEventHandled<'a> {
    context: &'a Context,
    known_ms: i64,
    before_ms: i64,
}

impl LateEventHandled<'_> {
    fn tell(&self) {
        count(Metric::PossibleDuplicates, self.context);
        let Some(unsaid) = self.context.said().late.due(LINE_INTERVAL) else {
            return;
        };
        let (source, id) = self.context.identity();
        let record = self.context.record();
        tracing::warn!(
            group = self.context.group(),
            handler = self.context.handler(),
            ?record,
            source,
            id,
            since = %time(self.known_ms),
            forgotten_before = %time(self.before_ms),
            unsaid,
            "an event was handled as new that is older than what the inbox remembers: if it was handled before, its effect is \
             there twice. Look at what brought it again (a replay, offsets that were set back), and keep the inbox's rows for \
             longer than that can be"
        );
    }
}

fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |at| at.to_string())
}

/// What was said.
#[derive(Default)]
pub(super) struct Said {
    late: Line,
    reused: Line,
}

#[cfg(test)]
mod tests {
    use crate::event::{EventType, Headers, RecordBatchBuilder};
    use crate::handler::{BatchSettings, Delivered, Delivery, Outcome, Router, Scope};
    use crate::inbox::{BoxFuture, Claimed, Inbox, InboxError, InboxKey, MemoryInbox};
    use crate::telemetry::captured::capture;
    use std::sync::Arc;
    use tower::Service;

    /// What the store has forgotten.
    const BEFORE_MS: i64 = 1_700_000_000_000;

    #[derive(serde::Deserialize, serde::Serialize)]
    struct Paid {}

    impl EventType for Paid {
        const TYPE: &'static str = "test.paid.v1";
        const TOPIC: &'static str = "test.payments";

        fn key(&self) -> String {
            "account".to_owned()
        }
    }

    struct Forgetful(MemoryInbox, Option<i64>);

    impl Inbox for Forgetful {
        fn claim<'a>(&'a self, key: &'a InboxKey) -> BoxFuture<'a, Result<Claimed, InboxError>> {
            self.0.claim(key)
        }

        fn forgotten_before_ms(&self) -> Option<i64> {
            self.1
        }
    }

    fn routers(before_ms: Option<i64>) -> [Router; 2] {
        let forgetful = || Forgetful(MemoryInbox::default(), before_ms);
        let one = Router::new().on_named("payer", async |_: crate::event::Event<Paid>| {});
        let many = Router::new().on_batch_named(
            "payer",
            BatchSettings::default(),
            async |_: Vec<Delivered<Paid>>| {},
        );
        [one.with_inbox(forgetful()), many.with_inbox(forgetful())]
    }

    fn delivery(id: &str, timestamp_ms: i64, first_failure: Option<&str>) -> Delivery {
        let mut headers = Headers::new();
        for (name, value) in [
            ("ce_specversion", Some("1.0")),
            ("ce_id", Some(id)),
            ("ce_source", Some("/test")),
            ("ce_type", Some(Paid::TYPE)),
            ("evenkeel.dlq.first-failure", first_failure),
        ] {
            if let Some(value) = value {
                headers.push(name, Some(value.as_bytes()));
            }
        }
        let mut batch = RecordBatchBuilder::new();
        let source = batch.source(Paid::TOPIC.into(), 3);
        batch.push(source, 42, timestamp_ms, None, Some(b"{}"), headers.iter());
        Delivery {
            record: batch.build(None).record(0).unwrap(),
            attempt: 1,
            scope: Arc::new(Scope {
                group: "payments".to_owned(),
                publisher: None,
                handler_timeout: None,
            }),
        }
    }

    /// What is counted and logged of these deliveries, one after the other.
    fn told(mut router: Router, deliveries: Vec<Delivery>) -> (String, String) {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let run = || {
            runtime.unwrap().block_on(async {
                for delivery in deliveries {
                    let Ok(outcome) = router.call(delivery).await;
                    assert!(
                        matches!(outcome, Outcome::Done | Outcome::Duplicate),
                        "{outcome:?}"
                    );
                }
            });
        };
        let log = capture(tracing_subscriber::fmt(), || {
            metrics::with_local_recorder(&recorder, run);
        });
        (recorder.handle().render(), log)
    }

    #[test]
    fn what_is_older_than_the_inbox_remembers_is_counted_and_named() {
        let check = |before_ms, timestamp_ms, first_failure, is_late: bool| {
            for router in routers(before_ms) {
                let delivery = delivery("4711", timestamp_ms, first_failure);
                let (counted, log) = told(router, vec![delivery]);
                let case =
                    format!("{before_ms:?} {timestamp_ms} {first_failure:?}: {counted} {log}");
                let expected =
                    "evenkeel_duplicates_possible_total{group=\"payments\",handler=\"payer\"} 1\n";
                assert_eq!(counted.contains(expected), is_late, "{case}");
                let named = ["test.payments/3@42", "\"4711\"", "2023-11-14T22:13:20Z"];
                let is_named = named.iter().all(|named| log.contains(named));
                assert_eq!(is_named, is_late, "{case}");
            }
        };
        let before = Some(BEFORE_MS);
        check(before, BEFORE_MS - 1, None, true);
        check(before, BEFORE_MS, None, false);
        check(before, -1, None, false);
        check(None, BEFORE_MS - 1, None, false);
        // A dead letter that goes to its source again is written anew.
        check(before, BEFORE_MS, Some("2023-11-14T22:13:19Z"), true);
        check(before, BEFORE_MS, Some("2023-11-14T22:13:20Z"), false);
        check(before, BEFORE_MS, Some("2999-01-01T00:00:00Z"), false);
    }

    #[test]
    fn a_recognised_copy_is_counted_and_not_called_late() {
        for router in routers(None) {
            let copies = vec![delivery("1", 0, None), delivery("1", 0, None)];
            let (counted, log) = told(router, copies);
            let expected =
                "evenkeel_duplicates_suppressed_total{group=\"payments\",handler=\"payer\"} 1\n";
            assert!(counted.contains(expected), "{counted}");
            assert!(!counted.contains("possible"), "{counted}");
            assert_eq!(log, "");
        }
    }

    #[test]
    fn thousands_of_late_events_are_all_counted_and_have_one_line() {
        for router in routers(Some(BEFORE_MS)) {
            let ids = (0..1_000).map(|id| delivery(&id.to_string(), 0, None));
            let (counted, log) = told(router, ids.collect());
            assert!(counted.contains("\"payer\"} 1000\n"), "{counted}");
            assert_eq!(log.lines().count(), 1, "{log}");
        }
    }
}
