//! G8: a service's own code may panic anywhere. It costs one record a dead letter, and neither a worker nor the run.

use crate::support::{Case, Handle, Log, Member};
use evenkeel::consumer::{Consumer, ConsumerSettings};
use evenkeel::event::Record;
use evenkeel::handler::{Class, Delivery, HandlerError, Outcome};
use evenkeel::kafka::reader::LogRecord;
use evenkeel::telemetry::Health;
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::panic::panic_any;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// An error whose own code panics somewhere.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rude {
    Display,
    Source,
    Drop,
    Classifier,
}

impl fmt::Display for Rude {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = "größer";
        // Inside of a character.
        f.write_str(if *self == Self::Display {
            &text[..3]
        } else {
            text
        })
    }
}

impl Error for Rude {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        assert!(*self != Self::Source, "no source");
        None
    }
}

impl Drop for Dropped {
    fn drop(&mut self) {
        assert!(self.0 != Rude::Drop, "in the drop");
    }
}

/// The error with a drop, so that `Rude` can be copied.
#[derive(Debug)]
struct Dropped(Rude);

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Dropped {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// What a panic carries, and panics itself.
struct Payload;

impl Drop for Payload {
    fn drop(&mut self) {
        panic!("the payload panics as well");
    }
}

/// Handles a record as its value says.
#[derive(Clone)]
struct Handler {
    handled: Log<String>,
}

impl Handler {
    fn outcome(&self, value: &str) -> Outcome {
        let failed = |error: HandlerError| Outcome::Retry(error);
        match value {
            "display" => failed(HandlerError::permanent(Dropped(Rude::Display))),
            "display, transient" => failed(HandlerError::transient(Dropped(Rude::Display))),
            "source" => failed(HandlerError::permanent(Dropped(Rude::Source))),
            "drop of the error" => failed(HandlerError::permanent(Dropped(Rude::Drop))),
            "classifier" => failed(HandlerError::from(Dropped(Rude::Classifier))),
            "payload" => panic_any(Payload),
            value => {
                self.handled.push(value.to_owned());
                Outcome::Done
            }
        }
    }
}

/// A handler's future, written by hand.
struct Handling(Option<Outcome>, &'static str);

impl Future for Handling {
    type Output = Result<Outcome, Infallible>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = self.0.take().map(Ok);
        outcome.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        assert!(self.1 != "drop of the future", "in the drop");
    }
}

impl tower::Service<Delivery> for Handler {
    type Response = Outcome;
    type Error = Infallible;
    type Future = Handling;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delivery: Delivery) -> Handling {
        let value = text(&delivery.record);
        let name = match &*value {
            "call" => panic!("in the call"),
            "drop of the future" => "drop of the future",
            _ => "",
        };
        Handling(Some(self.outcome(&value)), name)
    }
}

fn text(record: &Record) -> String {
    String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned()
}

fn header<'a>(letter: &'a LogRecord, name: &str) -> &'a str {
    std::str::from_utf8(letter.headers.last(name).unwrap_or_default()).expect("the bytes are UTF-8")
}

fn settings(case: &Case) -> ConsumerSettings {
    let mut settings = case.settings();
    settings.retry.attempts_max = 2;
    settings.retry.park_delays.clear();
    settings.retry.backoff.initial = Duration::from_millis(1);
    settings
}

/// Handles one record of each kind between sound ones, and returns the dead letters by value.
async fn letters(case: &Case, values: &[&str], handler: impl Handle) -> Vec<LogRecord> {
    let pairs = values.iter().flat_map(|value| [*value, "sound"]);
    let records = pairs
        .enumerate()
        .map(|(n, value)| case.record(Some(&format!("{n}")), value.to_owned()));
    case.publish(records).await;
    let stop = CancellationToken::new();
    let classifier = |error: &(dyn Error + Send + Sync + 'static)| {
        let rude: Option<&Dropped> = error.downcast_ref();
        assert!(
            rude.is_none_or(|rude| rude.0 != Rude::Classifier),
            "no class"
        );
        Class::Transient
    };
    let consumer =
        Consumer::new(case.kafka.clone(), settings(case), handler).expect("sound settings");
    let consumer = consumer
        .with_health(Health::default())
        .with_classifier(std::sync::Arc::new(classifier));
    let run = tokio::spawn(consumer.run(stop.clone()));
    case.all_committed().await;
    stop.cancel();
    let report = run
        .await
        .expect("the task does not panic")
        .expect("the run goes on");
    assert!(report.clean);
    case.read(&format!("dlq.{}.{}", case.group, case.topic))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_a_services_code_costs_one_record_only() {
    let Some(case) = Case::new("it-g8-panics", 1).await else {
        return;
    };
    // With the class and what the letter says.
    let kinds = [
        ("display", "permanent", "Display"),
        ("display, transient", "transient", "Display"),
        ("source", "permanent", "source"),
        ("drop of the error", "permanent", "in the drop"),
        ("classifier", "permanent", "no class"),
        ("payload", "permanent", "without a message"),
        ("call", "permanent", "in the call"),
        ("drop of the future", "permanent", "in the drop"),
    ];
    let values: Vec<&str> = kinds.iter().map(|(value, ..)| *value).collect();
    let handled = Log::new();
    let handler = Handler {
        handled: handled.clone(),
    };
    let letters = letters(&case, &values, handler).await;
    let sound = handled
        .entries()
        .iter()
        .filter(|value| *value == "sound")
        .count();
    assert_eq!(sound, kinds.len(), "the records beside them");
    assert_eq!(letters.len(), kinds.len());
    for (value, class, said) in kinds {
        let of = |letter: &&LogRecord| letter.value.as_deref() == Some(value.as_bytes());
        let letter = letters.iter().find(of).expect(value);
        assert_eq!(
            header(letter, "evenkeel.dlq.error.stage"),
            "panic",
            "{value}"
        );
        assert_eq!(header(letter, "evenkeel.dlq.error.class"), class, "{value}");
        let message = header(letter, "__dlq.errors.message");
        assert!(message.contains(said), "{value}: {message}");
    }
}

/// A handler whose copies cannot be made once it has seen a record.
struct Uncopied {
    handler: Handler,
    has_begun: bool,
}

impl Clone for Uncopied {
    fn clone(&self) -> Self {
        assert!(!self.has_begun, "no copy");
        Self {
            handler: self.handler.clone(),
            has_begun: false,
        }
    }
}

impl tower::Service<Delivery> for Uncopied {
    type Response = Outcome;
    type Error = Infallible;
    type Future = Handling;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.handler.poll_ready(cx)
    }

    fn call(&mut self, delivery: Delivery) -> Handling {
        self.has_begun = true;
        if text(&delivery.record) == "fails" {
            return Handling(Some(Outcome::Retry(HandlerError::transient("fails"))), "");
        }
        self.handler.call(delivery)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_while_cloning_a_handler_costs_one_record() {
    let Some(case) = Case::new("it-g8-panics", 1).await else {
        return;
    };
    let handler = Uncopied {
        handler: Handler {
            handled: Log::new(),
        },
        has_begun: false,
    };
    let letters = letters(&case, &["fails"], handler).await;
    assert_eq!(letters.len(), 1);
    let message = header(&letters[0], "__dlq.errors.message");
    assert!(message.contains("no copy"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_whose_text_panics_is_still_an_outage() {
    let Some(case) = Case::new("it-g8-panics", 1).await else {
        return;
    };
    case.publish([case.record(Some("k"), "v")]).await;
    let attempts = Log::new();
    let log = attempts.clone();
    let router = evenkeel::handler::Router::new().raw(move |_: Record| {
        log.push(());
        let is_down = log.len() < 4;
        let failed = || Outcome::Retry(HandlerError::outage(Dropped(Rude::Display)));
        std::future::ready(if is_down { failed() } else { Outcome::Done })
    });
    let member = Member::start(&case.kafka, settings(&case), router);
    case.all_committed().await;
    let report = member.stop().await;
    assert_eq!((report.dead_letters, report.settled), (0, 1));
    assert_eq!(attempts.len(), 4);
}
