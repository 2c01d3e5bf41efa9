//! Deletes parked records that are settled: nobody reads them again, and retry topics keep what they hold for ever.
//!
//! Nothing of another group is deleted. Where names run together a retry topic has entries of two groups, and only the
//! beginning of a partition can be deleted: so it ends at the first entry that is not this group's.

use super::super::engine::Engine;
use crate::kafka::KafkaConfig;
use crate::kafka::KafkaError;
use crate::kafka::admin::Admin;
use crate::kafka::reader::{Reader, Span};
use crate::recovery::parked::Owner;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::task::AbortOnDropHandle;

/// How often settled records are looked for, at most.
const CLEAN_EVERY: Duration = Duration::from_secs(60);

/// How many looks at the committed offsets are remembered, about: as many steps the time has for which settled records stay.
const LOOKS_MAX: u32 = 64;

/// Committed offsets of retry partitions.
type Committed = HashMap<(Arc<str>, i32), i64>;

/// What is known of the entries of an owned retry partition, for those who delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Where it began when it was assigned.
    low: i64,
    /// Whose the entries before this offset are is not known: they were settled before.
    unseen_to: i64,
    /// The first entry that is another group's.
    foreign: Option<i64>,
}

impl Bounds {
    /// Of a partition that begins at `low` and is read from `start` on.
    pub(super) fn new(low: i64, start: i64) -> Self {
        Self {
            low,
            unseen_to: start,
            foreign: None,
        }
    }

    /// The offsets to be looked at before anything is deleted; none when all are known.
    fn unseen(&self) -> Option<std::ops::Range<i64>> {
        (self.low < self.unseen_to).then_some(self.low..self.unseen_to)
    }

    /// They were looked at: this is the first of another group's among them.
    fn looked(&mut self, foreign: Option<i64>) {
        self.unseen_to = self.low;
        self.meet(foreign);
    }

    fn meet(&mut self, foreign: Option<i64>) {
        self.foreign = self.foreign.into_iter().chain(foreign).min();
    }

    /// Up to where it may be deleted of what is settled before `committed`.
    fn deletable(&self, committed: i64) -> i64 {
        self.foreign
            .map_or(committed, |foreign| foreign.min(committed))
    }
}

/// The bounds of all owned retry partitions.
#[derive(Default)]
pub(super) struct AllBounds(HashMap<Arc<str>, HashMap<i32, Bounds>>);

impl AllBounds {
    pub(super) fn begin(&mut self, topic: &Arc<str>, partition: i32, bounds: Bounds) {
        let partitions = self.0.entry(Arc::clone(topic)).or_default();
        partitions.insert(partition, bounds);
    }

    /// An entry is another group's; true for the first one of the partition.
    pub(super) fn meet_foreign(&mut self, topic: &str, partition: i32, offset: i64) -> bool {
        let Some(bounds) = self.get(topic, partition) else {
            return false;
        };
        let is_first = bounds.foreign.is_none();
        bounds.meet(Some(offset));
        is_first
    }

    pub(super) fn forget(&mut self, topic: &str, partition: i32) {
        if let Some(partitions) = self.0.get_mut(topic) {
            partitions.remove(&partition);
        }
    }

    fn get(&mut self, topic: &str, partition: i32) -> Option<&mut Bounds> {
        self.0.get_mut(topic)?.get_mut(&partition)
    }
}

/// Deletes what has been settled for long enough, until the handle is dropped.
pub(in super::super) fn spawn(
    engine: &Arc<Engine>,
    kafka: KafkaConfig,
    admin: Admin,
) -> AbortOnDropHandle<()> {
    let engine = Arc::clone(engine);
    AbortOnDropHandle::new(tokio::spawn(async move {
        let kept = engine.settings.settled_parked_kept;
        let every = kept.clamp(Duration::from_secs(1), CLEAN_EVERY);
        let (mut deleted, mut looks) = (Committed::new(), VecDeque::new());
        loop {
            tokio::time::sleep(every).await;
            let is_due = |(at, _): &(Instant, Committed)| at.elapsed() >= kept / LOOKS_MAX;
            if looks.back().is_none_or(is_due) {
                looks.push_back((Instant::now(), engine.parking.committed()));
            }
            let mut due = Committed::new();
            while let Some((_, look)) = looks.pop_front_if(|(at, _)| at.elapsed() >= kept) {
                due = look;
            }
            if let Err(error) = clean(&engine, &kafka, &admin, due, &mut deleted).await {
                // Brokers may refuse it. What is settled then stays where it is, and costs its room only.
                tracing::debug!(group = engine.group, %error, "settled records of the retry topics are not deleted");
            }
        }
    }))
}

/// Deletes what was committed, and not deleted before.
async fn clean(
    engine: &Arc<Engine>,
    kafka: &KafkaConfig,
    admin: &Admin,
    committed: Committed,
    deleted: &mut Committed,
) -> Result<(), KafkaError> {
    let mut due: BTreeMap<Arc<str>, BTreeMap<i32, i64>> = BTreeMap::new();
    for ((topic, partition), committed) in committed {
        let place = (Arc::clone(&topic), partition);
        if deleted.get(&place).copied().unwrap_or(0) >= committed {
            continue;
        }
        let Some(before) = deletable(engine, kafka, &place, committed).await? else {
            continue;
        };
        if deleted.get(&place).copied().unwrap_or(0) < before {
            due.entry(topic).or_default().insert(partition, before);
        }
    }
    if due.is_empty() {
        return Ok(());
    }
    let mut refusal = Ok(());
    for (topic, before) in due {
        match admin.delete_records(&topic, &before).await {
            Ok(firsts) => {
                let places = firsts.into_iter();
                deleted.extend(
                    places.map(|(partition, first)| ((Arc::clone(&topic), partition), first)),
                );
            }
            Err(error) => refusal = Err(error),
        }
    }
    refusal
}

/// Up to where a partition may be deleted; none when that is not known, or the partition is another member's by now.
async fn deletable(
    engine: &Arc<Engine>,
    kafka: &KafkaConfig,
    place: &(Arc<str>, i32),
    committed: i64,
) -> Result<Option<i64>, KafkaError> {
    let (topic, partition) = place;
    let known = engine.parking.bounds().get(topic, *partition).copied();
    if let Some(unseen) = known.as_ref().and_then(Bounds::unseen) {
        let span = Span {
            topic: Arc::clone(topic),
            partition: *partition,
            start: unseen.start,
            end: Some(unseen.end),
        };
        let (shared, kafka) = (Arc::clone(engine), kafka.clone());
        let look = move || first_foreign(&shared, &kafka, span);
        let looked = tokio::task::spawn_blocking(look).await;
        let foreign = looked.map_err(|error| KafkaError::Unreadable {
            what: "looking for entries of other groups".to_owned(),
            cause: error.to_string(),
        })??;
        // It may have gone and come back meanwhile, with more that was settled before.
        if let Some(bounds) = engine.parking.bounds().get(topic, *partition)
            && bounds.unseen() == known.as_ref().and_then(Bounds::unseen)
        {
            bounds.looked(foreign);
        }
    }
    let bounds = engine.parking.bounds().get(topic, *partition).copied();
    let known = bounds.filter(|bounds| bounds.unseen().is_none());
    Ok(known.map(|bounds| bounds.deletable(committed)))
}

/// The first entry in these offsets that is another group's.
fn first_foreign(
    engine: &Engine,
    kafka: &KafkaConfig,
    span: Span,
) -> Result<Option<i64>, KafkaError> {
    let within = engine.settings.startup_timeout;
    let source = engine
        .settings
        .topics
        .iter()
        .find(|topic| *crate::recovery::retry_topic(&engine.group, topic) == *span.topic);
    let Some(topic) = source else {
        return Ok(None);
    };
    let owner = Owner {
        group: &engine.group,
        topic,
    };
    let mut reader = Reader::over(kafka, vec![span], within)?;
    while !reader.at_end() {
        if let Some(record) = reader.next(within)?
            && !owner.owns(record.headers.iter())
        {
            return Ok(Some(record.offset));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deletion_ends_at_the_first_entry_of_another_group() {
        let mut bounds = Bounds::new(10, 10);
        assert_eq!(bounds.unseen(), None);
        assert_eq!(bounds.deletable(50), 50);
        bounds.meet(Some(30));
        bounds.meet(Some(40));
        assert_eq!(bounds.deletable(50), 30);
        assert_eq!(bounds.deletable(20), 20);
    }

    #[test]
    fn what_was_settled_before_is_looked_at_once() {
        let mut bounds = Bounds::new(10, 25);
        assert_eq!(bounds.unseen(), Some(10..25));
        bounds.looked(Some(12));
        assert_eq!(bounds.unseen(), None);
        assert_eq!(bounds.deletable(50), 12);
        let mut bounds = Bounds::new(10, 25);
        bounds.looked(None);
        assert_eq!(bounds.deletable(50), 50);
    }
}
