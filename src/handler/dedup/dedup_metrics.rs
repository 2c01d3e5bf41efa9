//! Metrics and warnings about deduplication: suppressed copies, reused ids, and events older than
//! the inbox remembers.
//!
//! Owns three metrics and two log lines. Does not change the outcome of a delivery: a possible copy
//! was handled, because the store could not recognise it.

use super::reused_ids::ReusedIds;
use crate::handler::{Context, DeadReason, Outcome, Stage};
use crate::recovery::dead_letter::known_first_failure;
use crate::telemetry::Metric;
use jiff::Timestamp;
use std::time::Duration;

/// Interval between two lines of one kind: a replay of old dead letters brings thousands.
const LINE_INTERVAL: Duration = Duration::from_secs(60);

/// The inbox recognised the event: its effect exists already.
pub(in crate::handler) fn suppressed(context: &Context) {
    count(Metric::Duplicates, context);
}

/// The inbox knows the id from an event with other content.
pub(in crate::handler) fn reused(context: &Context) -> Outcome {
    count(Metric::ReusedIds, context);
    if let Some(unsaid) = context.dedup_log().reused.due(LINE_INTERVAL) {
        let (source, id) = context.identity();
        tracing::warn!(
            group = context.group(),
            handler = context.handler(),
            record = ?context.record(),
            source,
            id,
            unsaid,
            "event suppressed: its id was completed before with other content; give each event an \
             id of its own. Router::with_reused_ids can dead-letter such events instead"
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

/// An event that the inbox considered new is completed. It may still be a copy if the store has
/// forgotten completions that are newer than the record.
pub(in crate::handler) fn completed(context: &Context) {
    let inbox = context.inbox();
    let Some(before_ms) = inbox.and_then(|inbox| inbox.forgotten_before_ms()) else {
        return;
    };
    // A replay to the source topic is a young record of an event that other groups may have handled
    // when it failed in one group.
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
        late.report();
    }
}

fn count(metric: Metric, context: &Context) {
    let labels = [
        ("group", context.group().to_owned()),
        ("handler", context.handler().to_owned()),
    ];
    metrics::counter!(metric.name(), &labels).increment(1);
}

/// An event older than the inbox remembers was handled as new.
struct LateEventHandled<'a> {
    context: &'a Context,
    known_ms: i64,
    before_ms: i64,
}

impl LateEventHandled<'_> {
    fn report(&self) {
        count(Metric::PossibleDuplicates, self.context);
        let Some(unsaid) = self.context.dedup_log().late.due(LINE_INTERVAL) else {
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
            "handled an event as new that is older than the inbox remembers: if it was handled \
             before, its effect exists twice. Check why it was redelivered (a replay, offsets that \
             were reset), and keep the inbox's rows for longer than that can take"
        );
    }
}

fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use crate::event::{EventType, Headers, RecordBatchBuilder};
    use crate::handler::{BatchSettings, Delivered, Outcome, Router};
    use crate::handler::{Delivery, DeliveryScope};
    use crate::inbox::{BoxFuture, Claimed, Inbox, InboxError, InboxKey, MemoryInbox};
    use crate::telemetry::captured_log::capture;
    use std::sync::Arc;
    use tower::Service;

    /// The store has forgotten completions before this time.
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

        fn sent(&self, _: &InboxKey) {}

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
        let record = batch.build(None).record(0).unwrap();
        Delivery::new(record, 1, Arc::new(DeliveryScope::new("payments")))
    }

    /// The metrics and log lines of these deliveries, one after the other.
    fn reported(mut router: Router, deliveries: Vec<Delivery>) -> (String, String) {
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
    fn events_older_than_the_inbox_remembers_are_counted_and_named() {
        let check = |before_ms, timestamp_ms, first_failure, is_late: bool| {
            for router in routers(before_ms) {
                let delivery = delivery("4711", timestamp_ms, first_failure);
                let (counted, log) = reported(router, vec![delivery]);
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
        // A dead letter that is replayed to its source topic is a new record.
        check(before, BEFORE_MS, Some("2023-11-14T22:13:19Z"), true);
        check(before, BEFORE_MS, Some("2023-11-14T22:13:20Z"), false);
        check(before, BEFORE_MS, Some("2999-01-01T00:00:00Z"), false);
    }

    #[test]
    fn a_recognised_copy_is_counted_and_not_called_late() {
        for router in routers(None) {
            let copies = vec![delivery("1", 0, None), delivery("1", 0, None)];
            let (counted, log) = reported(router, copies);
            let expected =
                "evenkeel_duplicates_suppressed_total{group=\"payments\",handler=\"payer\"} 1\n";
            assert!(counted.contains(expected), "{counted}");
            assert!(!counted.contains("possible"), "{counted}");
            assert_eq!(log, "");
        }
    }

    #[test]
    fn thousands_of_late_events_are_counted_and_logged_once() {
        for router in routers(Some(BEFORE_MS)) {
            let ids = (0..1_000).map(|id| delivery(&id.to_string(), 0, None));
            let (counted, log) = reported(router, ids.collect());
            assert!(counted.contains("\"payer\"} 1000\n"), "{counted}");
            assert_eq!(log.lines().count(), 1, "{log}");
        }
    }
}
