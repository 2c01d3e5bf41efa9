//! `peers`: evenkeel beside what others would use for the same work.
//!
//! The work: read an order, claim its id once, insert one row as its effect, and publish one event
//! about it to another topic. All of it in PostgreSQL, with the disk waited for.
//!
//! - `hand-written`, `hand-written-batch`: rdkafka and sqlx without a framework
//! - `evenkeel`, `evenkeel-batch`: group commit and a batch handler, inbox, outbox and relay
//! - `ruststream`: RustStream with its outbox; only in a build with the feature `peers`
//! - `spring-kafka`: Spring Kafka and Spring Data JPA on the JVM; needs Maven and a JDK
//!
//! **Each contestant is a process of its own**, Rust or not. This one prepares the database, starts
//! the contestant, watches table and topic, and reads the contestant's processor time from `/proc`.
//! PostgreSQL, Kafka and this process do not count.
//!
//! **The interval** begins when the first fifth of the events has its effect, and ends when every
//! event has its effect and its result is on the other topic. The first fifth is the warm-up, for
//! every contestant: start, connections, and most of the JVM's compilation. The processor time
//! belongs to the same interval, so what the JVM compiles later is included.
//!
//! **The value** is events per second of the interval. An event counts a half for its effect and a
//! half for its result, each if it was made in the interval. So results that the warm-up left to a
//! relay count for what they are, neither as whole events nor as none. `effects/s` and `results/s`
//! are the two rates, `left_by_warm_up` is the number of these results, and `relay_lag_ms` the time
//! from the last effect to the last result.
//!
//! At the end the contestant is stopped. The table must have each event's effect once, and the
//! topic each event's result at least once and under one id; `duplicates` are the others.
//!
//! - [`tables`]: tables and statements; [`work`]: the input of a contestant's process
//! - [`peer`]: that process; [`progress`]: watches what it does, and checks it with [`results`]
//! - [`evenkeel`], [`hand_written`] with [`relay`], `rust_stream`, [`spring`]: the contestants

mod evenkeel;
mod hand_written;
mod peer;
mod progress;
mod relay;
mod results;
#[cfg(feature = "peers")]
mod rust_stream;
mod spring;
mod tables;
mod work;

use crate::measure::usage::{Usage, resident_max_mib};
use crate::spec::{Aim, Bound, Contestant, Data, Figure, Form, Plan, Spec, Turn};
use ::evenkeel::testing::TestPostgres;
use anyhow::{Context, bail};
use peer::Peer;
use progress::Progress;
use std::collections::BTreeMap;
use std::time::Duration;
use work::{Unit, Work};

/// The part of the events that is the warm-up: one in so many.
const WARM_UP: u64 = 5;

/// Events of contestants with a transaction an event, and of those with one for many. The former
/// would take minutes for the latter's.
const EVENTS: u64 = 50_000;
const EVENTS_OF_BATCHES: u64 = 200_000;

const HAND_WRITTEN: &str = "hand-written";
const HAND_WRITTEN_BATCH: &str = "hand-written-batch";
const EVENKEEL: &str = "evenkeel";
const EVENKEEL_BATCH: &str = "evenkeel-batch";
#[cfg(feature = "peers")]
const RUSTSTREAM: &str = "ruststream";
const SPRING: &str = "spring-kafka";

/// The contestants of this build, in the order of their turns.
const CONTESTANTS: &[(&str, u64)] = &[
    (HAND_WRITTEN, EVENTS),
    (EVENKEEL, EVENTS),
    (HAND_WRITTEN_BATCH, EVENTS_OF_BATCHES),
    (EVENKEEL_BATCH, EVENTS_OF_BATCHES),
    #[cfg(feature = "peers")]
    (RUSTSTREAM, EVENTS),
    (SPRING, EVENTS),
];

pub(crate) fn plan() -> Plan {
    let contestant = |&(name, records): &(&'static str, u64)| Contestant {
        name,
        data: Some(Data {
            records,
            keys: 1_000,
            form: Form::Event,
            ..crate::workloads::throughput::consume::DATA
        }),
    };
    let aims = CONTESTANTS.iter().filter_map(|(other, _)| match *other {
        EVENKEEL | EVENKEEL_BATCH => None,
        HAND_WRITTEN_BATCH => Some(Aim::new(
            EVENKEEL_BATCH,
            Figure::RatioTo(HAND_WRITTEN_BATCH),
            Bound::AtLeast(1.0),
        )),
        other => Some(Aim::new(
            EVENKEEL,
            Figure::RatioTo(other),
            Bound::AtLeast(1.0),
        )),
    });
    Plan {
        title: "one effect and one published event for each event, beside peers".to_owned(),
        unit: "events/s",
        contestants: CONTESTANTS.iter().map(contestant).collect(),
        aims: aims.collect(),
        runs: 3,
    }
}

pub(crate) async fn turn(spec: &Spec) -> anyhow::Result<Turn> {
    if let Some(work) = Work::of(spec)? {
        return Box::pin(run_contestant(spec, &work)).await;
    }
    let server = TestPostgres::start().await.context("no PostgreSQL")?;
    let database = server.database().await?;
    let progress = Progress::open(spec, &database).await?;
    let directory = tempfile::tempdir()?;
    let mut peer = match spec.contestant.as_str() {
        SPRING => Peer::start(spring::command(spec, &database)?, SPRING, directory.path())?,
        name => Peer::start(
            Work::new(spec, &database).command(spec)?,
            name,
            directory.path(),
        )?,
    };
    let mut turn = measure(spec, &progress, &mut peer).await?;
    peer.stop().await?;
    let duplicates = progress.check().await?;
    turn.details
        .insert("duplicates".to_owned(), duplicates as f64);
    Ok(turn)
}

/// Measures a contestant that was just started, until it has done all of its work.
async fn measure(spec: &Spec, progress: &Progress, peer: &mut Peer) -> anyhow::Result<Turn> {
    let events = spec.data.records;
    let warm = progress.wait_for_effects(peer, events / WARM_UP).await?;
    let begin = peer.reading();
    let published = progress.results().await?;
    progress.wait_for_effects(peer, events).await?;
    let effects = peer.reading().since(&begin)?;
    progress.wait_for_results(peer, events).await?;
    let all = peer.reading().since(&begin)?;
    let interval = Interval {
        effects: events.saturating_sub(warm),
        results: events.saturating_sub(published),
        spent: all,
        relay_lag: all.wall.saturating_sub(effects.wall),
    };
    if interval.effects == 0 {
        bail!("{events} events are too few: all had their effect before the warm-up was noticed");
    }
    Ok(interval.figures(peer.resident_max_mib()?))
}

/// What a contestant did in the measured interval.
struct Interval {
    effects: u64,
    results: u64,
    spent: Usage,
    /// From the last effect to the last result.
    relay_lag: Duration,
}

impl Interval {
    /// The turn: an effect and a result are a half of an event each.
    fn figures(&self, rss_mib: f64) -> Turn {
        let (effects, results) = (self.effects as f64, self.results as f64);
        let events = f64::midpoint(effects, results);
        let seconds = self.spent.wall.as_secs_f64();
        let details = [
            ("effects/s", effects / seconds),
            ("results/s", results / seconds),
            ("left_by_warm_up", results - effects),
            ("relay_lag_ms", self.relay_lag.as_secs_f64() * 1e3),
        ];
        Turn {
            value: events / seconds,
            us_per_message: Some(self.spent.processor.as_secs_f64() * 1e6 / events),
            rss_mib,
            details: details.map(|(name, value)| (name.to_owned(), value)).into(),
        }
    }
}

/// Is the contestant, in a process of its own, until SIGTERM. Nobody reads the turn.
async fn run_contestant(spec: &Spec, work: &Work) -> anyhow::Result<Turn> {
    match work.contestant.as_str() {
        HAND_WRITTEN => hand_written::run(spec, work, Unit::Event).await?,
        HAND_WRITTEN_BATCH => hand_written::run(spec, work, Unit::Batch).await?,
        EVENKEEL => evenkeel::run(spec, work, Unit::Event).await?,
        EVENKEEL_BATCH => evenkeel::run(spec, work, Unit::Batch).await?,
        #[cfg(feature = "peers")]
        RUSTSTREAM => rust_stream::run(spec, work).await?,
        other => bail!("{other} is no contestant of this build"),
    }
    Ok(Turn {
        value: 0.0,
        us_per_message: None,
        rss_mib: resident_max_mib()?,
        details: BTreeMap::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_has_an_aim_beside_evenkeel() {
        let plan = plan();
        let peers = plan.contestants.iter();
        let peers = peers.filter(|contestant| !contestant.name.starts_with(EVENKEEL));
        assert_eq!(peers.count(), plan.aims.len());
    }

    #[test]
    fn a_result_that_the_warm_up_left_counts_as_half_an_event() {
        let interval = Interval {
            effects: 800,
            results: 1_200,
            spent: Usage {
                wall: Duration::from_secs(4),
                processor: Duration::from_secs(1),
            },
            relay_lag: Duration::from_millis(500),
        };
        let turn = interval.figures(1.0);
        assert_eq!(turn.value, 250.0);
        assert_eq!(turn.us_per_message, Some(1_000.0));
        let details = [
            ("effects/s", 200.0),
            ("left_by_warm_up", 400.0),
            ("relay_lag_ms", 500.0),
            ("results/s", 300.0),
        ];
        let details = details.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(turn.details, BTreeMap::from(details));
    }
}
