//! Counts and verdict for the events of one topic and type. Pure.

use serde::Serialize;

/// The verdict of a drill on the handler of a type: that of its worst answer. Its serialised names
/// are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Verdict {
    /// Every repetition was recognised as a duplicate.
    Idempotent,
    /// A handler was called again.
    NotIdempotent,
    /// The group has no handler for it.
    Ignored,
    /// Some repetitions were not answered.
    Unanswered,
    /// Some events could not be delivered again.
    Undelivered,
    /// Nothing was repeated.
    NotRepeated,
}

impl Verdict {
    /// The text of the verdict.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Idempotent => "idempotent",
            Self::NotIdempotent => "NOT IDEMPOTENT",
            Self::Ignored => "ignored",
            Self::Unanswered => "unanswered",
            Self::Undelivered => "undelivered",
            Self::NotRepeated => "-",
        }
    }
}

/// Counts of a topic and a type.
#[derive(Debug, Default, Clone)]
pub(super) struct Counts {
    pub(super) events: u64,
    pub(super) recognised: u64,
    pub(super) handled_again: u64,
    pub(super) failed: u64,
    pub(super) ignored: u64,
    pub(super) skipped: u64,
    pub(super) undelivered: u64,
    pub(super) key_waits: u64,
    pub(super) dead_letters: u64,
}

impl Counts {
    /// The number of repetitions without an answer.
    pub(super) fn unanswered(&self) -> u64 {
        let answered = self.recognised + self.handled_again + self.failed + self.ignored;
        self.events
            .saturating_sub(answered + self.skipped + self.undelivered)
    }

    /// The worst count that is not zero decides. A skipped repetition was not answered by a
    /// handler.
    pub(super) fn verdict(&self) -> Verdict {
        if self.handled_again + self.failed > 0 {
            Verdict::NotIdempotent
        } else if self.unanswered() + self.skipped > 0 {
            Verdict::Unanswered
        } else if self.undelivered > 0 {
            Verdict::Undelivered
        } else if self.recognised > 0 {
            Verdict::Idempotent
        } else if self.ignored > 0 {
            Verdict::Ignored
        } else {
            Verdict::NotRepeated
        }
    }
}

/// The listed row of a topic and a type. Its serialised form is stable. `events` is the sum of
/// `recognised`, `handled_again`, `failed`, `ignored`, `skipped`, `undelivered` and `unanswered` if
/// the drill was executed.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct TypeRow {
    /// Name of the topic.
    pub topic: String,
    /// Type of the events.
    #[serde(rename = "type")]
    pub ty: String,
    /// Number of events that are repeated.
    pub events: u64,
    /// Number of repetitions that were recognised as duplicates.
    pub recognised: u64,
    /// Number of repetitions for which a handler was called again.
    pub handled_again: u64,
    /// Number of repetitions for which a handler failed.
    pub failed: u64,
    /// Number of repetitions without a handler.
    pub ignored: u64,
    /// Number of repetitions that an operator skipped.
    pub skipped: u64,
    /// Number of events that could not be delivered again.
    pub undelivered: u64,
    /// Number of repetitions without an answer.
    pub unanswered: u64,
    /// Number of events that were excluded because their key waits.
    pub key_waits: u64,
    /// Number of events that were excluded because they are dead letters.
    pub dead_letters: u64,
    /// The verdict on the handler.
    pub verdict: Verdict,
    /// Whether the drill was executed. False in a dry run.
    pub executed: bool,
}

impl TypeRow {
    /// The row of a topic and a type.
    pub(super) fn new(topic: &str, ty: &str, counts: &Counts, executed: bool) -> Self {
        Self {
            topic: topic.to_owned(),
            ty: ty.to_owned(),
            events: counts.events,
            recognised: counts.recognised,
            handled_again: counts.handled_again,
            failed: counts.failed,
            ignored: counts.ignored,
            skipped: counts.skipped,
            undelivered: counts.undelivered,
            unanswered: if executed { counts.unanswered() } else { 0 },
            key_waits: counts.key_waits,
            dead_letters: counts.dead_letters,
            verdict: match executed {
                true => counts.verdict(),
                false => Verdict::NotRepeated,
            },
            executed,
        }
    }
}
