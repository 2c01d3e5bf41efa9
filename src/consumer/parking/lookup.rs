//! Asks about retry partitions: whether they exist, where the group stands in them, and where they begin and end.
//!
//! Runs on threads of its own, one for a topic and one for each leader of its partitions: a broker that does not answer keeps
//! its own partitions waiting, and no others. Decides nothing: the answers go to the thread that reads the retry partitions.

use super::super::engine::Engine;
use super::super::own_topics;
use super::super::partition::Partition;
use super::Waker;
use super::trouble::Trouble;
use crate::kafka::queue::{Committed, TopicId, committed, topic_ids};
use crate::kafka::{KafkaConfig, KafkaError};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as ClientError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// How long to wait for one answer of the brokers.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long to wait before missing topics and partitions are made again.
const MAKE_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// What the brokers said of some partitions of one retry topic.
pub(super) struct Answer {
    pub(super) partitions: Vec<Arc<Partition>>,
    pub(super) told: Told,
}

pub(super) enum Told {
    /// They exist.
    Found(Arc<Places>),
    /// Their topic does not exist and cannot be created.
    Absent,
    /// Their topic exists, and did not when it was asked about before.
    Appeared,
    /// It is not known what waits there.
    Trouble(Trouble),
}

/// Where the group stands in retry partitions, and where they begin and end.
pub(super) struct Places {
    pub(super) committed: Vec<Committed>,
    pub(super) beginnings: TopicPartitionList,
    pub(super) ends: TopicPartitionList,
    /// The brokers' id of the topic.
    pub(super) topic_id: Option<TopicId>,
}

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// Everything about partitions that are to be read.
    Places,
    /// Whether a topic that was missing exists now.
    Appeared,
}

/// Whether the topic exists, by the leaders of its partitions.
enum Presence {
    Present(HashMap<i32, i32>),
    Absent,
    Trouble(Trouble),
}

/// Makes missing topics and partitions, now and then.
struct Maker {
    engine: Arc<Engine>,
    kafka: KafkaConfig,
    runtime: Handle,
    /// When it was tried last, and whether the brokers refused.
    last: Mutex<Option<(Instant, bool)>>,
}

impl Maker {
    /// Has missing topics and partitions made. True where the brokers refuse that: what is missing stays missing.
    fn make(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, is_refused)) = *last
            && at.elapsed() < MAKE_AGAIN_AFTER
        {
            return is_refused;
        }
        let made = own_topics::make(&self.kafka, &self.engine.settings);
        let is_refused = match self.runtime.block_on(made) {
            Ok(()) => false,
            Err(error) => {
                tracing::warn!(group = self.engine.group, %error, "retry topics cannot be created or given more partitions; create them");
                !matches!(
                    error,
                    KafkaError::Unreachable { .. }
                        | KafkaError::Timeout { .. }
                        | KafkaError::UnknownTopic { .. }
                )
            }
        };
        *last = Some((Instant::now(), is_refused));
        is_refused
    }
}

/// Who asks, and where the answers go.
#[derive(Clone)]
pub(super) struct Asker {
    consumer: Arc<BaseConsumer>,
    maker: Arc<Maker>,
    answers: mpsc::Sender<Answer>,
    waker: Waker,
}

impl Asker {
    /// An asker whose answers come out of the channel; `waker` is woken for each.
    pub(super) fn new(
        engine: Arc<Engine>,
        kafka: KafkaConfig,
        runtime: Handle,
        consumer: Arc<BaseConsumer>,
        waker: Waker,
    ) -> (Self, mpsc::Receiver<Answer>) {
        let (answers, answered) = mpsc::channel();
        let maker = Maker {
            engine,
            kafka,
            runtime,
            last: Mutex::default(),
        };
        let asker = Self {
            consumer,
            maker: Arc::new(maker),
            answers,
            waker,
        };
        (asker, answered)
    }

    /// Asks about partitions of this retry topic. Each of them is answered for, whatever happens.
    pub(super) fn ask(&self, topic: Arc<str>, partitions: Vec<Arc<Partition>>, question: Question) {
        let asker = self.clone();
        let asked = partitions.clone();
        let ask = move || asker.run(&topic, asked, question);
        let spawned = thread::Builder::new()
            .name("evenkeel-lookup".to_owned())
            .spawn(ask);
        if let Err(error) = spawned {
            let trouble = Trouble::Other(format!("no thread to look it up: {error}"));
            self.answer(partitions, Told::Trouble(trouble));
        }
    }

    fn answer(&self, partitions: Vec<Arc<Partition>>, told: Told) {
        // Nobody waits any more when the run is over.
        let _ = self.answers.send(Answer { partitions, told });
        self.waker.wake();
    }

    fn run(&self, topic: &str, partitions: Vec<Arc<Partition>>, question: Question) {
        let mut presence = self.presence(topic);
        let is_lacking = |leaders: &HashMap<i32, i32>| {
            let mut numbers = partitions.iter().map(|partition| partition.partition);
            numbers.any(|number| !leaders.contains_key(&number))
        };
        if question == Question::Appeared {
            let told = match presence {
                Presence::Absent => Told::Absent,
                Presence::Present(_) => Told::Appeared,
                Presence::Trouble(trouble) => Told::Trouble(trouble),
            };
            return self.answer(partitions, told);
        }
        match &presence {
            Presence::Absent => {
                let is_refused = self.maker.make();
                presence = self.presence(topic);
                if matches!(presence, Presence::Absent) {
                    let told = match is_refused {
                        true => Told::Absent,
                        // Made a moment ago, here or by another member: this broker does not know it yet.
                        false => Told::Trouble(Trouble::InDoubt),
                    };
                    return self.answer(partitions, told);
                }
            }
            Presence::Present(leaders) if is_lacking(leaders) => {
                self.maker.make();
                presence = self.presence(topic);
            }
            Presence::Present(_) | Presence::Trouble(_) => {}
        }
        match presence {
            Presence::Present(leaders) => self.ask_leaders(topic, partitions, &leaders),
            Presence::Absent => self.answer(partitions, Told::Trouble(Trouble::InDoubt)),
            Presence::Trouble(trouble) => self.answer(partitions, Told::Trouble(trouble)),
        }
    }

    /// Asks for the topic by name: in a list of all topics, one that may not be seen is left out.
    fn presence(&self, topic: &str) -> Presence {
        let metadata = match self.consumer.fetch_metadata(Some(topic), ANSWER_WITHIN) {
            Ok(metadata) => metadata,
            Err(error) => return Presence::Trouble(error.into()),
        };
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let Some(found) = found else {
            return Presence::Trouble(Trouble::InDoubt);
        };
        match found.error().map(Code::from) {
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Presence::Absent,
            Some(error) => Presence::Trouble(ClientError::MetadataFetch(error).into()),
            None if found.partitions().is_empty() => Presence::Trouble(Trouble::InDoubt),
            None => {
                let partitions = found.partitions().iter();
                Presence::Present(
                    partitions
                        .map(|partition| (partition.id(), partition.leader()))
                        .collect(),
                )
            }
        }
    }

    /// Asks each leader about its own partitions.
    fn ask_leaders(
        &self,
        topic: &str,
        partitions: Vec<Arc<Partition>>,
        leaders: &HashMap<i32, i32>,
    ) {
        let (known, lacking): (Vec<_>, Vec<_>) = partitions
            .into_iter()
            .partition(|partition| leaders.contains_key(&partition.partition));
        if !lacking.is_empty() {
            let partitions = leaders.len();
            self.answer(lacking, Told::Trouble(Trouble::Lacking { partitions }));
        }
        let committed = match list(topic, &known, Offset::Invalid)
            .and_then(|list| committed(&self.consumer, &list, ANSWER_WITHIN))
        {
            Ok(committed) => committed,
            Err(error) => return self.answer(known, Told::Trouble(error.into())),
        };
        let mut by_leader: HashMap<i32, Vec<Arc<Partition>>> = HashMap::new();
        for partition in known {
            let leader = leaders.get(&partition.partition).copied().unwrap_or(-1);
            by_leader.entry(leader).or_default().push(partition);
        }
        thread::scope(|scope| {
            for (leader, partitions) in by_leader {
                let committed = &committed;
                let ask = move || {
                    let told = if leader < 0 {
                        Err(ClientError::MetadataFetch(Code::LeaderNotAvailable))
                    } else {
                        self.places(topic, &partitions, committed)
                    };
                    let told = told.map_or_else(
                        |error| Told::Trouble(error.into()),
                        |places| Told::Found(Arc::new(places)),
                    );
                    self.answer(partitions, told);
                };
                scope.spawn(ask);
            }
        });
    }

    fn places(
        &self,
        topic: &str,
        partitions: &[Arc<Partition>],
        committed: &[Committed],
    ) -> KafkaResult<Places> {
        let ask = |offset| {
            let places = list(topic, partitions, offset)?;
            self.consumer.offsets_for_times(places, ANSWER_WITHIN)
        };
        let is_asked = |found: &&Committed| {
            let mut numbers = partitions.iter().map(|partition| partition.partition);
            numbers.any(|number| number == found.partition)
        };
        Ok(Places {
            committed: committed.iter().filter(is_asked).cloned().collect(),
            beginnings: ask(Offset::Beginning)?,
            ends: ask(Offset::End)?,
            topic_id: topic_ids(self.consumer.client(), &[topic], ANSWER_WITHIN).remove(topic),
        })
    }
}

fn list(
    topic: &str,
    partitions: &[Arc<Partition>],
    offset: Offset,
) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition_offset(topic, partition.partition, offset)?;
    }
    Ok(list)
}
