//! What came of the events of a topic and a type, as numbers and as a verdict. Pure.

use crate::output::Row;
use serde::Serialize;

/// What a drill says of the handler of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    /// Every repetition was known again.
    Idempotent,
    /// A handler was called again.
    NotIdempotent,
    /// The group has no handler for it.
    Ignored,
    /// Not every repetition was answered for.
    Unanswered,
    /// Not every event could be delivered again.
    Undelivered,
    /// Nothing was repeated.
    NotRepeated,
}

impl Verdict {
    fn in_words(self) -> &'static str {
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

/// The events of a topic and a type.
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
    /// Repetitions that nobody has answered for.
    pub(super) fn unanswered(&self) -> u64 {
        let answered = self.recognised + self.handled_again + self.failed + self.ignored;
        self.events
            .saturating_sub(answered + self.skipped + self.undelivered)
    }

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

/// What is listed of a topic and a type.
#[derive(Debug, Serialize)]
pub(super) struct TypeRow {
    topic: String,
    #[serde(rename = "type")]
    ty: String,
    /// Events that are repeated.
    events: u64,
    recognised: u64,
    handled_again: u64,
    /// Repetitions of which a handler failed.
    failed: u64,
    ignored: u64,
    skipped: u64,
    undelivered: u64,
    unanswered: u64,
    /// Events left out, because their key waits.
    key_waits: u64,
    /// Events left out, because they are dead letters.
    dead_letters: u64,
    pub(super) verdict: Verdict,
    /// Whether it was carried out; false in a dry run.
    executed: bool,
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

impl Row for TypeRow {
    const COLUMNS: &'static [&'static str] = &[
        "topic",
        "type",
        "events",
        "recognised",
        "handled again",
        "failed",
        "ignored",
        "unanswered",
        "key waits",
        "dead letters",
        "verdict",
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        let mut cells = vec![self.topic.clone(), self.ty.clone()];
        let counts = [
            self.events,
            self.recognised,
            self.handled_again,
            self.failed,
            self.ignored,
            self.unanswered,
            self.key_waits,
            self.dead_letters,
        ];
        cells.extend(counts.iter().map(u64::to_string));
        cells.push(self.verdict.in_words().to_owned());
        vec![cells]
    }
}
