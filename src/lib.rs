//! Event-driven services on Apache Kafka. No event is lost, none has its effect twice, events of
//! one key keep their order, and a slow or broken service slows nobody else.
//!
//! # A service
//!
//! A service is a [`Router`] of async functions, an [`Inbox`](inbox::Inbox) that commits each
//! effect together with the identity of its event, and a [`Consumer`] that runs them:
//!
#![cfg_attr(feature = "sqlite", doc = "```no_run")]
#![cfg_attr(not(feature = "sqlite"), doc = "```ignore")]
//! use evenkeel::inbox::{SqliteInbox, SqliteTx};
//! use evenkeel::{Consumer, ConsumerSettings, Event, EventType, HandlerError, KafkaConfig, Router};
//! use serde::{Deserialize, Serialize};
//! use tokio_util::sync::CancellationToken;
//!
//! #[derive(Serialize, Deserialize)]
//! struct OrderPlaced {
//!     order_id: String,
//! }
//!
//! impl EventType for OrderPlaced {
//!     const TYPE: &'static str = "shop.order-placed.v1";
//!     const TOPIC: &'static str = "shop.orders";
//!     fn key(&self) -> String {
//!         self.order_id.clone()
//!     }
//! }
//!
//! async fn write_mail(order: Event<OrderPlaced>, mut tx: SqliteTx) -> Result<(), HandlerError> {
//!     let insert = evenkeel::sqlx::query("INSERT INTO mails (order_id) VALUES (?)");
//!     insert.bind(order.data.order_id).execute(&mut *tx).await?;
//!     Ok(())
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let tables = "CREATE TABLE IF NOT EXISTS mails (order_id TEXT)";
//! let inbox = SqliteInbox::open("mailer.db".as_ref(), "mailer", tables).await?;
//! let router = Router::new().on(write_mail).with_inbox(inbox);
//! let settings = ConsumerSettings::new("mailer", [OrderPlaced::TOPIC]);
//! let consumer = Consumer::new(KafkaConfig::from_env()?, settings, router)?;
//! let report = consumer.run(CancellationToken::new()).await?;
//! println!("{} records settled", report.settled);
//! # Ok(())
//! # }
//! ```
//!
//! # Publishing
//!
//! A [`Publisher`] returns after the acknowledgement of all in-sync replicas:
//!
//! ```no_run
//! # use evenkeel::{Event, EventType, KafkaConfig, Publisher};
//! # #[derive(serde::Serialize, serde::Deserialize)]
//! # struct OrderPlaced { order_id: String }
//! # impl EventType for OrderPlaced {
//! #     const TYPE: &'static str = "shop.order-placed.v1";
//! #     const TOPIC: &'static str = "shop.orders";
//! #     fn key(&self) -> String { self.order_id.clone() }
//! # }
//! use evenkeel::publisher::PublisherSettings;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let publisher = Publisher::new(&KafkaConfig::from_env()?, PublisherSettings::new("/shop/web"))?;
//! let placed = OrderPlaced { order_id: "o-1".to_owned() };
//! let receipt = publisher.publish(&Event::new("/shop/web", placed)).await?;
//! println!("partition {}, offset {}", receipt.partition, receipt.offset);
//! # Ok(())
//! # }
//! ```
//!
//! With an outbox the event leaves with a transaction of your store, also while Kafka is down:
//!
#![cfg_attr(feature = "postgres", doc = "```no_run")]
#![cfg_attr(not(feature = "postgres"), doc = "```ignore")]
//! # use evenkeel::{Event, EventType, Publisher};
//! # #[derive(serde::Serialize, serde::Deserialize)]
//! # struct OrderPlaced { order_id: String }
//! # impl EventType for OrderPlaced {
//! #     const TYPE: &'static str = "shop.order-placed.v1";
//! #     const TOPIC: &'static str = "shop.orders";
//! #     fn key(&self) -> String { self.order_id.clone() }
//! # }
//! use evenkeel::outbox::{PostgresOutbox, Relay};
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example(pool: evenkeel::sqlx::PgPool, publisher: Publisher) -> Result<(), Box<dyn std::error::Error>> {
//! let outbox = PostgresOutbox::with_pool(pool.clone()).await?;
//! let mut tx = pool.begin().await?;
//! let placed = OrderPlaced { order_id: "o-1".to_owned() };
//! outbox.publish(&mut tx, &Event::new("/shop/web", placed)).await?;
//! tx.commit().await?;
//! Relay::new(outbox, publisher).run(CancellationToken::new()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # A test
//!
//! With the feature `testing`, a test finds or starts a real Kafka and gets topics of its own:
//!
#![cfg_attr(feature = "testing", doc = "```no_run")]
#![cfg_attr(not(feature = "testing"), doc = "```ignore")]
//! use evenkeel::testing::{eventually, real_kafka, unique};
//! use std::time::Duration;
//!
//! # async fn mails() -> usize { 1 }
//! # async fn example() {
//! // Skips where there is no Kafka, and fails with EVENKEEL_REQUIRE_KAFKA=1.
//! let Some(kafka) = real_kafka().await else { return };
//! let topic = unique("orders");
//! kafka.create_topic(&topic, 3).await.expect("a topic");
//! // Start the service, publish to the topic, then wait for its effect:
//! eventually("the mail is written", Duration::from_secs(30), || async {
//!     (mails().await == 1).then_some(())
//! })
//! .await;
//! # }
//! ```
//!
//! `examples/order_mailer.rs` is a whole service with signals, logs and an admin server. `docs/` is
//! a book with a getting-started for those who write services, operate them, or change evenkeel.
//!
//! # Modules
//! From the lowest floor up; a module imports from those above it in this list only:
//!
//! - [`event`]: the envelope: CloudEvents 1.0 in Kafka records, in both content modes
//! - [`signals`]: SIGTERM and SIGINT as requests to stop
//! - [`schema`]: the catalogue of event types, and the validation of payloads
//! - [`telemetry`]: metrics, health, trace spans and, with the feature `daemon`, logs and the admin
//!   server
//! - [`kafka`]: connection settings, admin requests, reading without a group
//! - [`control`]: commands to a running group: pause, resume, skip, retry now, rate
//! - [`publisher`]: typed publishing with receipts and back-pressure
//! - `outbox`: events that leave with a transaction in SQLite or PostgreSQL, and their relay
//! - [`inbox`]: idempotency stores: in memory, SQLite, PostgreSQL and Redis
//! - [`recovery`]: policies for failed records: retries, the retry topic, dead letters, breakers
//! - [`handler`]: handlers, their context, the router, outcomes and errors
//! - [`consumer`]: a member of a consumer group
//! - `testing`: a Kafka, PostgreSQL or Redis found or started for development and tests
//!
//! # Guarantees
//! - An offset is committed only when every record at or below it is settled: handled, a known
//!   duplicate, ignored (no handler), parked in the retry topic, dead-lettered, or skipped by an
//!   operator. The last three count only after the brokers acknowledged the write.
//! - Records of one key of a topic are handled one after the other in their order, also while one
//!   of them is retried.
//! - With an inbox that hands out its transaction, an event's effect and its inbox row commit
//!   together, and a redelivery has no effect. Effects outside of that store, and all effects
//!   without an inbox, happen at least once.
//! - Records and bytes in flight are bounded, whatever the backlog.
//! - A slow handler never delays the polls that keep the member in its group. The watchdog reports
//!   a stuck one.
//! - A stop and a revoke start no new handler, give running ones a deadline, and commit settled
//!   offsets.
//! - A record that cannot be read goes to the dead-letter topic byte for byte. It blocks nothing
//!   and panics nothing.
//! - A publish returns after the acknowledgement of all in-sync replicas. The buffer is bounded.
//!
//! The README names the test behind each of them, and what is not promised.
//!
//! # Features
//!
//! | feature | brings |
//! |---|---|
//! | `sqlite` (default) | `SqliteInbox` and `SqliteOutbox`; SQLite is compiled in |
//! | `tls` (default) | TLS to brokers, PostgreSQL, Redis and a collector of spans, and with it SASL/SCRAM and OAUTHBEARER, with tokens from a file or from [`kafka::set_token_source`]; OpenSSL is compiled in |
//! | `postgres` | `PostgresInbox` and `PostgresOutbox` |
//! | `redis` | `RedisInbox`, by leases: effects beside it are at least once |
//! | `daemon` | `telemetry::daemon`: logs, signals, /livez, /readyz and /metrics |
//! | `otel` | `telemetry::daemon::SpanExport`: spans to the collector that `OTEL_EXPORTER_OTLP_ENDPOINT` names, and their context in published events; brings `daemon` |
//! | `config-file` | how to reach Kafka from TOML and `.properties` files, as the tool and the shop do |
//! | `json-schema` | payloads are validated against JSON Schema: [`schema::Catalogue`] compiles its documents, and publishers, outboxes and routers accept it |
//! | `reqwest` | the default classifier knows that client's errors |
//! | `dev-kafka` | `testing::TestKafka` and `testing::dev`: a Kafka found or started for development |
//! | `testing` | `testing`: besides `dev-kafka`, a PostgreSQL or a Redis for tests, also those of other crates; programs as child processes; drills; suites that stores must pass |
//! | `dynamic-linking` | the system's librdkafka instead of the bundled one |
//!
//! With `sqlite` or `postgres` the crate whose types handlers see is re-exported as
//! `evenkeel::sqlx`; it is sqlx 0.9, and one of an earlier version has other types. A service such
//! as `examples/order_mailer.rs` needs no more than this:
//!
//! ```toml
//! [dependencies]
//! evenkeel = { path = "../evenkeel", features = ["daemon"] }
//! serde = { version = "1", features = ["derive"] }
//! tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod consumer;
pub mod control;
mod durations;
pub mod event;
mod failure;
pub mod handler;
pub mod inbox;
pub mod kafka;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub mod outbox;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod publisher;
pub mod recovery;
pub mod schema;
pub mod signals;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store_address;
pub mod telemetry;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use sqlx;
#[cfg(feature = "dev-kafka")]
pub mod testing;

pub use consumer::{Consumer, ConsumerSettings};
pub use event::{Event, EventType, Record};
pub use handler::{Context, HandlerError, Outcome, Router};
pub use kafka::KafkaConfig;
pub use publisher::Publisher;

/// The code of the book compiles.
#[cfg(all(
    doctest,
    feature = "daemon",
    feature = "postgres",
    feature = "sqlite",
    feature = "testing"
))]
mod book {
    #[doc = include_str!("../docs/src/service/getting-started.md")]
    struct GettingStarted;
    #[doc = include_str!("../docs/src/service/effects.md")]
    struct Effects;
    #[doc = include_str!("../docs/src/service/outbox.md")]
    struct Outbox;
    #[doc = include_str!("../docs/src/service/drills.md")]
    struct Drills;
    #[doc = include_str!("../docs/src/service/postgresql.md")]
    struct Postgresql;
    #[doc = include_str!("../docs/src/service/embedding.md")]
    struct Embedding;
}
