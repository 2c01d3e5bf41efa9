//! Event-driven services on Apache Kafka that stay on an even keel: nothing is lost, nothing has its effect twice, events
//! of one key keep their order, and a slow or broken service slows nobody else.
//!
//! A service is a [`Router`](handler::Router) of async functions, an [`Inbox`](inbox::Inbox) that commits each effect
//! together with the event's identity, and a [`Consumer`](consumer::Consumer) that runs them:
//!
//! ```no_run
//! use evenkeel::consumer::{Consumer, ConsumerSettings};
//! use evenkeel::event::Record;
//! use evenkeel::handler::{Context, HandlerError, Router};
//! use evenkeel::inbox::MemoryInbox;
//! use evenkeel::kafka::KafkaConfig;
//! use tokio_util::sync::CancellationToken;
//!
//! async fn count(record: Record, context: Context) -> Result<(), HandlerError> {
//!     let text = std::str::from_utf8(record.value().unwrap_or_default())?;
//!     println!("{}/{}: {} characters", context.partition(), context.offset(), text.chars().count());
//!     Ok(())
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let router = Router::new().raw(count).with_inbox(MemoryInbox::default());
//! let settings = ConsumerSettings::new("counter", ["texts"]);
//! let consumer = Consumer::new(KafkaConfig::from_env()?, settings, router)?;
//! let report = consumer.run(CancellationToken::new()).await?;
//! println!("{} records settled", report.settled);
//! # Ok(())
//! # }
//! ```
//!
//! `examples/order_mailer.rs` is a whole service with typed events, a SQLite store, signals and logs.
//!
//! # Layout
//! In the order in which data flows:
//!
//! - [`event`]: the envelope, CloudEvents 1.0 in Kafka records, in both content modes
//! - [`schema`]: the catalogue of event types, from JSON Schema documents
//! - [`kafka`]: connection settings, admin requests, reading without a group
//! - [`publisher`]: typed publishing with receipts and back-pressure
//! - [`inbox`]: idempotency stores, in memory, SQLite, PostgreSQL and Redis
//! - `outbox`: with a store's feature, events that leave with a transaction in SQLite or PostgreSQL, and their relay
//! - [`recovery`]: what happens to a record that fails: retries in place, dead letters and their replay, breakers
//! - [`handler`]: handlers, their context, the router, outcomes and errors
//! - [`consumer`]: a member of a group: poll, admit, lane, handle, settle, commit
//! - [`control`]: commands to a running group: pause, resume, skip, retry now, rate
//! - [`audit`]: whether every event of a topic had its end in a group, once and in order, from log and store
//! - [`telemetry`]: metrics, health, trace spans and, with the feature `daemon`, logs, signals and the admin server
//! - [`signals`]: SIGTERM and SIGINT as requests to stop, doubled signals taken as one
//! - `testing`: with the feature `testing`, a Kafka, a PostgreSQL or a Redis found or started for tests, unique names, waits
//!
//! # Guarantees
//! - An offset is committed only when every record at or below it is settled: handled, suppressed as a duplicate, ignored
//!   because no handler asks for its type, or dead-lettered with the brokers' acknowledgement.
//! - Records of one key of a topic are handled one after the other in their order, also while one of them is retried.
//! - With an inbox that hands out its transaction, an event's effect and its inbox row commit together, and a redelivery
//!   changes nothing. Effects outside of that store, and all effects without an inbox, are at least once.
//! - Records and bytes in flight are bounded, whatever the backlog.
//! - A slow handler never delays the polls that keep the member in its group; a stuck one is named by the watchdog.
//! - A stop, and a revoke, start no new handler, give running ones a deadline, and commit what is settled.
//! - A record that cannot be read goes to the dead-letter topic byte for byte; it neither blocks nor panics anything.
//! - A publish returns after the acknowledgement of all in-sync replicas; the buffer is bounded.
//!
//! The README names the test behind each of them, and what is not promised.
//!
//! # Features
//! `sqlite` (default): the SQLite inbox. `redis`: the Redis inbox. `daemon`: what a daemon needs around its consumer. `testing`: for tests, also those
//! of other crates. `ssl`, `ssl-vendored`: TLS to the brokers.

pub mod audit;
pub mod consumer;
pub mod control;
mod durations;
pub mod event;
pub mod handler;
pub mod inbox;
pub mod kafka;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub mod outbox;
pub mod publisher;
pub mod recovery;
pub mod schema;
pub mod signals;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
