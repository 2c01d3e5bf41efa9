//! Applies the entries of a retry partition to its parked set, in the order of the log.
//!
//! Total: an invalid entry, such as a note about a record that does not wait, has no effect.
//! Idempotent: an entry below `next` has no effect, so a partition may be read again from any
//! offset.

use super::super::parked::{RetryState, RetryTopicEntry};
use super::ParkedSet;
use super::key::Hold;

impl ParkedSet {
    /// Notes that the entry at `offset` was seen on the log. An entry that was seen before, or
    /// settled by an earlier assignment, has no effect.
    pub(crate) fn seen(
        &mut self,
        offset: i64,
        name: Option<&[u8]>,
        entry: RetryTopicEntry,
        now_ms: i64,
    ) {
        if offset < self.next {
            return;
        }
        self.next = offset + 1;
        self.has_position = true;
        if self.was_settled(offset) {
            return;
        }
        match entry {
            RetryTopicEntry::Parked {
                source_offset,
                wait,
                is_replay,
            } => self.seen_parked(
                offset,
                name,
                source_offset,
                self.clamped(wait, now_ms),
                is_replay,
            ),
            RetryTopicEntry::Failed { retry_offset, wait } => {
                self.seen_failed(offset, name, retry_offset, self.clamped(wait, now_ms));
            }
            RetryTopicEntry::Held { source_offset } => self.seen_held(offset, name, source_offset),
            RetryTopicEntry::Unknown | RetryTopicEntry::Foreign => {}
        }
    }

    /// Notes that all entries before `offset` were seen: compaction and transaction markers leave
    /// offsets without an entry.
    pub(crate) fn reached(&mut self, offset: i64) {
        self.next = self.next.max(offset);
    }

    /// A parked record goes behind the others of its key. A replay takes the place that was held
    /// for it: the front, since all earlier records were settled when the record failed.
    fn seen_parked(
        &mut self,
        offset: i64,
        name: Option<&[u8]>,
        source_offset: Option<i64>,
        wait: RetryState,
        is_replay: bool,
    ) {
        let id = self.find_or_add(name, offset);
        let key = &mut self.keys[id as usize];
        if let Some(at) = key
            .writing
            .iter()
            .position(|writing| Some(*writing) == source_offset)
        {
            key.writing.swap_remove(at);
        }
        let mut holds = key.holds.iter_mut();
        let takes_place =
            |hold: &&mut Hold| hold.replay.is_none() && Some(hold.source_offset) == source_offset;
        if let Some(hold) = holds.find(takes_place).filter(|_| is_replay) {
            hold.replay = Some(offset);
            // When its record died, all earlier ones were settled.
            key.queue.push_front(offset);
            (key.wait, key.own_rounds) = (wait, None);
        } else {
            let early = source_offset
                .filter(|_| is_replay)
                .map(|source_offset| (source_offset, offset));
            key.early_replays.extend(early);
            key.queue.push_back(offset);
            if key.queue.len() == 1 {
                key.wait = wait;
            }
        }
        self.unsettled.add(offset);
        self.records += 1;
        self.schedule(id);
    }

    /// A note that a record failed again replaces the older note about it. Only the first record of
    /// a key can fail, so that any other note is an invalid one.
    fn seen_failed(
        &mut self,
        offset: i64,
        name: Option<&[u8]>,
        retry_offset: i64,
        wait: RetryState,
    ) {
        let id = match name {
            Some(name) => self.find(name),
            None => self.nameless.get(&retry_offset).copied(),
        };
        let Some(id) = id else { return };
        let key = &mut self.keys[id as usize];
        if key.queue.front() != Some(&retry_offset) {
            return;
        }
        if key.own_rounds.is_none_or(|own| wait.rounds > own) {
            (key.wait, key.own_rounds) = (wait, None);
        }
        if let Some(older) = key.note.replace(offset) {
            self.unsettled.remove(older);
        }
        self.unsettled.add(offset);
        self.schedule(id);
    }

    /// A note that holds a key. Without a key there is nothing to hold.
    fn seen_held(&mut self, offset: i64, name: Option<&[u8]>, source_offset: i64) {
        if name.is_none() {
            return;
        }
        let id = self.find_or_add(name, offset);
        let key = &mut self.keys[id as usize];
        if let Some(at) = key
            .released
            .iter()
            .position(|released| *released == source_offset)
        {
            key.released.swap_remove(at);
            return self.remove_if_done(id);
        }
        let is_own = key.holds_in_writing.contains(&source_offset);
        key.holds_in_writing.retain(|held| *held != source_offset);
        // If the note was written twice, as after a crash in between, the first one counts: the
        // replay may be there already. But if the replay has died as well, the key is held again.
        if is_own
            || key
                .holds
                .iter()
                .all(|hold| hold.source_offset != source_offset)
        {
            let is_it = |(early, _): &(i64, i64)| *early == source_offset;
            let replay = key.early_replays.iter().position(is_it);
            let replay = replay.map(|at| key.early_replays.swap_remove(at).1);
            if let Some(replay) = replay {
                key.queue.retain(|queued| *queued != replay);
                key.queue.push_front(replay);
                (key.wait, key.own_rounds) = (RetryState::default(), None);
            }
            key.holds.push(Hold {
                note: offset,
                source_offset,
                replay,
            });
            key.handed_out = 0;
            self.unsettled.add(offset);
        }
        self.schedule(id);
    }

    /// Whether an earlier assignment settled this offset. Offsets are passed in ascending order, so
    /// ranges that were passed are dropped.
    fn was_settled(&mut self, offset: i64) -> bool {
        while self
            .settled_above
            .first()
            .is_some_and(|run| run.end <= offset)
        {
            self.settled_above.remove(0);
        }
        self.settled_above
            .first()
            .is_some_and(|run| run.contains(&offset))
    }

    /// Bounds the time of the next attempt: whatever a header contains, no record waits for longer
    /// than the policy's longest wait from now on.
    fn clamped(&self, wait: RetryState, now_ms: i64) -> RetryState {
        let latest = now_ms.saturating_add(self.wait_max_ms);
        RetryState {
            not_before_ms: wait.not_before_ms.min(latest),
            ..wait
        }
    }
}
