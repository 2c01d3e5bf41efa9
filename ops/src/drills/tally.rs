//! Counts of a drill: how each repetition was settled, and the result for the handlers. Pure.
//!
//! A group passes only if nothing is open. A type that is not idempotent decides the result, then
//! an unanswered repetition, then one that could not be delivered. Without any of these, recognised
//! repetitions prove the group idempotent.

use super::selection::Fate;
use super::verdict::{Counts, TypeRow, Verdict};
use evenkeel::recovery::RepetitionOutcome;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The result of a drill for a group.
///
/// Exhaustive on purpose: an exit code belongs to each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrillResult {
    /// Every repetition was recognised as a duplicate.
    Idempotent,
    /// A handler was called again. Its effect exists twice, unless the handler itself tolerates
    /// that, which only its authors know.
    NotIdempotent,
    /// Some repetitions were not answered: members are busy or paused, or do not know drills. Try
    /// again with a longer wait.
    Unanswered,
    /// Nothing, or not everything, could be judged: no event has a handler, or some could not be
    /// delivered.
    Unproven,
}

/// Maximum number of events that are named as handled again.
const EXAMPLES_MAX: usize = 10;

/// Topic and type.
type TopicAndType = (String, String);

/// Position of a repetition: topic, partition and offset.
pub(super) type LogPosition = (String, i32, i64);

/// An answer of the group to a repetition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RepetitionAnswer {
    /// It was settled.
    Settled(RepetitionOutcome),
    /// A handler was called again and failed; it will be retried.
    Failed,
}

/// A repetition on the log.
#[derive(Debug, Clone)]
pub(super) struct Repetition {
    /// Topic of the event.
    pub(super) topic: String,
    pub(super) ty: String,
    /// The event's name in messages.
    pub(super) event: String,
}

/// The counts of a drill, and the repetitions without an answer.
#[derive(Debug, Default)]
pub struct Tally {
    counts: BTreeMap<TopicAndType, Counts>,
    /// Repetitions on the log without an answer.
    open: HashMap<LogPosition, Repetition>,
    /// Acknowledged by the brokers.
    delivered: u64,
    answered: u64,
    /// Events that were handled again, in words.
    handled_again: Vec<String>,
}

impl Tally {
    /// Counts a settled event.
    pub(super) fn count_settled(&mut self, topic: &str, ty: &str, fate: Fate) {
        let counts = self.counts(topic, ty);
        match fate {
            Fate::Repeated => counts.events += 1,
            Fate::KeyWaits => counts.key_waits += 1,
            Fate::DeadLetter => counts.dead_letters += 1,
        }
    }

    /// Counts a repetition that the brokers acknowledged.
    pub(super) fn count_delivered(&mut self) {
        self.delivered += 1;
    }

    /// Counts an event that cannot be delivered.
    pub(super) fn count_undelivered(&mut self, topic: &str, ty: &str) {
        self.counts(topic, ty).undelivered += 1;
    }

    /// Registers a repetition that was read from the log.
    pub(super) fn add_repetition(&mut self, at: LogPosition, repetition: Repetition) {
        self.open.insert(at, repetition);
    }

    /// Counts the group's answer to the repetition at a position. Returns whether it is an answer
    /// to this drill. Only the first answer counts: a failed repetition is retried, and one that
    /// was handled again is a duplicate afterwards.
    pub(super) fn record_answer(&mut self, at: &LogPosition, answer: &RepetitionAnswer) -> bool {
        let Some(repetition) = self.open.remove(at) else {
            return false;
        };
        self.answered += 1;
        let counts = self.counts(&repetition.topic, &repetition.ty);
        let (count, what) = match answer {
            RepetitionAnswer::Settled(RepetitionOutcome::Duplicate) => {
                (&mut counts.recognised, None)
            }
            RepetitionAnswer::Settled(RepetitionOutcome::Ignored) => (&mut counts.ignored, None),
            RepetitionAnswer::Settled(RepetitionOutcome::Skipped) => (&mut counts.skipped, None),
            RepetitionAnswer::Settled(RepetitionOutcome::Dead) | RepetitionAnswer::Failed => {
                let what = "not recognised, and its handler failed";
                (&mut counts.failed, Some(what))
            }
            // An unknown answer of a newer member: the member did not recognise the event as a
            // duplicate.
            RepetitionAnswer::Settled(_) => (&mut counts.handled_again, Some("handled again")),
        };
        *count += 1;
        if let Some(what) = what.filter(|_| self.handled_again.len() < EXAMPLES_MAX) {
            self.handled_again
                .push(format!("{} was {what}", repetition.event));
        }
        true
    }

    /// The number of delivered repetitions without an answer. An answer may arrive before the
    /// brokers' acknowledgement.
    pub(super) fn unanswered(&self) -> u64 {
        self.delivered.saturating_sub(self.answered)
    }

    /// The number of repetitions whose handler failed.
    pub(super) fn failed(&self) -> u64 {
        self.counts.values().map(|counts| counts.failed).sum()
    }

    /// Up to ten events that were handled again, in words, with their positions.
    pub fn handled_again(&self) -> &[String] {
        &self.handled_again
    }

    /// The topics with unanswered repetitions.
    pub fn unanswered_topics(&self) -> BTreeSet<&str> {
        let counts = self.counts.iter();
        let open = counts.filter(|(_, counts)| counts.unanswered() > 0);
        open.map(|((topic, _), _)| topic.as_str()).collect()
    }

    /// The number of events to repeat.
    pub fn events(&self) -> u64 {
        self.counts.values().map(|counts| counts.events).sum()
    }

    /// The numbers of excluded events: those whose keys wait, and dead letters.
    pub fn excluded(&self) -> (u64, u64) {
        let counts = self.counts.values();
        counts.fold((0, 0), |(waits, dead), counts| {
            (waits + counts.key_waits, dead + counts.dead_letters)
        })
    }

    /// One row for each topic and type. `executed` is copied into each row.
    pub fn rows(&self, executed: bool) -> impl Iterator<Item = TypeRow> {
        let counts = self.counts.iter();
        counts.map(move |((topic, ty), counts)| TypeRow::new(topic, ty, counts, executed))
    }

    /// The result for the group, with its text. Before the drill has ended, it is that of an early
    /// end.
    pub fn result(&self, group: &str) -> (DrillResult, String) {
        let of = |verdict: Verdict| {
            let found = self.counts.iter();
            let found = found.filter(|(_, counts)| counts.verdict() == verdict);
            let types: BTreeSet<&str> = found.map(|((_, ty), _)| ty.as_str()).collect();
            types.into_iter().collect::<Vec<_>>().join(", ")
        };
        let sum = |count: fn(&Counts) -> u64| -> u64 { self.counts.values().map(count).sum() };
        let bad = of(Verdict::NotIdempotent);
        if !bad.is_empty() {
            let text = format!(
                "{group} is not idempotent for {bad}: an effect that differs when it happens twice \
                 exists twice now, and an upsert of the newest state of a key may have restored an \
                 older one"
            );
            return (DrillResult::NotIdempotent, text);
        }
        let unanswered = sum(|counts| counts.unanswered() + counts.skipped);
        if unanswered > 0 {
            let text = format!(
                "{unanswered} repetitions were not answered, so nothing is proven for {}: their \
                 members are busy, paused or of a release that does not answer drills",
                of(Verdict::Unanswered)
            );
            return (DrillResult::Unanswered, text);
        }
        let undelivered = sum(|counts| counts.undelivered);
        if undelivered > 0 {
            let text = format!(
                "{undelivered} events could not be delivered again, so nothing is proven for {}",
                of(Verdict::Undelivered)
            );
            return (DrillResult::Unproven, text);
        }
        match sum(|counts| counts.recognised) {
            0 => (
                DrillResult::Unproven,
                format!(
                    "nothing was judged: {group} has settled no event in that range with a handler"
                ),
            ),
            recognised => (
                DrillResult::Idempotent,
                format!(
                    "{group} recognised all {recognised} repetitions and called no handler for them"
                ),
            ),
        }
    }

    fn counts(&mut self, topic: &str, ty: &str) -> &mut Counts {
        self.counts
            .entry((topic.to_owned(), ty.to_owned()))
            .or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: &str = "orders";

    fn position(offset: i64) -> LogPosition {
        ("retry.g.orders".to_owned(), 0, offset)
    }

    /// A drill with one event for each answer. `None` stands for an unanswered one.
    fn tally(answers: &[(&str, Option<RepetitionAnswer>)]) -> Tally {
        let mut tally = Tally::default();
        for (offset, (ty, answer)) in answers.iter().enumerate() {
            let position = position(offset as i64);
            tally.count_settled(TOPIC, ty, Fate::Repeated);
            tally.count_delivered();
            let repetition = Repetition {
                topic: TOPIC.to_owned(),
                ty: (*ty).to_owned(),
                event: format!("{TOPIC}/0@{offset}"),
            };
            tally.add_repetition(position.clone(), repetition);
            if let Some(answer) = answer {
                assert!(tally.record_answer(&position, answer));
            }
        }
        tally
    }

    fn settled(outcome: RepetitionOutcome) -> Option<RepetitionAnswer> {
        Some(RepetitionAnswer::Settled(outcome))
    }

    #[test]
    fn a_type_is_judged_by_its_worst_answer() {
        use RepetitionOutcome::{Dead, Done, Duplicate, Ignored, Skipped};
        let check = |answers: &[Option<RepetitionAnswer>], expected| {
            let answers: Vec<_> = answers.iter().map(|answer| ("a", answer.clone())).collect();
            let [row] = tally(&answers)
                .rows(true)
                .collect::<Vec<_>>()
                .try_into()
                .unwrap();
            assert_eq!(row.verdict, expected, "{answers:?}");
        };
        check(&[settled(Duplicate)], Verdict::Idempotent);
        check(&[settled(Duplicate), settled(Done)], Verdict::NotIdempotent);
        check(&[settled(Done), None], Verdict::NotIdempotent);
        check(
            &[settled(Duplicate), Some(RepetitionAnswer::Failed)],
            Verdict::NotIdempotent,
        );
        check(&[settled(Dead)], Verdict::NotIdempotent);
        check(&[settled(Duplicate), None], Verdict::Unanswered);
        check(&[settled(Duplicate), settled(Skipped)], Verdict::Unanswered);
        check(&[settled(Ignored)], Verdict::Ignored);
    }

    #[test]
    fn undelivered_repetitions_are_not_idempotent_by_their_neighbours() {
        let mut tally = tally(&[("a", settled(RepetitionOutcome::Duplicate))]);
        tally.count_settled(TOPIC, "a", Fate::Repeated);
        tally.count_undelivered(TOPIC, "a");
        let verdicts: Vec<_> = tally.rows(true).map(|row| row.verdict).collect();
        assert_eq!(verdicts, [Verdict::Undelivered]);
        assert_eq!(tally.result("g").0, DrillResult::Unproven);
    }

    #[test]
    fn a_group_does_not_pass_if_anything_is_open() {
        use RepetitionOutcome::{Done, Duplicate, Ignored};
        let check = |answers: &[(&str, Option<RepetitionAnswer>)], expected| {
            assert_eq!(tally(answers).result("g").0, expected, "{answers:?}");
        };
        check(
            &[("a", settled(Duplicate)), ("b", settled(Ignored))],
            DrillResult::Idempotent,
        );
        check(
            &[("a", settled(Duplicate)), ("b", settled(Done))],
            DrillResult::NotIdempotent,
        );
        check(
            &[("a", settled(Done)), ("b", None)],
            DrillResult::NotIdempotent,
        );
        check(
            &[("a", settled(Duplicate)), ("b", None)],
            DrillResult::Unanswered,
        );
        check(&[("a", settled(Ignored))], DrillResult::Unproven);
        check(&[], DrillResult::Unproven);
    }

    #[test]
    fn only_the_first_answer_to_a_repetition_counts() {
        let mut tally = tally(&[("a", Some(RepetitionAnswer::Failed))]);
        let later = RepetitionAnswer::Settled(RepetitionOutcome::Duplicate);
        assert!(!tally.record_answer(&position(0), &later));
        assert_eq!(tally.unanswered(), 0);
        assert_eq!(tally.result("g").0, DrillResult::NotIdempotent);
        assert_eq!(tally.handled_again.len(), 1);
    }
}
