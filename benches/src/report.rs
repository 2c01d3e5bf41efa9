//! The report: medians, spread, ratio and aims of a workload.

use crate::machine::Machine;
use crate::rounds::ContestantTurns;
use crate::spec::{Aim, Bound, Figure, Plan, Turn};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use std::collections::BTreeMap;

/// The report of a workload.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) workload: String,
    title: String,
    unit: &'static str,
    /// The median of the contestant that represents raw librdkafka. `None` if the workload has
    /// none.
    raw: Option<f64>,
    evenkeel: Option<f64>,
    pub(crate) ratio: Option<f64>,
    us_per_message: Option<f64>,
    rss_mib: Option<f64>,
    /// Whether every turn gave the right answer.
    pub(crate) valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    aim: Vec<AimResult>,
    contestants: Vec<Line>,
    kafka: String,
    machine: Machine,
}

/// The medians of a contestant.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    name: String,
    pub(crate) value: f64,
    /// The lowest and the highest value of a turn.
    spread: [f64; 2],
    pub(crate) us_per_message: Option<f64>,
    rss_mib: f64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) details: BTreeMap<String, f64>,
    turns: Vec<Turn>,
}

#[derive(Debug, Serialize)]
struct AimResult {
    what: String,
    measured: Option<f64>,
    met: bool,
}

/// The contestant that represents evenkeel. Names of its variants begin with it.
const EVENKEEL: &str = "evenkeel";

impl Report {
    /// Computes the report from the results.
    pub(crate) fn new(
        workload: String,
        plan: &Plan,
        results: anyhow::Result<Vec<ContestantTurns>>,
        kafka: String,
        machine: Machine,
    ) -> Self {
        let (results, error) = match results {
            Ok(results) => (results, None),
            Err(error) => (Vec::new(), Some(format!("{error:#}"))),
        };
        let lines: Vec<Line> = results.into_iter().map(Line::new).collect();
        let find = |name: &str| lines.iter().find(|line| line.name == name);
        let first = plan.contestants.first().map(|contestant| contestant.name);
        let raw = first.filter(|name| !name.starts_with(EVENKEEL));
        let raw = raw.and_then(find);
        let ours = find(EVENKEEL);
        let aim = |aim: &Aim| AimResult::new(aim, find);
        Self {
            workload,
            title: plan.title.clone(),
            unit: plan.unit,
            raw: raw.map(|line| line.value),
            evenkeel: ours.map(|line| line.value),
            ratio: ours
                .zip(raw)
                .map(|(ours, raw)| rounded(ours.value / raw.value)),
            us_per_message: ours.and_then(|line| line.us_per_message),
            rss_mib: ours.map(|line| line.rss_mib),
            valid: error.is_none(),
            error,
            aim: plan.aims.iter().map(aim).collect(),
            contestants: lines,
            kafka,
            machine,
        }
    }

    /// The medians of a contestant, if it was measured.
    pub(crate) fn line(&self, contestant: &str) -> Option<&Line> {
        self.contestants.iter().find(|line| line.name == contestant)
    }

    /// Whether every aim was reached.
    pub(crate) fn aims_met(&self) -> bool {
        self.aim.iter().all(|aim| aim.met)
    }

    /// A table with a heading.
    pub(crate) fn to_table(&self) -> String {
        let mut text = format!("{}: {}\n", self.workload, self.title);
        if let Some(error) = &self.error {
            return text + &format!("not valid: {error}\n");
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header([
            "",
            self.unit,
            "lowest - highest",
            "µs/message",
            "MiB",
            "further",
        ]);
        for line in &self.contestants {
            let details = line
                .details
                .iter()
                .map(|(name, value)| format!("{name} {value:.2}"));
            table.add_row([
                line.name.clone(),
                format!("{:.1}", line.value),
                format!("{:.1} - {:.1}", line.spread[0], line.spread[1]),
                line.us_per_message
                    .map_or_else(|| "-".to_owned(), |us| format!("{us:.2}")),
                format!("{:.0}", line.rss_mib),
                details.collect::<Vec<_>>().join(", "),
            ]);
        }
        for column in table.column_iter_mut().skip(1).take(4) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        text += &format!("{table}\n");
        for aim in &self.aim {
            let (met, measured) = (
                if aim.met { "met   " } else { "MISSED" },
                aim.measured.unwrap_or(f64::NAN),
            );
            text += &format!("  {met}  {}: {measured:.2}\n", aim.what);
        }
        text
    }
}

impl Line {
    fn new(result: ContestantTurns) -> Self {
        let turns = &result.turns;
        let values = || turns.iter().map(|turn| turn.value);
        let names = turns.first().map(|turn| turn.details.keys());
        let details = names.into_iter().flatten().map(|name| {
            let values = turns
                .iter()
                .filter_map(|turn| turn.details.get(name).copied());
            (name.clone(), rounded(median(values)))
        });
        let us: Vec<f64> = turns
            .iter()
            .filter_map(|turn| turn.us_per_message)
            .collect();
        Self {
            value: rounded(median(values())),
            spread: [
                rounded(values().fold(f64::INFINITY, f64::min)),
                rounded(values().fold(f64::NEG_INFINITY, f64::max)),
            ],
            us_per_message: (!us.is_empty()).then(|| rounded(median(us))),
            rss_mib: rounded(median(turns.iter().map(|turn| turn.rss_mib))),
            details: details.collect(),
            name: result.name,
            turns: result.turns,
        }
    }
}

impl AimResult {
    fn new<'a>(aim: &Aim, find: impl Fn(&str) -> Option<&'a Line>) -> Self {
        let detail = |line: &Line, name: &str| line.details.get(name).copied();
        let measured = find(aim.contestant).and_then(|line| match aim.figure {
            Figure::Value => Some(line.value),
            Figure::RatioTo(other) => Some(line.value / find(other)?.value),
            Figure::MoreThan(other) => Some(line.value - find(other)?.value),
            Figure::UsPerMessage => line.us_per_message,
            Figure::UsMoreThan(other) => Some(line.us_per_message? - find(other)?.us_per_message?),
            Figure::RssMib => Some(line.rss_mib),
            Figure::Detail(name) => detail(line, name),
            Figure::DetailRatioTo(name, other) => {
                Some(detail(line, name)? / detail(find(other)?, name)?)
            }
        });
        let measured = measured.map(rounded);
        let figure = match aim.figure {
            Figure::Value => "the value".to_owned(),
            Figure::RatioTo(other) => format!("share of {other}"),
            Figure::MoreThan(other) => format!("more than {other}"),
            Figure::UsPerMessage => "µs a message".to_owned(),
            Figure::UsMoreThan(other) => format!("µs a message more than {other}"),
            Figure::RssMib => "MiB resident".to_owned(),
            Figure::Detail(name) => name.to_owned(),
            Figure::DetailRatioTo(name, other) => format!("{name} as a share of {other}'s"),
        };
        let bound = match aim.bound {
            Bound::AtLeast(least) => format!("at least {least}"),
            Bound::AtMost(most) => format!("at most {most}"),
        };
        Self {
            what: format!("{}, {figure}, {bound}", aim.contestant),
            measured,
            met: measured.is_some_and(|measured| aim.bound.holds(measured)),
        }
    }
}

/// Rounds to three decimals: no measurement here is more precise.
fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Contestant;

    fn result(name: &str, values: &[f64]) -> ContestantTurns {
        let turn = |value: &f64| Turn {
            value: *value,
            us_per_message: Some(1.0),
            rss_mib: 50.0,
            details: [("p99_ms".to_owned(), value / 100.0)].into(),
        };
        ContestantTurns {
            name: name.to_owned(),
            turns: values.iter().map(turn).collect(),
        }
    }

    fn report(results: anyhow::Result<Vec<ContestantTurns>>) -> Report {
        let contestant = |name| Contestant { name, data: None };
        let plan = Plan {
            title: "a test".to_owned(),
            unit: "messages/s",
            contestants: ["raw", "evenkeel"].map(contestant).into(),
            aims: vec![
                Aim::new("evenkeel", Figure::RatioTo("raw"), Bound::AtLeast(0.6)),
                Aim::new(
                    "evenkeel",
                    Figure::DetailRatioTo("p99_ms", "raw"),
                    Bound::AtMost(0.5),
                ),
            ],
            runs: 3,
        };
        Report::new(
            "test".to_owned(),
            &plan,
            results,
            "a Kafka".to_owned(),
            Machine::current(),
        )
    }

    #[test]
    fn ratio_compares_medians_so_one_outlier_changes_little() {
        let report = report(Ok(vec![
            result("raw", &[100.0, 200.0, 10_000.0]),
            result("evenkeel", &[120.0, 1.0, 140.0]),
        ]));
        assert_eq!(report.ratio, Some(0.6));
        assert_eq!(report.contestants[1].spread, [1.0, 140.0]);
        let met: Vec<bool> = report.aim.iter().map(|aim| aim.met).collect();
        assert_eq!(met, [true, false]);
    }

    #[test]
    fn a_failed_turn_makes_an_invalid_report_without_figures() {
        let report = report(Err(anyhow::anyhow!("wrong answer")));
        assert!(!report.valid && report.ratio.is_none());
        assert!(report.aim.iter().all(|aim| !aim.met));
        assert!(report.to_table().contains("wrong answer"));
    }

    #[test]
    fn median_of_an_even_count_is_between_the_middle_two() {
        assert_eq!(median([1.0, 9.0, 3.0, 5.0]), 4.0);
    }
}
