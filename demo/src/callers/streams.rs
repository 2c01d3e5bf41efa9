//! Readers of streams: each reads from the offsets at which the run began, is cut at random every
//! few seconds, and resumes at any gateway with its last cursor.

use crate::audit::{Identity, StreamRecord};
use anyhow::Context;
use evenkeel_gateway::client::{Client, EventStream, Streamed};
use evenkeel_gateway::stream::{Cursor, TopicPosition};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

/// Time between two cuts, in milliseconds.
const CUT_AFTER_MS: Range<u64> = 2_000..8_000;
/// How long a stream may take to reach the end of the log. Its cursor moves past events that it
/// does not deliver with each heartbeat, every 15 s.
const END_WITHIN: Duration = Duration::from_secs(90);
/// Interval at which the cursor is compared with the end. Longer than a connection takes.
const CURSOR_INTERVAL: Duration = Duration::from_secs(3);
/// Faults of a stream that are named.
const FAULTS_MAX: usize = 5;

/// Offsets by topic and partition.
type Offsets = BTreeMap<(String, i32), i64>;

/// The filter of a stream.
pub(super) struct Wish {
    /// Name of the stream in messages.
    pub(super) name: &'static str,
    pub(super) types: Vec<String>,
    pub(super) key: Option<String>,
}

/// What a stream delivered, and what happened to it.
#[derive(Debug)]
pub(crate) struct StreamOutcome {
    /// Name of the stream in messages.
    pub(crate) name: &'static str,
    pub(crate) record: StreamRecord,
    /// Number of times that its connection was cut on purpose.
    pub(crate) cuts: u64,
    /// Gaps that the gateway reported, and why the stream ended early.
    pub(crate) faults: Vec<String>,
}

/// The running streams.
pub(super) struct Streams {
    readers: Vec<(oneshot::Sender<Offsets>, JoinHandle<StreamOutcome>)>,
}

impl Streams {
    pub(super) fn start(
        client: &Client,
        wishes: Vec<Wish>,
        from: &Offsets,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let mut readers = Vec::with_capacity(wishes.len());
        for (number, wish) in (0..).zip(wishes) {
            let reader = Reader::new(client, wish, from, seed.wrapping_add(number))?;
            let (end, ended) = oneshot::channel();
            readers.push((end, tokio::spawn(reader.run(ended))));
        }
        Ok(Self { readers })
    }

    /// Lets every stream read to these offsets, without further cuts, and ends it.
    pub(super) async fn finish(self, to: &Offsets) -> anyhow::Result<Vec<StreamOutcome>> {
        let mut tasks = Vec::with_capacity(self.readers.len());
        for (end, task) in self.readers {
            // A stream that has failed is not interested.
            let _ = end.send(to.clone());
            tasks.push(task);
        }
        let mut outcomes = Vec::with_capacity(tasks.len());
        for task in tasks {
            outcomes.push(task.await.context("the reader of a stream panicked")?);
        }
        Ok(outcomes)
    }
}

/// The members of an event that identify it.
#[derive(Deserialize)]
struct Head {
    source: String,
    id: String,
}

/// The reader of one stream.
struct Reader {
    stream: EventStream,
    outcome: StreamOutcome,
    random: StdRng,
}

impl Reader {
    fn new(client: &Client, wish: Wish, from: &Offsets, seed: u64) -> anyhow::Result<Self> {
        let from = start_of(&wish.types, from);
        let cursor = cursor_at(&from)
            .with_context(|| format!("the stream of {} has no beginning", wish.name))?;
        let types: Vec<&str> = wish.types.iter().map(String::as_str).collect();
        let stream = client.events(&types, wish.key.as_deref(), Some(cursor.to_string()));
        Ok(Self {
            stream,
            outcome: StreamOutcome {
                name: wish.name,
                record: StreamRecord {
                    types: wish.types,
                    key: wish.key,
                    from,
                    ..StreamRecord::default()
                },
                cuts: 0,
                faults: Vec::new(),
            },
            random: StdRng::seed_from_u64(seed),
        })
    }

    /// Reads until `end`, and then to its offsets.
    async fn run(mut self, mut end: oneshot::Receiver<Offsets>) -> StreamOutcome {
        loop {
            let pause = Duration::from_millis(self.random.random_range(CUT_AFTER_MS));
            let is_open = tokio::select! {
                // Without a sender the demo ends early.
                to = &mut end => match to {
                    Ok(to) => {
                        self.read_to(&to).await;
                        false
                    }
                    Err(_) => false,
                },
                is_open = self.read_for(pause) => is_open,
            };
            if !is_open {
                break;
            }
            self.stream.cut();
            self.outcome.cuts += 1;
        }
        self.outcome.record.to = self.position();
        self.outcome
    }

    /// Reads for this long. Returns false if the stream has ended for good. Cancel-safe.
    async fn read_for(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while Instant::now() < until {
            match timeout_at(until, self.stream.next()).await {
                Err(_) => break,
                Ok(Ok(frame)) => self.take(frame),
                Ok(Err(error)) => {
                    self.fault(format!("ended early: {error}"));
                    return false;
                }
            }
        }
        true
    }

    /// Reads until these offsets are reached.
    async fn read_to(&mut self, to: &Offsets) {
        let deadline = Instant::now() + END_WITHIN;
        let places = self.outcome.record.from.keys();
        let gone = places.filter(|place| !to.contains_key(*place)).count();
        if gone > 0 {
            self.fault(format!("{gone} partitions of its topics have no end"));
            return;
        }
        while !has_reached(&self.outcome.record.from, &self.position(), to) {
            if Instant::now() > deadline {
                let seconds = END_WITHIN.as_secs();
                self.fault(format!(
                    "did not reach the end of the log within {seconds} s"
                ));
                return;
            }
            if !self.read_for(CURSOR_INTERVAL).await {
                return;
            }
        }
    }

    fn take(&mut self, frame: Streamed) {
        match frame {
            Streamed::Event { data, .. } => match serde_json::from_str::<Head>(&data) {
                Ok(Head { source, id }) => {
                    self.outcome.record.events.push(Identity { source, id });
                }
                Err(error) => self.fault(format!("an event cannot be read: {error}")),
            },
            Streamed::Gap { detail, .. } => self.fault(format!("a gap: {detail}")),
            _ => {}
        }
    }

    fn fault(&mut self, fault: String) {
        if self.outcome.faults.len() < FAULTS_MAX {
            self.outcome.faults.push(fault);
        }
    }

    /// The offsets after the last frame.
    fn position(&self) -> Offsets {
        let cursor = self.stream.cursor().map(str::parse::<Cursor>);
        match cursor {
            Some(Ok(cursor)) => offsets_of(&cursor),
            _ => Offsets::new(),
        }
    }
}

/// The offsets of the topics that have these types.
fn start_of(types: &[String], offsets: &Offsets) -> Offsets {
    let topics: BTreeSet<&str> = shop_schemas::topics()
        .iter()
        .filter(|topic| topic.events.iter().any(|ty| types.contains(ty)))
        .map(|topic| topic.name.as_str())
        .collect();
    offsets
        .iter()
        .filter(|((topic, _), _)| topics.contains(topic.as_str()))
        .map(|(place, offset)| (place.clone(), *offset))
        .collect()
}

/// The cursor at these offsets, which are of all partitions of their topics.
fn cursor_at(offsets: &Offsets) -> anyhow::Result<Cursor> {
    let mut topics: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for ((topic, _), offset) in offsets {
        topics.entry(topic).or_default().push(*offset);
    }
    let positions = topics.into_iter();
    let positions = positions.map(|(topic, next)| TopicPosition::new(topic, None, next));
    Ok(Cursor::new(positions)?)
}

fn offsets_of(cursor: &Cursor) -> Offsets {
    let mut offsets = Offsets::new();
    for position in cursor.topics() {
        for (partition, next) in (0..).zip(&position.next) {
            offsets.insert((position.topic.to_string(), partition), *next);
        }
    }
    offsets
}

/// Whether a position is at the offsets `to`, or after them, in all partitions of `from`.
fn has_reached(from: &Offsets, position: &Offsets, to: &Offsets) -> bool {
    from.keys()
        .all(|place| match (position.get(place), to.get(place)) {
            (Some(next), Some(to)) => next >= to,
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(places: &[(&str, i32, i64)]) -> Offsets {
        let place = |(topic, partition, offset): &(&str, i32, i64)| {
            (((*topic).to_owned(), *partition), *offset)
        };
        places.iter().map(place).collect()
    }

    #[test]
    fn a_stream_begins_at_the_offsets_of_its_topics_alone() {
        let all = offsets(&[
            ("shop.orders", 0, 3),
            ("shop.orders", 1, 4),
            ("shop.stock", 0, 9),
        ]);
        let types = ["shop.order-placed.v1".to_owned()];
        let own = start_of(&types, &all);
        assert_eq!(
            own,
            offsets(&[("shop.orders", 0, 3), ("shop.orders", 1, 4)])
        );
        let cursor = cursor_at(&own).expect("a cursor").to_string();
        let cursor: Cursor = cursor.parse().expect("its own text");
        assert_eq!(offsets_of(&cursor), own);
        assert!(cursor_at(&Offsets::new()).is_err(), "no topic");
    }

    #[test]
    fn the_end_is_reached_in_every_partition_of_the_stream() {
        let to = offsets(&[("a", 0, 3), ("a", 1, 4), ("b", 0, 9)]);
        let from = offsets(&[("a", 0, 1), ("a", 1, 1)]);
        for (position, expected) in [
            (offsets(&[("a", 0, 3), ("a", 1, 4)]), true),
            (offsets(&[("a", 0, 5), ("a", 1, 4)]), true),
            (offsets(&[("a", 0, 5), ("a", 1, 3)]), false),
            (offsets(&[("a", 0, 3), ("a", 1, 4), ("b", 0, 8)]), true),
            (offsets(&[("a", 0, 3)]), false),
            (Offsets::new(), false),
        ] {
            assert_eq!(has_reached(&from, &position, &to), expected, "{position:?}");
        }
        assert!(!has_reached(&from, &to, &offsets(&[("a", 0, 3)])), "no end");
    }
}
