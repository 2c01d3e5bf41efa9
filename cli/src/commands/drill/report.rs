//! What came of a drill: how each repetition was settled, and what that says of the handlers. Pure.

use super::row::{Counts, TypeRow, Verdict};
use super::selection::Fate;
use crate::exit::{Ending, NoAnswer};
use evenkeel::recovery::RepetitionOutcome;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// How many events that were handled again are named.
const NAMED_MAX: usize = 10;

/// Topic and type.
type Name = (String, String);

/// Where a repetition stands: topic, partition and offset.
pub(super) type Place = (String, i32, i64);

/// What is heard of a repetition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    /// It was settled.
    Settled(RepetitionOutcome),
    /// A handler was called again and failed; it is tried again in its time.
    Failed,
}

/// A repetition on the log.
#[derive(Debug, Clone)]
pub(super) struct Repetition {
    /// The topic of the event.
    pub(super) topic: String,
    pub(super) ty: String,
    /// The event, as it is named to people.
    pub(super) event: String,
}

/// The counts of a drill, and the repetitions that are still to be answered for.
#[derive(Default)]
pub(super) struct Tally {
    counts: BTreeMap<Name, Counts>,
    open: HashMap<Place, Repetition>,
    delivered: u64,
    answered: u64,
    /// Some that were handled again.
    pub(super) named: Vec<String>,
}

impl Tally {
    /// A settled event was found.
    pub(super) fn found(&mut self, topic: &str, ty: &str, fate: Fate) {
        let counts = self.counts(topic, ty);
        match fate {
            Fate::Repeated => counts.events += 1,
            Fate::KeyWaits => counts.key_waits += 1,
            Fate::Died => counts.dead_letters += 1,
        }
    }

    /// The brokers have acknowledged one.
    pub(super) fn delivered(&mut self) {
        self.delivered += 1;
    }

    /// It cannot be delivered.
    pub(super) fn undelivered(&mut self, topic: &str, ty: &str) {
        self.counts(topic, ty).undelivered += 1;
    }

    /// A repetition was seen on the log.
    pub(super) fn seen(&mut self, at: Place, repetition: Repetition) {
        self.open.insert(at, repetition);
    }

    /// The group says something of what stands at a place; whether that is an answer to this drill. Only the first counts: what
    /// failed is tried again, and what was handled again is known afterwards.
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
                let what = "not known again, and its handler failed";
                (&mut counts.failed, Some(what))
            }
            // Whatever else a newer member answers, it did not know the event again.
            Heard::Settled(_) => (&mut counts.handled_again, Some("handled again")),
        };
        *count += 1;
        if let Some(what) = what.filter(|_| self.named.len() < NAMED_MAX) {
            self.named.push(format!("{} was {what}", repetition.event));
        }
        true
    }

    /// How many were delivered and not answered for. An answer may be heard before the brokers' acknowledgement.
    pub(super) fn unanswered(&self) -> u64 {
        self.delivered.saturating_sub(self.answered)
    }

    /// Repetitions of which a handler failed.
    pub(super) fn failed(&self) -> u64 {
        self.counts.values().map(|counts| counts.failed).sum()
    }

    /// The topics whose repetitions were not all answered for.
    pub(super) fn unanswered_topics(&self) -> BTreeSet<&str> {
        let counts = self.counts.iter();
        let open = counts.filter(|(_, counts)| counts.unanswered() > 0);
        open.map(|((topic, _), _)| topic.as_str()).collect()
    }

    /// Events to be repeated.
    pub(super) fn events(&self) -> u64 {
        self.counts.values().map(|counts| counts.events).sum()
    }

    /// Events left out.
    pub(super) fn left_out(&self) -> (u64, u64) {
        let counts = self.counts.values();
        counts.fold((0, 0), |(waits, died), counts| {
            (waits + counts.key_waits, died + counts.dead_letters)
        })
    }

    /// What is listed.
    pub(super) fn rows(&self, executed: bool) -> impl Iterator<Item = TypeRow> {
        let counts = self.counts.iter();
        counts.map(move |((topic, ty), counts)| TypeRow::new(topic, ty, counts, executed))
    }

    /// The verdict on the whole, and what is said with it.
    pub(super) fn judge(&self, group: &str) -> Result<(Ending, String), NoAnswer> {
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
                "{group} is not idempotent for {bad}: unless the effect of its handler is the same when it is made twice, it is there \
                 twice now; and what it writes as the newest state of a key, as an upsert does, may be an older one now"
            );
            return Ok((Ending::FoundBad, text));
        }
        let unanswered = sum(|counts| counts.unanswered() + counts.skipped);
        if unanswered > 0 {
            return Err(NoAnswer(format!(
                "{unanswered} repetitions were not answered for, so that nothing is proven for {}: their members are busy, paused \
                 or of a release that does not answer drills",
                of(Verdict::Unanswered)
            )));
        }
        let undelivered = sum(|counts| counts.undelivered);
        if undelivered > 0 {
            let text = format!(
                "{undelivered} events could not be delivered again, so that nothing is proven for {}",
                of(Verdict::Undelivered)
            );
            return Ok((Ending::SomeFailed, text));
        }
        Ok(match sum(|counts| counts.recognised) {
            0 => (
                Ending::SomeFailed,
                format!(
                    "nothing was judged: {group} has settled no event there that one of its handlers wants"
                ),
            ),
            recognised => (
                Ending::Done,
                format!(
                    "{group} knew all {recognised} repetitions again, and called no handler for them"
                ),
            ),
        })
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

    /// A drill of one event for each answer, `None` for one that nobody answers.
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
    fn what_could_not_be_delivered_is_not_idempotent_by_its_neighbours() {
        let mut tally = tally(&[("a", settled(RepetitionOutcome::Duplicate))]);
        tally.found(TOPIC, "a", Fate::Repeated);
        tally.undelivered(TOPIC, "a");
        let verdicts: Vec<_> = tally.rows(true).map(|row| row.verdict).collect();
        assert_eq!(verdicts, [Verdict::Undelivered]);
        let judged = tally.judge("g").ok();
        assert_eq!(judged.map(|(ending, _)| ending), Some(Ending::SomeFailed));
    }

    #[test]
    fn the_ending_never_passes_what_was_not_judged() {
        use RepetitionOutcome::{Done, Duplicate, Ignored};
        let check = |answers: &[(&str, Option<Heard>)], expected: Option<Ending>| {
            let judged = tally(answers).judge("g");
            assert_eq!(
                judged.ok().map(|(ending, _)| ending),
                expected,
                "{answers:?}"
            );
        };
        check(
            &[("a", settled(Duplicate)), ("b", settled(Ignored))],
            Some(Ending::Done),
        );
        check(
            &[("a", settled(Duplicate)), ("b", settled(Done))],
            Some(Ending::FoundBad),
        );
        check(&[("a", settled(Done)), ("b", None)], Some(Ending::FoundBad));
        check(&[("a", settled(Duplicate)), ("b", None)], None);
        check(&[("a", settled(Ignored))], Some(Ending::SomeFailed));
        check(&[], Some(Ending::SomeFailed));
    }

    #[test]
    fn only_the_first_answer_to_a_repetition_counts() {
        let mut tally = tally(&[("a", Some(Heard::Failed))]);
        let later = Heard::Settled(RepetitionOutcome::Duplicate);
        assert!(!tally.heard(&place(0), &later));
        assert_eq!(tally.unanswered(), 0);
        let judged = tally.judge("g").ok();
        assert_eq!(judged.map(|(ending, _)| ending), Some(Ending::FoundBad));
        assert_eq!(tally.named.len(), 1);
    }
}
