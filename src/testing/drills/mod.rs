//! Drills: faults of production, injected in a test with one line each.
//!
//! A [`Drills`] wraps a service's store ([`Drills::inbox`]) and its router ([`Drills::wrap`]). It
//! delivers events twice, refuses commits, loses answers, crashes the process at a chosen point,
//! and makes the store slow or unavailable. It records the consequences: [`Drills::report`] names
//! every handler that is not idempotent. Such a handler ran again for an event that it had
//! completed, or its effect changed in a delivery that was not completed or was a duplicate.
//!
//! ```
//! use evenkeel::event::{Event, EventType};
//! use evenkeel::handler::Router;
//! use evenkeel::inbox::MemoryInbox;
//! use evenkeel::testing::drills::Drills;
//! # #[derive(serde::Serialize, serde::Deserialize)]
//! # struct OrderPlaced { order: String }
//! # impl EventType for OrderPlaced {
//! #     const TYPE: &'static str = "shop.order.placed.v1";
//! #     const TOPIC: &'static str = "shop.orders";
//! #     fn key(&self) -> String { self.order.clone() }
//! # }
//!
//! let drills = Drills::seeded(7).deliver_twice().refuse_commits(0.1);
//! let router = Router::new()
//!     .on(async |_: Event<OrderPlaced>| ())
//!     .with_inbox(drills.inbox(MemoryInbox::default()));
//! let service = drills.wrap(router);
//! // Give `service` to a Consumer, publish events, wait until they are handled. Then:
//! drills.report().check()?;
//! # let _ = service;
//! # Ok::<(), evenkeel::testing::drills::NotIdempotent>(())
//! ```
//!
//! Every random choice depends on the seed, the event and the attempt, so a failed run fails again
//! in the same way, in whatever order its events arrive. Late results need a consumer:
//! [`Drills::delay_results`] delays results beyond the consumer's `revoke_timeout`, so that the
//! next owner of the partition handles the event.
//!
//! | drill | fault | a correct service |
//! |---|---|---|
//! | [`Drills::deliver_twice`] | a redelivery | has no second effect |
//! | [`Drills::refuse_commits`] | the store refuses a commit | repeats, with one effect |
//! | [`Drills::lose_answers`] | a commit succeeded, its answer is lost | recognises the retry |
//! | [`Drills::delay_results`] | a result arrives after a rebalance | has one effect |
//! | [`Drills::slow_store`] | every claim and commit is slow | keeps its place in the group |
//! | [`Drills::store_down`] | the store is down for a while | waits, and loses nothing |
//! | [`Drills::crash_at`] | the process is killed | continues after a restart |
//!
//! `plan.rs` has the faults and their state, `inbox.rs` and `batch.rs` inject those of the store,
//! `service.rs` those around the router, and `report.rs` collects the results.

mod batch;
mod inbox;
mod plan;
mod report;
mod service;
#[cfg(test)]
mod tests;

pub use inbox::DrilledInbox;
pub use plan::{CrashPoint, Drills};
pub use report::{DrillReport, HandlerReport, NotIdempotent};
pub use service::Drilled;
