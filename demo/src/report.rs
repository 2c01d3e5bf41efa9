//! The report of a run, as one JSON object or as a table and a sentence.

use crate::audit::{Findings, Tally};
use crate::monitoring::load_meter::Measured;
use crate::supervisor::Toll;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use std::collections::BTreeMap;

/// The requests to the gateways, and their streams.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct GatewayReport {
    /// Number of requests that were answered with 202.
    pub(crate) answered: u64,
    /// Number of attempts beyond the first of a request.
    pub(crate) retried: u64,
    /// Number of requests that were refused for good.
    pub(crate) refused: u64,
    /// Number of requests without a final answer in time.
    pub(crate) unknown: u64,
    /// Number of events that the streams delivered.
    pub(crate) streamed: u64,
    /// Number of times that a stream was cut.
    pub(crate) cuts: u64,
}

/// The report of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Report {
    /// The kind of Kafka and the reason for the choice.
    pub(crate) kafka: String,
    /// Number of distinct events on the topics.
    pub(crate) published: u64,
    /// Number of distinct events that producer commands, and callers of the gateways, recorded as
    /// acknowledged.
    pub(crate) acknowledged: u64,
    /// The requests to the gateways, and their streams.
    pub(crate) gateway: GatewayReport,
    /// Number of distinct events with an effect, by service.
    pub(crate) effects: BTreeMap<String, u64>,
    /// Number of records whose end the audit of `evenkeel-ops` proved, counted in every group that
    /// reads them.
    pub(crate) proven: u64,
    /// Number of second appearances on a topic without a second effect.
    pub(crate) duplicates_suppressed: u64,
    /// Number of records in the groups' dead-letter topics.
    pub(crate) dead_letters: u64,
    /// The dead letters and their causes, in words.
    pub(crate) dead: Vec<String>,
    /// Number of records that wait in the groups' retry topics.
    pub(crate) parked: u64,
    /// Number of events, acknowledged or found on a topic, with neither effect nor dead letter in a
    /// service that handles them.
    pub(crate) lost: u64,
    /// Number of effects beyond the first.
    pub(crate) twice: u64,
    /// Number of effects that came after a later one of the same topic and key.
    pub(crate) out_of_order: u64,
    /// Number of effects of events that are on no topic.
    pub(crate) unexplained: u64,
    /// Number of articles whose stock is inconsistent.
    pub(crate) stock_off: u64,
    /// Number of SIGKILLs to daemons.
    pub(crate) kills: u64,
    /// Number of freezes of daemons.
    pub(crate) freezes: u64,
    /// Number of SIGTERMs to daemons during the load.
    pub(crate) stops: u64,
    /// Maximum lag of all services during the load, in seconds of work at the rate of that time.
    /// `None` if the load was too short to measure it.
    pub(crate) lag_max_seconds: Option<f64>,
    /// Maximum age of the oldest number on display during the load, in milliseconds: a lag, or a
    /// count of effects.
    pub(crate) sample_age_max_ms: u64,
    /// Maximum number of partitions whose lag was not known yet during the load, counted in every
    /// group that reads them. They have no age.
    pub(crate) partitions_unknown_max: u64,
    /// Seed of orders and chaos.
    pub(crate) seed: u64,
    /// Seconds from the first order to the end of the audit.
    pub(crate) seconds: u64,
    /// Whether there are no findings.
    pub(crate) balanced: bool,
    /// Remarks: examples of findings, and sources that could not be audited.
    pub(crate) notes: Vec<String>,
}

/// The input of a report.
pub(crate) struct ReportInput {
    pub(crate) kafka: String,
    pub(crate) findings: Findings,
    /// Number of records whose end was proven, counted in every group that reads them.
    pub(crate) proven: u64,
    pub(crate) gateway: GatewayReport,
    /// Articles whose stock is inconsistent.
    pub(crate) stock: Vec<String>,
    pub(crate) measured: Measured,
    pub(crate) toll: Toll,
    /// Other faults. A run with faults is not balanced.
    pub(crate) faults: Vec<String>,
    /// Other remarks.
    pub(crate) remarks: Vec<String>,
    pub(crate) seed: u64,
    pub(crate) seconds: u64,
}

impl Report {
    /// Computes the report.
    pub(crate) fn new(entries: ReportInput) -> Self {
        let ReportInput {
            findings,
            toll,
            stock,
            faults,
            ..
        } = entries;
        let balanced = findings.balanced()
            && stock.is_empty()
            && faults.is_empty()
            && toll.failures.is_empty();
        let causes = findings.causes.iter();
        let dead: Vec<String> = causes
            .map(|((service, cause), count)| format!("{service} dead-lettered {count} of {cause}"))
            .collect();
        let mut notes: Vec<String> = dead.iter().map(|line| format!("dead: {line}")).collect();
        for (name, tally) in [
            ("lost", &findings.lost),
            ("twice", &findings.twice),
            ("out of order", &findings.out_of_order),
            ("unexplained", &findings.unexplained),
        ] {
            notes.extend(examples(name, tally));
        }
        notes.extend(stock.iter().map(|line| format!("stock: {line}")));
        notes.extend(toll.failures);
        notes.extend(faults);
        notes.extend(entries.remarks);
        let Measured {
            lag_max_s,
            sample_age_max,
            unknown_max,
        } = entries.measured;
        Self {
            kafka: entries.kafka,
            published: findings.published,
            acknowledged: findings.acknowledged,
            gateway: entries.gateway,
            effects: findings.effects,
            proven: entries.proven,
            duplicates_suppressed: findings.duplicates_suppressed,
            dead_letters: findings.dead_letters,
            dead,
            parked: findings.parked,
            lost: findings.lost.count,
            twice: findings.twice.count,
            out_of_order: findings.out_of_order.count,
            unexplained: findings.unexplained.count,
            stock_off: stock.len() as u64,
            kills: toll.kills,
            freezes: toll.freezes,
            stops: toll.stops,
            lag_max_seconds: lag_max_s.map(|seconds| (seconds * 100.0).round() / 100.0),
            sample_age_max_ms: u64::try_from(sample_age_max.as_millis()).unwrap_or(u64::MAX),
            partitions_unknown_max: unknown_max as u64,
            seed: entries.seed,
            seconds: entries.seconds,
            balanced,
            notes,
        }
    }

    /// The table and the sentence below it.
    pub(crate) fn human(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let mut text_row = |name: String, value: String| {
            table.add_row([name, value]);
        };
        let mut row = |name: String, value: u64| text_row(name, grouped(value));
        row("events published".to_owned(), self.published);
        row(
            "  acknowledged to the producers".to_owned(),
            self.acknowledged,
        );
        let gateway = &self.gateway;
        for (name, value) in [
            ("requests answered by the gateways", gateway.answered),
            ("  retried", gateway.retried),
            ("  refused", gateway.refused),
            ("  without an answer", gateway.unknown),
            ("events streamed by the gateways", gateway.streamed),
            ("  cuts of the streams", gateway.cuts),
        ] {
            row(name.to_owned(), value);
        }
        for (service, effects) in &self.effects {
            row(format!("effects in {service}"), *effects);
        }
        row("ends proven, by group".to_owned(), self.proven);
        row(
            "duplicates suppressed".to_owned(),
            self.duplicates_suppressed,
        );
        row("dead letters".to_owned(), self.dead_letters);
        row("parked".to_owned(), self.parked);
        row("lost".to_owned(), self.lost);
        row("twice".to_owned(), self.twice);
        row("out of order".to_owned(), self.out_of_order);
        row("unexplained".to_owned(), self.unexplained);
        row("articles with wrong stock".to_owned(), self.stock_off);
        row(
            "oldest numbers on display, in ms".to_owned(),
            self.sample_age_max_ms,
        );
        row(
            "partitions not read yet, maximum".to_owned(),
            self.partitions_unknown_max,
        );
        let lag = self.lag_max_seconds;
        text_row(
            "maximum lag, in seconds of work".to_owned(),
            lag.map_or_else(|| "unknown".to_owned(), |lag| format!("{lag:.1}")),
        );
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let mut text = format!("{table}\n");
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        text + &self.sentence()
    }

    fn sentence(&self) -> String {
        let chaos = match self.kills + self.freezes + self.stops {
            0 => String::new(),
            _ => format!(
                ", through {} kills, {} freezes and {} stops",
                self.kills, self.freezes, self.stops
            ),
        };
        if self.balanced {
            let effects: u64 = self.effects.values().sum();
            let dead = match self.dead_letters {
                0 => String::new(),
                dead => format!(", {} accounted for as dead letters", grouped(dead)),
            };
            return format!(
                "The audit passed: {} events had {} effects in {} services{dead}, none lost, none \
                 twice, none out of order{chaos}.",
                grouped(self.published),
                grouped(effects),
                self.effects.len()
            );
        }
        format!(
            "The audit failed: {} lost, {} twice, {} out of order{chaos} (seed {}); the notes \
             above give examples.",
            self.lost, self.twice, self.out_of_order, self.seed
        )
    }
}

fn examples(name: &str, tally: &Tally) -> Vec<String> {
    let more = tally.count - tally.examples.len() as u64;
    let mut lines: Vec<String> = tally
        .examples
        .iter()
        .map(|example| format!("{name}: {example}"))
        .collect();
    if more > 0 {
        lines.push(format!("{name}: and {more} more"));
    }
    lines
}

/// Formats a number with thousands separators.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn entries() -> ReportInput {
        ReportInput {
            kafka: "a mock".to_owned(),
            findings: Findings {
                published: 1_234_567,
                effects: [("payments".to_owned(), 12)].into(),
                ..Findings::default()
            },
            proven: 12,
            gateway: GatewayReport {
                cuts: 7_654,
                ..GatewayReport::default()
            },
            stock: Vec::new(),
            measured: Measured {
                lag_max_s: Some(1.2345),
                sample_age_max: Duration::from_millis(1_357),
                unknown_max: 3,
            },
            toll: Toll::default(),
            faults: Vec::new(),
            remarks: vec!["a remark".to_owned()],
            seed: 7,
            seconds: 60,
        }
    }

    fn balances(change: impl FnOnce(&mut ReportInput)) -> bool {
        let mut entries = entries();
        change(&mut entries);
        Report::new(entries).balanced
    }

    #[test]
    fn only_a_run_without_any_fault_balances() {
        assert!(balances(|_| {}));
        let tally = || Tally {
            count: 1,
            examples: Vec::new(),
        };
        assert!(!balances(|entries| entries.findings.lost = tally()));
        assert!(!balances(|entries| entries.findings.twice = tally()));
        assert!(!balances(|entries| entries.findings.out_of_order = tally()));
        assert!(!balances(|entries| entries.findings.unexplained = tally()));
        assert!(!balances(|entries| entries.stock.push("off".to_owned())));
        assert!(!balances(|entries| entries
            .faults
            .push("no drain".to_owned())));
        assert!(!balances(|entries| entries
            .toll
            .failures
            .push("crash".to_owned())));
    }

    #[test]
    fn the_object_has_the_promised_members() {
        let report = serde_json::to_value(Report::new(entries())).expect("it serialises");
        for name in [
            "kafka",
            "published",
            "acknowledged",
            "gateway",
            "effects",
            "proven",
            "duplicates_suppressed",
            "dead_letters",
            "dead",
            "parked",
            "lost",
            "twice",
            "out_of_order",
            "kills",
            "lag_max_seconds",
            "sample_age_max_ms",
            "partitions_unknown_max",
            "balanced",
        ] {
            assert!(report.get(name).is_some(), "{name}");
        }
    }

    #[test]
    fn lag_and_age_are_in_object_and_table() {
        let report = Report::new(entries());
        assert_eq!(report.lag_max_seconds, Some(1.23));
        assert_eq!(report.sample_age_max_ms, 1_357);
        assert_eq!(report.partitions_unknown_max, 3);
        let text = report.human();
        let value = |name: &str| {
            let line = text.lines().find(|line| line.contains(name));
            line.and_then(|line| line.split_whitespace().next_back())
        };
        assert_eq!(value("maximum lag, in seconds of work"), Some("1.2"));
        assert_eq!(value("oldest numbers on display, in ms"), Some("1,357"));
        assert_eq!(value("partitions not read yet"), Some("3"));
        let mut short = entries();
        short.measured.lag_max_s = None;
        let text = Report::new(short).human();
        assert!(text.contains("unknown"), "{text}");
    }

    #[test]
    fn the_table_ends_by_saying_whether_the_books_balance() {
        let text = Report::new(entries()).human();
        assert!(text.contains("1,234,567"), "{text}");
        assert!(text.contains("7,654"), "{text}");
        assert!(text.contains("note: a remark"), "{text}");
        assert!(
            text.lines()
                .last()
                .is_some_and(|line| line.starts_with("The audit passed: "))
        );
        let mut lossy = entries();
        lossy.findings.lost.count = 9;
        lossy
            .findings
            .lost
            .examples
            .push("payments lacks it".to_owned());
        let text = Report::new(lossy).human();
        assert!(
            text.contains("note: lost: payments lacks it\nnote: lost: and 8 more\n"),
            "{text}"
        );
        assert!(text.contains("The audit failed: 9 lost"), "{text}");
    }
}
