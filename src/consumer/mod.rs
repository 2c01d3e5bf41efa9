//! A member of a consumer group: it receives records, runs their handlers and commits their
//! offsets.
//!
//! Start with [`Consumer`] and [`ConsumerSettings`]. The consumer owns a member of a group from its
//! first poll to its last commit. It knows nothing about what a handler does: a record goes to it
//! as a [`Delivery`](crate::handler::Delivery), and an [`Outcome`](crate::handler::Outcome) comes
//! back.
//!
//! # The way of a record
//!
//! | stage | what happens | where |
//! |---|---|---|
//! | poll | One thread owns the client. It serves rebalances and errors at all times and takes records only while there is room. Only the bounded drain of a revoke makes it wait for handlers. | `poll/` |
//! | admit | Records and bytes in flight are limited, whatever the backlog. | `poll/intake/`, `state/admission` |
//! | lane | A record waits behind the unsettled ones of its key, or of its partition ([`RecordOrdering`]). The hash of the key picks the worker, so ordering needs no lock. | `state/lanes`, `worker/` |
//! | handle | At most [`ConsumerSettings::concurrency`] handlers run at a time. A failed record is retried in its lane; the other lanes continue. | `worker/`, `worker/retry` |
//! | park | A record that keeps failing is written to the retry topic and is handled again when it is due. Later records of its key wait behind it. | `worker/retry/park`, `retry_reader/` |
//! | settle | The record's bit in the offset tracker is set, under the epoch of the assignment. A result that arrives after the partition was revoked is ignored. | `state/offset_tracker` |
//! | commit | One thread commits the first unsettled offset of each partition: at an interval, on a revoke, at the stop. Offsets settled above it travel in the commit's metadata, so that a restart does not repeat them. | `commit/`, `state/commit_metadata` |
//!
//! # Who runs what
//!
//! | runs on | owns | may block on |
//! |---|---|---|
//! | thread `evenkeel-poll` | the client, the assignments, the pauses | a revoke, seeks, lookups |
//! | thread `evenkeel-commit` | the commits, the watchdog | the brokers |
//! | thread `evenkeel-parked` | the client that reads the retry topics | its queue and seeks |
//! | thread `evenkeel-due` | the client that fetches due records | its queue |
//! | workers: tasks of the caller's runtime | the lanes, the futures of handlers | nothing |
//! | further tasks | retention, the check of own topics, notes to operators | nothing |
//!
//! They share no lock across a call into a client. The poll thread passes records to workers
//! through mailboxes; workers settle records by atomic bits; the committing thread reads them.
//!
//! - `settings/`: the settings, their choices and their checks
//! - `member/`: the builder of a member, its run, and the start and end of its threads and tasks
//! - `state/`: what is known and decided, without a client, a task or a clock
//! - `shared/`: what the threads and tasks share: mailboxes, concurrency, breakers, dead letters,
//!   readiness
//! - `poll/`: the poll thread, with rebalances, pauses, reset logs and the commands of operators
//! - `worker/`: the tasks that drive handlers
//! - `commit/`: the committing thread and the watchdog
//! - `retry_reader/`: the threads that read the retry topics and hand out due records
//! - `group_topics/`: a group's own topics, their required configuration, and their creation
//!
//! A running group is controlled through its topic `control.<group>` ([`crate::control`]);
//! `poll/operator/` reads it and compares the state that operators want with the actual one.
//!
//! # What a service reads
//!
//! - Health: the components `consumer`, `handlers`, `dead_letters`, `retry_topics`,
//!   `retry_partitions`, `parked_records`, `own_topics`, `control_topic` and `member`, each
//!   followed by the group ([`Consumer::with_health`]).
//! - Metrics: [`Metric`](crate::telemetry::Metric), with the label `group`.
//! - Progress: [`group_progress`]. Parked records: [`parked_keys`]. The group's own topics:
//!   [`GroupTopics`].
//!
//! # Examples
//!
//! A batch job that handles what is there and ends:
//!
//! ```no_run
//! use evenkeel::consumer::{Consumer, ConsumerSettings, StopWhen};
//! use evenkeel::event::Record;
//! use evenkeel::handler::Router;
//! use evenkeel::kafka::KafkaConfig;
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let router = Router::new().raw(async |record: Record| println!("{record:?}"));
//! let settings =
//!     ConsumerSettings::new("export", ["shop.orders"]).with_stop_when(StopWhen::UntilEnd);
//! let consumer = Consumer::new(KafkaConfig::from_env()?, settings, router)?;
//! let report = consumer.run(CancellationToken::new()).await?;
//! assert!(report.clean);
//! # Ok(())
//! # }
//! ```
//!
//! # How to choose
//!
//! **Order.** Keep [`RecordOrdering::Key`] unless handlers need more. By partition, one failed
//! record holds back its whole partition; without an order, a late record may overwrite a newer
//! one.
//!
//! **Concurrency.** Throughput is at most [`concurrency`](ConsumerSettings::concurrency) divided by
//! the time that a handler takes, and at most one record of a key at a time. A handler that waits
//! 50 ms for a bank needs 50 permits for 1,000 records a second. The bank sees as many calls at
//! once.
//!
//! **Memory.** Two limits bound it: [`in_flight_bytes_max`](ConsumerSettings::in_flight_bytes_max)
//! and the client's queue. A handler that keeps a record keeps its bytes charged.
//!
//! **Time limits.** From the inside out: the timeouts of the calls that a handler makes, then
//! [`handler_timeout`](ConsumerSettings::handler_timeout), then
//! [`revoke_timeout`](ConsumerSettings::revoke_timeout) and
//! [`drain_timeout`](ConsumerSettings::drain_timeout), then the supervisor's grace period. Each
//! should leave room for the one before it.
//!
//! ```
//! use evenkeel::consumer::ConsumerSettings;
//! use std::time::Duration;
//!
//! // Handlers call a bank, whose client gives up after 2 s; a handler makes up to three calls.
//! let settings = ConsumerSettings::new("payments", ["shop.orders"])
//!     .with_concurrency(50)
//!     .with_handler_timeout(Duration::from_secs(8))
//!     .with_revoke_timeout(Duration::from_secs(10))
//!     .with_drain_timeout(Duration::from_secs(25))
//!     .with_stuck_handler_after(Duration::from_secs(30));
//! settings.validate()?;
//! # Ok::<(), evenkeel::kafka::ConfigError>(())
//! ```
//!
//! # When a handler fails
//!
//! The class of the error decides ([`Class`](crate::handler::Class)), and the settings bound it:
//!
//! | class | in place | then |
//! |---|---|---|
//! | transient | `attempts_max` attempts | parked for each of `park_delays`, then dead-lettered |
//! | timeout | the same | the same; an outage while its breaker is open |
//! | outage | without end | nothing: the breaker pauses all handlers and probes |
//! | permanent, panic | none | dead-lettered |
//!
//! A record that is parked or dead-lettered is settled for its partition, which continues. Its key
//! continues too after a dead letter, unless [`AfterDeadLetter::HoldKey`] is set.
//!
//! ```
//! use evenkeel::consumer::{AfterDeadLetter, ConsumerSettings};
//! use evenkeel::recovery::RetryPolicy;
//! use std::time::Duration;
//!
//! let mut retry = RetryPolicy::default();
//! retry.attempts_max = 3;
//! retry.park_delays = [60, 600, 3_600].map(Duration::from_secs).to_vec();
//! let settings = ConsumerSettings::new("ledger", ["shop.payments"])
//!     .with_retry(retry)
//!     // No booking of an account before the one that failed.
//!     .with_after_dead_letter(AfterDeadLetter::HoldKey);
//! settings.validate()?;
//! # Ok::<(), evenkeel::kafka::ConfigError>(())
//! ```
//!
//! # Rolling updates
//!
//! With the default assignment, a member that stops gives its partitions to the others, and a new
//! one takes some back: only the partitions that move are interrupted. With a static membership the
//! partitions wait for the restarted instance, at most for the session timeout:
//!
//! ```
//! use evenkeel::consumer::{Assignment, ConsumerSettings};
//!
//! # fn pod() -> String { "payments-0".to_owned() }
//! let settings = ConsumerSettings::new("payments", ["shop.orders"])
//!     .with_assignment(Assignment::CooperativeSticky)
//!     // The stable name of a pod of a stateful set.
//!     .with_instance_id(pod());
//! settings.validate()?;
//! # Ok::<(), evenkeel::kafka::ConfigError>(())
//! ```
//!
//! # Several consumers in one process
//!
//! Each is a member of its own, with its own clients and threads. They may share a health, whose
//! components are told apart by the group, a publisher and an inbox's pool:
//!
//! ```no_run
//! use evenkeel::consumer::{Consumer, ConsumerSettings};
//! # use evenkeel::event::Record;
//! use evenkeel::handler::Router;
//! use evenkeel::kafka::KafkaConfig;
//! use evenkeel::telemetry::Health;
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! # let router = || Router::new().raw(async |record: Record| println!("{record:?}"));
//! let (kafka, health, stop) =
//!     (KafkaConfig::from_env()?, Health::default(), CancellationToken::new());
//! let consumer = |group: &str, topic: &str| {
//!     let settings = ConsumerSettings::new(group, [topic]);
//!     Consumer::new(kafka.clone(), settings, router()).map(|it| it.with_health(health.clone()))
//! };
//! let (orders, stock) = (consumer("billing", "shop.orders")?, consumer("stock", "shop.stock")?);
//! // An error of one must stop the other: their process is one unit.
//! let (orders, stock) = tokio::join!(
//!     async { orders.run(stop.clone()).await.inspect_err(|_| stop.cancel()) },
//!     async { stock.run(stop.clone()).await.inspect_err(|_| stop.cancel()) },
//! );
//! println!("{} and {} records settled", orders?.settled, stock?.settled);
//! # Ok(())
//! # }
//! ```

mod commit;
mod group_topics;
mod member;
mod poll;
mod report;
mod retry_reader;
mod settings;
mod shared;
mod startup;
mod state;
mod worker;

pub use group_topics::{GroupTopic, GroupTopicKind, GroupTopicState, GroupTopics, TopicFault};
pub use member::Consumer;
pub use report::{ConsumerError, RunReport, Stopped};
pub use retry_reader::inspect::{
    ParkedKey, PartitionProgress, group_progress, parked_keys, parked_keys_in, parked_records,
};
pub use settings::{
    AfterDeadLetter, Assignment, ConsumerSettings, KeylessOrdering, RecordHeaders, RecordOrdering,
    StopWhen,
};
