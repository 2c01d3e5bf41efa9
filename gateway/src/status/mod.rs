//! `GET /events/{id}`: where an event is, on its way from the gateway to the effect in each group.
//!
//! The answer ([`EventStatus`]) combines what the store of the gateway knows (accepted, waits in
//! the outbox), the position on the log, and for each group that reads the topic: settled, pending,
//! waiting behind another record of its key, retrying, dead-lettered or skipped by an operator. It
//! is a moment of moving logs, at most [`StatusSettings::snapshot_ttl`] old. It changes nothing,
//! and joins no group.
//!
//! # Where the facts come from
//!
//! | fact | source |
//! |---|---|
//! | accepted, in the outbox | [`AcceptStore::find`](crate::store::AcceptStore::find) |
//! | position | the store, a cache, or a search of the topic from the time of the event |
//! | settled | the group's committed offset, and the offsets settled above it |
//! | waiting, retrying | the unsettled entries of the group's retry topic |
//! | dead, skipped | the group's dead-letter topic and its control topic |
//! | time of the effect | the group's inbox, if its address is configured |
//!
//! # Bounds
//!
//! A search reads at most [`StatusSettings::search_records_max`] records and takes at most
//! [`StatusSettings::search_timeout`]; at most [`StatusSettings::searches_max`] blocking reads run
//! at a time. Lists of groups are read beside them: the offsets of one group at a time, for all
//! topics together. What a bound cut off is named in the answer, and never taken for an absence.
//!
//! # Who may ask
//!
//! A caller needs the right `status`, and sees events of types that it may post or stream, and
//! those of its own source. Any other event is not found.
//!
//! # Layout
//! - `answer`: the JSON; `settings`; `event_id`: the time in an id, and the query
//! - `verdict`: facts about a record in, state of a group out; pure
//! - `brokers`: the clients, and the limit of blocking reads
//! - `log_search`: finds events and dead letters on topics; blocking
//! - `group_facts`: reads progress, retry topic, control topic and inbox of a group, and the
//!   groups of a topic
//! - `shared_cache`, `positions`: the caches, both bounded
//! - `reader`: [`StatusReader`], and what a caller may see; `routes`: the route
//!
//! ```no_run
//! use evenkeel::kafka::KafkaConfig;
//! use evenkeel_gateway::access::AllowList;
//! use evenkeel_gateway::status::{self, StatusReader, StatusSettings};
//! use evenkeel_gateway::store::AcceptStore;
//! use std::sync::Arc;
//!
//! # fn example(allow_list: Arc<AllowList>, store: Arc<dyn AcceptStore>) {
//! let settings = StatusSettings::default().with_groups("shop.orders", ["payments", "stock"]);
//! let kafka = KafkaConfig::new("localhost:9092");
//! let reader = StatusReader::new(kafka, allow_list, store, settings);
//! let router = status::router(reader);
//! # let _: axum::Router = router;
//! # }
//! ```

mod answer;
mod brokers;
mod event_id;
mod group_facts;
mod log_search;
mod positions;
mod reader;
mod routes;
mod settings;
mod shared_cache;
mod verdict;

pub use answer::{Behind, EventState, EventStatus, GroupState, GroupStatus, LogPlace, OutboxPlace};
pub use event_id::StatusQuery;
pub use reader::StatusReader;
pub use routes::router;
pub use settings::{GroupStore, StatusSettings};
