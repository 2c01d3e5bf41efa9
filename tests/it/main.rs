//! Integration tests of the library, in one binary: a module per promise.
//!
//! Tests that need Apache Kafka share one broker (`evenkeel::testing::real_kafka`) and skip, saying why, where there is none.

/// Helper: accounts on either store, whose effects would show if they were doubled.
mod account;
/// Topics that take smaller batches than clients make.
mod batch_limits;
/// Parts that push back, break or wait hold nothing up, or end the run with the reason.
mod breakdown;
/// Every codec is written and read.
mod compression;
/// Live control: pause, skip, retry now and rate hold within a second, exactly, and are acknowledged.
mod control;
/// Helper: a broker whose log files can be damaged.
mod damage;
/// A Kafka for development that stays until it is taken down.
mod dev;
/// What stands at the end of a partition and is no record is no lag.
mod end_of_log;
/// Faults of brokers: refused commits, moved coordinators, outages and slow round trips cost time, never a record.
mod faults;
/// The only broker stands still again and again: every member is at work afterwards.
mod frozen_broker;
/// G10: a receipt means acknowledged, unknown is said to be unknown, and the buffer pushes back.
mod g10_publish;
/// G1: no loss, whatever is killed whenever, and no commit past what is unsettled.
mod g1_no_loss;
/// G2: order per key, through retries too, and no waiting between keys.
mod g2_key_order;
/// G3 in batches: one transaction for several events, an effect and an outcome for each.
mod g3_batches;
/// G3 under drills: kills, crashes at every point, refused commits, stores that are away.
mod g3_drills;
/// G3: one effect for each event however often it comes, and replies with the same ids.
mod g3_effects_once;
/// G3 where records have no id, or one that comes again with other content.
mod g3_identity;
/// G3 where handlers share rows: no attempt is counted, and the sum is right.
mod g3_shared_rows;
/// G4: records, bytes and resident memory stay bounded under any backlog.
mod g4_bounded_memory;
/// G5: slow handlers keep their member's place, and stuck ones are named.
mod g5_slow_handler;
/// G6: clean stops redeliver nothing, stuck handlers do not delay them past their deadline.
mod g6_clean_stop;
/// G7: revokes drain, commit and fence, with every assignor.
mod g7_revoke;
/// G8: where a dead letter cannot be written as it should, its partition stops or its letter is smaller, and nothing is lost.
mod g8_dead_letters;
/// G8: a panic of a service's own code costs one record a dead letter, and nothing else.
mod g8_panics;
/// G8: poison goes to the dead-letter topic or stops its partition, and blocks nothing else.
mod g8_poison;
/// G9, G4: few records that wait, in whatever way, stop no others.
mod g9_few_keys;
/// G9: what hangs is an outage too, and a probe that hangs stops nobody.
mod g9_hanging;
/// G9: outages pause and probe, and cost nothing but time.
mod g9_outage;
/// Partitions that wait for their retry topic: in bounded memory, once and in order.
mod gates;
/// kcat reads what we publish, and we read what kcat publishes.
mod interop;
/// The test kit itself: a Kafka of every kind is found or started, serves, and ends.
mod kafka;
/// G1 where a log is truncated, or its topic made anew: what stands there now is handled, and what was lost is said.
mod lost_logs;
/// Helper: a member of a group as a process of its own, which can be killed.
mod member;
/// Outbox: what commits is published in order per key, what rolls back is not, whatever is killed, held up or down.
mod outbox;
/// Names of own topics that run together with those of other groups.
mod own_names;
/// The group's own topics, made badly by others or by defaults of the brokers.
mod own_topics;
/// Parking: failing keys wait in the retry topic with what is behind them, over restarts, and nobody waits with them.
mod parking;
/// Readiness says what is so: neither ready without a place in the group, nor not ready over what has passed.
mod readiness;
/// README: what it names is there, and what it shows is what is compiled.
mod readme;
/// Redis as the inbox: effects once while nothing crashes, and events wait while it is down.
mod redis;
/// Helper: a test of this binary as a process of its own.
mod rerun;
/// A failure that names a wait is tried again no sooner.
mod retry_after;
/// Retry topics that are closed or gone: who waits for that, and who does not.
mod retry_topics;
/// Routers: what nobody asks for is counted, and a handler for the rest gets it.
mod routing;
/// A broker that is down: what it leads waits, and nothing else.
mod slow_brokers;
/// Helper: topics and groups of their own, members in this process, records, gates, and looks at committed offsets.
mod support;
/// KIP-848: members without partitions are ready, and bounded runs of theirs end.
mod surplus;
/// Several consumers in one process report to one health without hiding each other.
mod together;
/// OAUTHBEARER: every client of the library renews its token from a file, whatever it does meanwhile.
mod tokens;
/// Batches that no client can read stop their own partition only, are named, and are skipped on command.
mod unreadable;
