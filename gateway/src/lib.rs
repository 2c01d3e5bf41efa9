//! An HTTP and gRPC gateway to event topics.
//!
//! A team puts it before its own topics: the catalogue of event types and one allow list decide
//! which events callers may post and stream. The binary `gateway` is the shop's.
//!
//! | promise | by |
//! |---|---|
//! | 202 is given when the event is durable | [`store`]: the brokers' acknowledgement, or an outbox |
//! | a repeated request has one effect | [`store`], [`post`]: `Idempotency-Key`, event ids |
//! | a caller can ask what became of an event | [`status`] |
//! | a stream resumes without a gap, on any instance | [`stream`]: cursors over all partitions |
//! | overload is refused quickly, with the time to come back | [`admission`] |
//!
//! # Before your own topics
//! `schemas` has the JSON Schema documents of the event types, `allow-list.toml` the types that
//! exist for callers ([`access::AllowList`]), and `tokens.toml` the hashes of their tokens.
//!
//! ```no_run
//! use evenkeel::publisher::{Publisher, PublisherSettings};
//! use evenkeel::{kafka::KafkaConfig, outbox::Relay, schema::Catalogue};
//! use evenkeel_gateway::access::{AllowList, Authenticator};
//! use evenkeel_gateway::admission::{Admission, AdmissionSettings};
//! use evenkeel_gateway::post::{PostLimits, Posting};
//! use evenkeel_gateway::server::{ConnectionLimits, Parts, RouterSettings, Server, bind, router};
//! use evenkeel_gateway::status::{StatusReader, StatusSettings};
//! use evenkeel_gateway::store::{AcceptStore, SqliteStore};
//! use evenkeel_gateway::stream::{StreamSettings, Streams};
//! use std::{path::Path, sync::Arc};
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let catalogue = Arc::new(Catalogue::from_dir(Path::new("schemas"))?);
//! let list = std::fs::read_to_string("allow-list.toml")?;
//! let allowed = Arc::new(AllowList::from_toml(&list, catalogue)?);
//!
//! let kafka = KafkaConfig::from_env()?;
//! let publisher = Publisher::new(&kafka, PublisherSettings::new("/gateway"))?;
//! let sqlite = SqliteStore::open(Path::new("gateway.db")).await?;
//! let relay = Relay::new(sqlite.outbox(), publisher);
//! tokio::spawn(relay.run(CancellationToken::new()));
//! let store: Arc<dyn AcceptStore> = Arc::new(sqlite);
//!
//! let posting = Posting::new(allowed.clone(), store.clone(), PostLimits::default());
//! let streams = Streams::new(kafka.clone(), allowed.clone(), StreamSettings::default());
//! let status = StatusReader::new(kafka, allowed, store.clone(), StatusSettings::default());
//! let admission = Admission::new(AdmissionSettings::outbox(), move || store.backlog());
//! let tokens = Authenticator::builder().with_token_file("tokens.toml").build()?;
//! let parts = Parts::new(posting, streams, status, admission, tokens, "gateway-1".into());
//!
//! let listener = bind("127.0.0.1:8080".parse()?).await?;
//! let routes = router(parts, RouterSettings::default());
//! Server::new(ConnectionLimits::default()).serve(listener, None, routes).await;
//! # Ok(())
//! # }
//! ```
//!
//! The book's page on the gateway has the same with PostgreSQL and a clean stop, and a route of a
//! team's own.
//!
//! # Layout
//! - [`http`]: problems (RFC 9457), and the context of a request
//! - [`access`]: callers, tokens, rights, the allow list
//! - [`store`]: makes events durable
//! - [`admission`]: concurrency limit, rate limits, `Retry-After`
//! - [`post`]: `POST /events`, in all modes of the CloudEvents HTTP binding
//! - [`status`]: `GET /events/{id}`
//! - [`stream`]: `GET /events` as SSE, `/ws`
//! - [`grpc`]: the same over gRPC
//! - [`client`]: a client that retries as told
//! - [`server`]: connections, TLS, assembly, stop
//! - `shop`: the shop's routes (feature `shop`)

pub mod access;
pub mod admission;
pub mod client;
pub mod grpc;
pub mod http;
pub mod post;
pub mod server;
#[cfg(feature = "shop")]
pub mod shop;
pub mod status;
pub mod store;
pub mod stream;

/// The code of the book compiles.
#[cfg(doctest)]
mod book {
    #[doc = include_str!("../../docs/src/service/gateway.md")]
    struct Gateway;
}
