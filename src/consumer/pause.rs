//! How a partition stops being handled, and how it goes on, while it stays assigned.
//!
//! Runs on the poll thread. The partition's epoch is fenced, so that nothing of it starts any more; its queue is forwarded no
//! longer, and the client fetches nothing of it. It goes on under a fresh epoch from the committed offset: what was fetched
//! before is outdated for the client by then, so that no record is booked under an epoch that it does not belong to.

use super::commit::Order;
use super::ledger::Epoch;
use super::parking::follow;
use super::rebalance::{Assigned, COMMITTED_WITHIN, Drain, Member, epochs_of, owned_of};
use crate::kafka::queue::{Committed, TopicId, committed, forward, set_leader_epoch, unforward};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{HashMap, HashSet};
use std::sync::mpsc::TryRecvError;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// How long the client may take to set a position.
pub(super) const SEEK_WITHIN: Duration = Duration::from_secs(5);

/// A partition by name.
pub(crate) type Place = (Arc<str>, i32);

/// Where the group stands on partitions.
pub(crate) type Stands = HashMap<(String, i32), Committed>;

/// What the committing thread is asked for partitions that are to go on.
pub(crate) struct Question {
    places: Vec<Place>,
    /// What they were held under: a partition that went meanwhile has others when it comes back.
    epochs: Vec<Epoch>,
    /// None when what is settled could not be committed.
    answer: mpsc::Receiver<Option<KafkaResult<Stands>>>,
}

impl Question {
    fn is_about(&self, places: &[Place], epochs: &[Epoch]) -> bool {
        self.places == places && self.epochs == epochs
    }
}

/// Reads where the group stands on these partitions. Waits for the brokers.
pub(super) fn look_up_stands<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    places: &[Place],
) -> KafkaResult<Stands> {
    let found = committed(consumer, &list(places), COMMITTED_WITHIN)?;
    let by_place = found
        .into_iter()
        .map(|found| ((found.topic.clone(), found.partition), found));
    Ok(by_place.collect())
}

/// How far a partition has come in being paused.
pub(crate) enum Held {
    /// What had started is given time to end.
    Draining { drain: Drain, until: Instant },
    /// Nothing of it runs, or what does was given up waiting for.
    Still { drained: bool },
}

impl Member {
    /// Stops handling these partitions.
    pub(crate) fn hold(&self, consumer: &BaseConsumer<Self>, places: &[Place]) {
        let until = Instant::now() + self.engine.settings.revoke_timeout;
        for (topic, partition) in places {
            let Some(held) = self.assignments().get(topic, *partition).map(|assigned| {
                assigned.partition.fence();
                Arc::clone(&assigned.partition)
            }) else {
                continue;
            };
            // What is parked of it is read and handed out no longer, either.
            let epochs: Vec<Epoch> = epochs_of(&held).collect();
            let _ = self.followed.send(follow::Order::Revoked(epochs.clone()));
            self.engine.parking.wake_reader();
            if let Err(error) = unforward(consumer, topic, *partition) {
                tracing::warn!(group = self.engine.group, %topic, partition, %error, "the paused partition's queue goes on being served; its records are passed over");
            }
            let drain = self.fence(&epochs);
            if let Some(assigned) = self.assignments().get(topic, *partition) {
                assigned.held = Some(Held::Draining { drain, until });
            }
        }
        self.stop_fetching(consumer, places);
    }

    /// Goes on with what was begun: says whether partitions are still being drained.
    pub(crate) fn mind_held(&self) -> bool {
        let (mut drained, mut is_draining) = (Vec::new(), false);
        for assigned in self.assignments().all() {
            match &mut assigned.held {
                Some(Held::Draining { drain, until }) => {
                    let is_done = drain.wait(Duration::ZERO);
                    if is_done || Instant::now() >= *until {
                        assigned.held = Some(Held::Still { drained: is_done });
                        drained.extend(epochs_of(&assigned.partition));
                    } else {
                        is_draining = true;
                    }
                }
                Some(Held::Still { .. }) | None => {}
            }
        }
        if !drained.is_empty() {
            let (answer, _) = mpsc::channel();
            // Committed again, and waited for, when it is let go on.
            let _ = self.orders.send(Order::Commit(drained, answer));
        }
        is_draining
    }

    /// Partitions go: the client must not remember that they were paused when they come back.
    pub(super) fn forget_pauses(&self, consumer: &BaseConsumer<Self>, gone: &[Assigned]) {
        let paused = gone
            .iter()
            .filter(|assigned| assigned.held.is_some() || assigned.is_unreadable);
        let places: Vec<Place> = paused
            .map(|assigned| {
                let partition = &assigned.partition;
                (Arc::clone(&partition.topic), partition.partition)
            })
            .collect();
        if !places.is_empty() {
            // A partition that is gone already has nothing to be resumed.
            let _ = consumer.resume(&list(&places));
        }
    }

    fn stop_fetching(&self, consumer: &BaseConsumer<Self>, places: &[Place]) {
        if places.is_empty() {
            return;
        }
        let list = list(places);
        let paused = consumer.pause(&list).and_then(|()| {
            let elements = list.elements();
            elements.iter().try_for_each(|element| element.error())
        });
        if let Err(error) = paused {
            // Its queue is bounded, and nobody takes from it.
            tracing::debug!(group = self.engine.group, %error, "the client goes on fetching paused partitions");
        }
    }

    /// Lets partitions go on from where they stand; says which of the places did. The others stay paused and are to be tried
    /// again.
    ///
    /// Where they stand is asked of the brokers by the committing thread: this one, which serves all partitions, does not wait for
    /// the answer.
    pub(crate) fn release(&self, consumer: &BaseConsumer<Self>, places: &[Place]) -> Vec<Place> {
        let is_still = |place: &&Place| {
            let mut assignments = self.assignments();
            let assigned = assignments.get(&place.0, place.1);
            assigned.is_some_and(|assigned| matches!(assigned.held, Some(Held::Still { .. })))
        };
        let mut places: Vec<Place> = places.iter().filter(is_still).cloned().collect();
        places.sort();
        if places.is_empty() {
            return places;
        }
        let places = self.set_back(consumer, places);
        if places.is_empty() {
            return places;
        }
        let Some(answer) = self.ask_where_they_stand(&places) else {
            return Vec::new();
        };
        match answer.and_then(|stands| self.try_release(consumer, &places, stands)) {
            Ok(released) => released,
            Err(error) => {
                tracing::warn!(group = self.engine.group, %error, "paused partitions cannot go on yet; it is tried again");
                Vec::new()
            }
        }
    }

    /// Has what is settled of these places committed, and where they stand then looked up. None while there is no answer.
    fn ask_where_they_stand(&self, places: &[Place]) -> Option<KafkaResult<Stands>> {
        let mut asked = self.asked();
        if let Some(question) = asked.as_ref()
            && question.is_about(places, &self.epochs(places))
        {
            return match question.answer.try_recv() {
                Err(TryRecvError::Empty) => None,
                Ok(answer) => {
                    *asked = None;
                    answer
                }
                // The committer may end at any time.
                Err(TryRecvError::Disconnected) => {
                    *asked = None;
                    None
                }
            };
        }
        let (tell, answer) = mpsc::channel();
        let epochs = self.epochs(places);
        *asked = Some(Question {
            places: places.to_vec(),
            epochs: epochs.clone(),
            answer,
        });
        let _ = self
            .orders
            .send(Order::Stand(epochs, places.to_vec(), tell));
        None
    }

    fn epochs(&self, places: &[Place]) -> Vec<Epoch> {
        let mut assignments = self.assignments();
        let mut epochs = Vec::with_capacity(places.len());
        for place in places {
            if let Some(assigned) = assignments.get(&place.0, place.1) {
                // What is known of a log before it began anew is not committed.
                let own = assigned.fall_back.map(|_| assigned.partition.epoch);
                epochs.extend(epochs_of(&assigned.partition).filter(|epoch| Some(*epoch) != own));
            }
        }
        epochs
    }

    fn try_release(
        &self,
        consumer: &BaseConsumer<Self>,
        places: &[Place],
        stands: Stands,
    ) -> KafkaResult<Vec<Place>> {
        let mut begun = HashSet::new();
        for place in places {
            if let Some(assigned) = self.assignments().get(&place.0, place.1)
                && (assigned.committed.is_some() || assigned.next.is_some())
            {
                begun.insert(place);
            }
        }
        let stand = |place: &Place| stands.get(&(place.0.to_string(), place.1));
        let is_unknown = |place: &&Place| {
            begun.contains(place) && stand(place).and_then(|stand| stand.offset).is_none()
        };
        if let Some((topic, partition)) = places.iter().find(is_unknown) {
            // The client would go on behind what it gave out last, and what was let go unsettled would be lost.
            tracing::warn!(group = self.engine.group, %topic, partition, "where the paused partition stands is not told; it is asked again");
            return Ok(Vec::new());
        }
        // Without a committed offset nothing was handed on: the client begins where it would have begun, unless records were taken
        // from it that were not handed on.
        let mut seeks = TopicPartitionList::new();
        for place in places {
            let taken_from = || self.assignments().get(&place.0, place.1)?.taken_from;
            let committed = stand(place).and_then(|stand| stand.offset);
            if let Some(offset) = committed.or_else(taken_from) {
                seeks.add_partition_offset(&place.0, place.1, Offset::Offset(offset))?;
            }
        }
        for place in places {
            if let Some(stand) = stand(place) {
                set_leader_epoch(&seeks, &place.0, place.1, stand.leader_epoch)?;
            }
        }
        if seeks.count() > 0 {
            let sought = consumer.seek_partitions(seeks, SEEK_WITHIN)?;
            sought
                .elements()
                .iter()
                .try_for_each(|element| element.error())?;
        }
        let ids = self.topic_ids(consumer, &list(places));
        for place in places {
            self.go_on(place, stand(place), ids.get(&*place.0).copied());
        }
        if let Err(error) = self.let_through(consumer, places) {
            self.engine
                .fail(format!("paused partitions cannot be read again: {error}"));
        }
        Ok(places.to_vec())
    }

    /// Gives a partition a fresh epoch.
    fn go_on(
        &self,
        (topic, partition): &Place,
        stand: Option<&Committed>,
        topic_id: Option<TopicId>,
    ) {
        let mut assignments = self.assignments();
        let Some(before) = assignments.remove(topic, *partition) else {
            return;
        };
        let old: Vec<Epoch> = epochs_of(&before.partition).collect();
        let _ = self.orders.send(Order::Forget(old.clone()));
        {
            let mut ledger = self.engine.ledger();
            old.into_iter().for_each(|old| ledger.revoke(old));
        }
        let retry = self.retry_partition(&mut assignments, topic);
        assignments.insert(topic, *partition, before.received, retry);
        let Some(assigned) = assignments.get(topic, *partition) else {
            return;
        };
        // A log that begins anew has another end.
        assigned.end = before.end.filter(|_| before.fall_back.is_none());
        let nothing = Committed::default();
        assigned.stand(&self.engine, stand.unwrap_or(&nothing), topic_id);
        // The brokers were asked when it was sought.
        assigned.committed_under = None;
        self.own(owned_of(assigned));
    }

    /// Lets the records of partitions come again.
    fn let_through(&self, consumer: &BaseConsumer<Self>, places: &[Place]) -> KafkaResult<()> {
        if let Some(targets) = self.targets() {
            for (topic, partition) in places {
                let is_gated = |assigned: &mut Assigned| assigned.is_gated;
                let mut assignments = self.assignments();
                // Those whose parked set is to be rebuilt are let through when that is whole.
                let target = match assignments.get(topic, *partition).is_some_and(is_gated) {
                    true => targets.gated,
                    false => targets.open,
                };
                forward(consumer, topic, *partition, target)?;
            }
        }
        consumer.resume(&list(places))
    }
}

/// These partitions as the client's list.
fn list(places: &[Place]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(places.len());
    for (topic, partition) in places {
        list.add_partition(topic, *partition);
    }
    list
}
