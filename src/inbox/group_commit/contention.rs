//! Decides how many transactions may be open, by how often they collide. Pure: collisions and times
//! are inputs, a level is the output.
//!
//! Handlers that share rows gain nothing from concurrent transactions: a group holds the rows of
//! all its deliveries until it commits, so two groups that share two rows soon wait for each other.
//! After such collisions one transaction at a time is open, for a period that doubles each time the
//! collisions return.
//!
//! # Formula
//! Each collision adds its cost to a score that leaks one per second, a leaky bucket. At
//! [`COST_MAX`] the level becomes stricter for the present hold, which doubles with each change up
//! to [`HOLD_MAX`] and returns to [`HOLD_MIN`] once the level has been generous for longer than the
//! next hold. A level that has just become more generous starts with a full score, so that one
//! collision is enough to return.

use std::time::Duration;
use tokio::time::Instant;

/// How transactions are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::inbox) enum Level {
    /// As many concurrent groups as the store has connections for. Each abandons a lock that is not
    /// free soon.
    Parallel,
    /// One group at a time among all instances. It waits for locks as long as the store's setting
    /// allows.
    Exclusive,
    /// One delivery at a time among all instances: a group collided although it was the only one,
    /// so it collided with transactions of other programs.
    Single,
}

/// The first pause before a more generous level is tried again.
const HOLD_MIN: Duration = Duration::from_secs(2);

/// The longest such pause.
const HOLD_MAX: Duration = Duration::from_secs(64);

/// Bounds the cost of collisions, reduced by one for each second that passed, before fewer
/// transactions are opened. A single collision may be chance.
const COST_MAX: f64 = 1.5;

/// The cost of a group that waited for others, though not for long.
const STRAIN: f64 = 0.5;

/// The current level of the transactions.
pub(super) struct Contention {
    level: Level,
    /// When the level ends; in the past for the most generous one.
    until: Instant,
    /// How long the next stricter level holds.
    hold: Duration,
    /// The recent collisions at this level, as of `scored_at`.
    score: f64,
    scored_at: Instant,
    /// The time of the last collision.
    collided_at: Option<Instant>,
}

impl Contention {
    /// Starts at the most generous level, with an empty score.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            level: Level::Parallel,
            until: now,
            hold: HOLD_MIN,
            score: 0.0,
            scored_at: now,
            collided_at: None,
        }
    }

    /// The level of a transaction that is opened now.
    pub(super) fn level(&mut self, now: Instant) -> Level {
        if self.level > Level::Parallel && now >= self.until {
            self.level = match self.level {
                Level::Single => Level::Exclusive,
                Level::Exclusive | Level::Parallel => Level::Parallel,
            };
            self.until = now + HOLD_MIN;
            // One collision soon after shows that nothing has changed.
            self.score = COST_MAX;
            self.scored_at = now;
        }
        self.level
    }

    /// Records that a transaction opened at `level` collided with another one, at this cost.
    /// Returns how long a stricter level holds from now on; `None` if the level does not change.
    pub(super) fn collided(&mut self, level: Level, cost: f64, now: Instant) -> Option<Duration> {
        self.collided_at = Some(now);
        self.add(level, cost, now)
    }

    /// Records that a group opened at `level` exceeded its target duration. If transactions collide
    /// at all, it has waited for others, each time too briefly for a collision: without this,
    /// groups would only become smaller. Returns the same as [`Contention::collided`].
    pub(super) fn exceeded_target(&mut self, level: Level, now: Instant) -> Option<Duration> {
        let collided_at = self.collided_at?;
        let is_recent = now.saturating_duration_since(collided_at) < HOLD_MAX;
        match is_recent && level == Level::Parallel {
            true => self.add(level, STRAIN, now),
            false => None,
        }
    }

    /// Adds a cost at `level` to the score, and makes the level stricter if the score is full.
    /// Ignores groups that were opened at a more generous level than the present one.
    fn add(&mut self, level: Level, cost: f64, now: Instant) -> Option<Duration> {
        // No transaction is opened at that level any more.
        if level < self.level(now) {
            return None;
        }
        let leaked = now.saturating_duration_since(self.scored_at).as_secs_f64();
        self.score = (self.score - leaked).max(0.0) + cost;
        self.scored_at = now;
        if level == Level::Parallel && self.score < COST_MAX {
            return None;
        }
        if now.saturating_duration_since(self.until) > self.hold {
            self.hold = HOLD_MIN;
        }
        self.level = match level {
            Level::Parallel => Level::Exclusive,
            Level::Exclusive | Level::Single => Level::Single,
        };
        let hold = self.hold;
        self.until = now + hold;
        self.hold = (hold * 2).min(HOLD_MAX);
        Some(hold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Level::{Exclusive, Parallel, Single};

    const SECOND: Duration = Duration::from_secs(1);
    const SOON: Duration = Duration::from_millis(100);

    #[test]
    fn one_collision_in_a_while_changes_nothing() {
        let mut now = Instant::now();
        let mut contention = Contention::new(now);
        for _ in 0..100 {
            assert_eq!(contention.collided(Parallel, 1.0, now), None);
            assert_eq!(contention.level(now), Parallel);
            now += SECOND;
        }
    }

    #[test]
    fn two_early_collisions_allow_one_group_at_a_time() {
        let mut now = Instant::now();
        let mut contention = Contention::new(now);
        assert_eq!(contention.collided(Parallel, 1.0, now), None);
        now += SOON;
        assert_eq!(contention.collided(Parallel, 1.0, now), Some(HOLD_MIN));
        assert_eq!(contention.level(now + HOLD_MIN - SECOND), Exclusive);
        assert_eq!(contention.level(now + HOLD_MIN), Parallel);
    }

    #[test]
    fn one_that_cost_a_second_does_as_well() {
        let now = Instant::now();
        let mut contention = Contention::new(now);
        assert_eq!(contention.collided(Parallel, 2.0, now), Some(HOLD_MIN));
    }

    #[test]
    fn groups_that_were_open_before_the_change_do_not_count() {
        let now = Instant::now();
        let mut contention = Contention::new(now);
        for expected in [None, Some(HOLD_MIN), None, None] {
            assert_eq!(contention.collided(Parallel, 1.0, now), expected);
        }
        assert_eq!(contention.level(now), Exclusive);
    }

    #[test]
    fn a_colliding_lone_group_allows_one_delivery_at_a_time() {
        let now = Instant::now();
        let mut contention = Contention::new(now);
        contention.collided(Parallel, 1.0, now);
        contention.collided(Parallel, 1.0, now);
        assert_eq!(contention.collided(Exclusive, 1.0, now), Some(HOLD_MIN * 2));
        assert_eq!(contention.level(now), Single);
        let mut later = now + HOLD_MIN * 2;
        assert_eq!(contention.level(later), Exclusive);
        later += HOLD_MIN;
        assert_eq!(contention.level(later), Parallel);
    }

    #[test]
    fn repeated_collisions_lengthen_the_pause() {
        let mut now = Instant::now();
        let mut contention = Contention::new(now);
        contention.collided(Parallel, 1.0, now);
        let mut holds = Vec::new();
        for _ in 0..8 {
            let hold = contention.collided(Parallel, 1.0, now).expect("it changes");
            holds.push(hold.as_secs());
            now += hold;
            assert_eq!(contention.level(now), Parallel);
        }
        assert_eq!(holds, [2, 4, 8, 16, 32, 64, 64, 64]);
    }

    #[test]
    fn slow_groups_count_where_transactions_collide_and_only_there() {
        let now = Instant::now();
        let mut contention = Contention::new(now);
        for _ in 0..100 {
            assert_eq!(contention.exceeded_target(Parallel, now), None);
        }
        assert_eq!(contention.collided(Parallel, 1.0, now), None);
        assert_eq!(contention.exceeded_target(Parallel, now), Some(HOLD_MIN));
        assert_eq!(
            contention.exceeded_target(Exclusive, now),
            None,
            "it is alone"
        );
        let later = now + HOLD_MAX;
        for _ in 0..100 {
            assert_eq!(contention.exceeded_target(Parallel, later), None);
        }
    }

    #[test]
    fn a_long_time_without_collisions_resets_everything() {
        let mut now = Instant::now();
        let mut contention = Contention::new(now);
        contention.collided(Parallel, 1.0, now);
        for _ in 0..4 {
            now += contention.collided(Parallel, 1.0, now).expect("it changes");
            contention.level(now);
        }
        now += HOLD_MAX * 2;
        assert_eq!(contention.level(now), Parallel);
        assert_eq!(contention.collided(Parallel, 1.0, now), None);
        assert_eq!(contention.collided(Parallel, 1.0, now), Some(HOLD_MIN));
    }
}
