//! Counts of a drill: how each repetition was settled, and the judgement on the handlers. Pure.
//!
//! A judgement never passes what was not judged: one type that is not idempotent decides for all,
//! then one that was not answered, then one that could not be delivered. Only if none is left,
//! recognised repetitions prove the group idempotent.

use super::selection::Fate;
use super::verdict::{Counts, TypeRow, Verdict};
use evenkeel::recovery::RepetitionOutcome;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The judgement of a drill on a group.
///
/// Exhaustive on purpose: an exit code belongs to each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
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
const NAMED_MAX: usize = 10;

/// Topic and type.
type Name = (String, String);

/// Position of a repetition: topic, partition and offset.
pub(super) type Place = (String, i32, i64);

/// An answer of the group to a repetition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
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
    counts: BTreeMap<Name, Counts>,
    /// Repetitions on the log without an answer.
    open: HashMap<Place, Repetition>,
    /// Acknowledged by the brokers.
    delivered: u64,
    answered: u64,
    /// Events that were handled again, in words.
    pub(super) named: Vec<String>,
}

impl Tally {
    /// Counts a settled event.
    pub(super) fn found(&mut self, topic: &str, ty: &str, fate: Fate) {
        let counts = self.counts(topic, ty);
        match fate {
            Fate::Repeated => counts.events += 1,
            Fate::KeyWaits => counts.key_waits += 1,
            Fate::Died => counts.dead_letters += 1,
        }
    }

    /// Counts a repetition that the brokers acknowledged.
    pub(super) fn delivered(&mut self) {
        self.delivered += 1;
    }

    /// Counts an event that cannot be delivered.
    pub(super) fn undelivered(&mut self, topic: &str, ty: &str) {
        self.counts(topic, ty).undelivered += 1;
    }

    /// Registers a repetition that was read from the log.
    pub(super) fn seen(&mut self, at: Place, repetition: Repetition) {
        self.open.insert(at, repetition);
    }

    /// Counts the group's answer to the repetition at a position. Returns whether it is an answer
    /// to this drill. Only the first answer counts: a failed repetition is retried, and one that
    /// was handled again is a duplicate afterwards.
    pub(super) fn heard(&mut self, at: &Place, heard: &Heard) -> bool {
        let Some(repetition) = self.open.remove(at) else {
            return false;
        };
        self.answered += 1;
        let counts = self.counts(&repetition.topic, &repetition.ty);
        let (count, what) = match heard {
            Heard::Settled(RepetitionOutcome::Duplicate) => (&mut counts.recognised, None),
            Heard::Settled(RepetitionOutcome::Ignored) => (&mut counts.ignored, None),
            Heard::Settled(RepetitionOutcome::Skipped) => (&mut counts.skipped, None),
            Heard::Settled(RepetitionOutcome::Dead) | Heard::Failed => {
                let what = "not recognised, and its handler failed";
                (&mut counts.failed, Some(what))
            }
            // An unknown answer of a newer member: the member did not recognise the event as a
            // duplicate.
            Heard::Settled(_) => (&mut counts.handled_again, Some("handled again")),
        };
        *count += 1;
        if let Some(what) = what.filter(|_| self.named.len() < NAMED_MAX) {
            self.named.push(format!("{} was {what}", repetition.event));
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
    pub fn named(&self) -> &[String] {
        &self.named
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
    pub fn left_out(&self) -> (u64, u64) {
        let counts = self.counts.values();
        counts.fold((0, 0), |(waits, died), counts| {
            (waits + counts.key_waits, died + counts.dead_letters)
        })
    }

    /// One row for each topic and type. `executed` is copied into each row.
    pub fn rows(&self, executed: bool) -> impl Iterator<Item = TypeRow> {
        let counts = self.counts.iter();
        counts.map(move |((topic, ty), counts)| TypeRow::new(topic, ty, counts, executed))
    }

    /// The judgement on the group, with its text. Before the drill has ended, it is that of an
    /// early end.
    pub fn judge(&self, group: &str) -> (Judgement, String) {
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
            return (Judgement::NotIdempotent, text);
        }
        let unanswered = sum(|counts| counts.unanswered() + counts.skipped);
        if unanswered > 0 {
            let text = format!(
                "{unanswered} repetitions were not answered, so nothing is proven for {}: their \
                 members are busy, paused or of a release that does not answer drills",
                of(Verdict::Unanswered)
            );
            return (Judgement::Unanswered, text);
        }
        let undelivered = sum(|counts| counts.undelivered);
        if undelivered > 0 {
            let text = format!(
                "{undelivered} events could not be delivered again, so nothing is proven for {}",
                of(Verdict::Undelivered)
            );
            return (Judgement::Unproven, text);
        }
        match sum(|counts| counts.recognised) {
            0 => (
                Judgement::Unproven,
                format!(
                    "nothing was judged: {group} has settled no event in that range with a handler"
                ),
            ),
            recognised => (
                Judgement::Idempotent,
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

    fn place(offset: i64) -> Place {
        ("retry.g.orders".to_owned(), 0, offset)
    }

    /// A drill with one event for each answer. `None` stands for an unanswered one.
    fn tally(heard: &[(&str, Option<Heard>)]) -> Tally {
        let mut tally = Tally::default();
        for (offset, (ty, heard)) in heard.iter().enumerate() {
            let place = place(offset as i64);
            tally.found(TOPIC, ty, Fate::Repeated);
            tally.delivered();
            let repetition = Repetition {
                topic: TOPIC.to_owned(),
                ty: (*ty).to_owned(),
                event: format!("{TOPIC}/0@{offset}"),
            };
            tally.seen(place.clone(), repetition);
            if let Some(heard) = heard {
                assert!(tally.heard(&place, heard));
            }
        }
        tally
    }

    fn settled(outcome: RepetitionOutcome) -> Option<Heard> {
        Some(Heard::Settled(outcome))
    }

    #[test]
    fn a_type_is_judged_by_its_worst_answer() {
        use RepetitionOutcome::{Dead, Done, Duplicate, Ignored, Skipped};
        let check = |answers: &[Option<Heard>], expected| {
            let answers: Vec<_> = answers.iter().map(|heard| ("a", heard.clone())).collect();
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
            &[settled(Duplicate), Some(Heard::Failed)],
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
        tally.found(TOPIC, "a", Fate::Repeated);
        tally.undelivered(TOPIC, "a");
        let verdicts: Vec<_> = tally.rows(true).map(|row| row.verdict).collect();
        assert_eq!(verdicts, [Verdict::Undelivered]);
        assert_eq!(tally.judge("g").0, Judgement::Unproven);
    }

    #[test]
    fn the_judgement_never_passes_what_was_not_judged() {
        use RepetitionOutcome::{Done, Duplicate, Ignored};
        let check = |answers: &[(&str, Option<Heard>)], expected| {
            assert_eq!(tally(answers).judge("g").0, expected, "{answers:?}");
        };
        check(
            &[("a", settled(Duplicate)), ("b", settled(Ignored))],
            Judgement::Idempotent,
        );
        check(
            &[("a", settled(Duplicate)), ("b", settled(Done))],
            Judgement::NotIdempotent,
        );
        check(
            &[("a", settled(Done)), ("b", None)],
            Judgement::NotIdempotent,
        );
        check(
            &[("a", settled(Duplicate)), ("b", None)],
            Judgement::Unanswered,
        );
        check(&[("a", settled(Ignored))], Judgement::Unproven);
        check(&[], Judgement::Unproven);
    }

    #[test]
    fn only_the_first_answer_to_a_repetition_counts() {
        let mut tally = tally(&[("a", Some(Heard::Failed))]);
        let later = Heard::Settled(RepetitionOutcome::Duplicate);
        assert!(!tally.heard(&place(0), &later));
        assert_eq!(tally.unanswered(), 0);
        assert_eq!(tally.judge("g").0, Judgement::NotIdempotent);
        assert_eq!(tally.named.len(), 1);
    }
}
