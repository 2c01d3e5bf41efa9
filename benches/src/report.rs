//! The report: medians, spread and ratio of a contest's scores.

use crate::contest::{Score, Turn};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// What a contest came to. Ratios are of the first contestant's medians.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    workload: String,
    kafka: String,
    contestants: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    name: String,
    records_per_second: f64,
    /// The slowest and the fastest turn.
    spread: [f64; 2],
    processor_us_per_record: f64,
    resident_max_mib: f64,
    ratio: f64,
    turns: Vec<Turn>,
}

impl Report {
    /// Works it out.
    pub(crate) fn new(workload: String, kafka: String, scores: Vec<Score>) -> Self {
        let baseline = scores.first().map_or(f64::NAN, |score| {
            median(score, |turn| turn.records_per_second)
        });
        let line = |score: Score| {
            let rates = || score.turns.iter().map(|turn| turn.records_per_second);
            let records_per_second = median(&score, |turn| turn.records_per_second);
            Line {
                records_per_second,
                spread: [
                    rates().fold(f64::INFINITY, f64::min),
                    rates().fold(0.0, f64::max),
                ],
                processor_us_per_record: median(&score, |turn| turn.processor_us_per_record),
                resident_max_mib: median(&score, |turn| turn.resident_max_mib),
                ratio: records_per_second / baseline,
                name: score.name,
                turns: score.turns,
            }
        };
        Self {
            workload,
            kafka,
            contestants: scores.into_iter().map(line).collect(),
        }
    }

    /// The last contestant's rate as a share of the first one's.
    pub(crate) fn ratio(&self) -> f64 {
        self.contestants.last().map_or(f64::NAN, |line| line.ratio)
    }

    /// A table with a heading.
    pub(crate) fn human(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header([
            "",
            "records/s",
            "slowest - fastest",
            "µs/record",
            "MiB",
            "ratio",
        ]);
        for line in &self.contestants {
            table.add_row([
                line.name.clone(),
                format!("{:.0}", line.records_per_second),
                format!("{:.0} - {:.0}", line.spread[0], line.spread[1]),
                format!("{:.2}", line.processor_us_per_record),
                format!("{:.0}", line.resident_max_mib),
                format!("{:.2}", line.ratio),
            ]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        format!("{}\n{}\n\n{table}", self.workload, self.kafka)
    }
}

fn median(score: &Score, of: impl Fn(&Turn) -> f64) -> f64 {
    let mut values: Vec<f64> = score.turns.iter().map(of).collect();
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

    fn score(name: &str, rates: &[f64]) -> Score {
        let turn = |rate: &f64| Turn {
            records_per_second: *rate,
            processor_us_per_record: 1.0,
            resident_max_mib: 50.0,
        };
        Score {
            name: name.to_owned(),
            turns: rates.iter().map(turn).collect(),
        }
    }

    #[test]
    fn the_ratio_is_of_medians_so_that_one_odd_turn_changes_little() {
        let scores = vec![
            score("raw", &[100.0, 200.0, 10_000.0]),
            score("ours", &[120.0, 1.0, 140.0]),
        ];
        let report = Report::new("consume".to_owned(), "a Kafka".to_owned(), scores);
        assert_eq!(report.ratio(), 0.6);
        assert_eq!(report.contestants[1].spread, [1.0, 140.0]);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(
            median(&score("x", &[1.0, 9.0, 3.0, 5.0]), |turn| turn
                .records_per_second),
            4.0
        );
    }
}
