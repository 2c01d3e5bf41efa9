//! The figures: one chart of each quantity, with a panel for each cost.

use super::dimension::Dimension;
use super::records::MB_PER_SECOND;
use crate::charts::{Chart, Panel, Series};
use crate::report::{Line, Report};
use crate::workloads::stores::store::StoreKind;

/// A cost of a contestant.
#[derive(Clone, Copy)]
enum Cost {
    Rate,
    Megabytes,
    Processor,
}

impl Cost {
    fn of(self, line: &Line) -> Option<f64> {
        match self {
            Self::Rate => Some(line.value),
            Self::Megabytes => line.details.get(MB_PER_SECOND).copied(),
            Self::Processor => line.us_per_message,
        }
    }
}

impl Dimension {
    /// Name of the file, title, and text of the x axis.
    fn texts(self) -> [&'static str; 3] {
        match self {
            Self::Members => [
                "members",
                "Members of one group on one store, one effect an event",
                "members",
            ],
            Self::Keys => ["keys", "Keys on the topic, empty handler", "keys"],
            Self::Payload => [
                "payload",
                "Size of a record's value, empty handler",
                "size of a value",
            ],
            Self::Rows => [
                "rows",
                "Rows that the inbox has already, one effect an event",
                "rows in the inbox",
            ],
        }
    }

    /// Its costs, with the text of the y axis.
    fn costs(self) -> &'static [(Cost, &'static str)] {
        match self {
            Self::Members | Self::Rows => &[
                (Cost::Rate, "effects/s in all"),
                (Cost::Processor, "µs/effect"),
            ],
            Self::Keys => &[(Cost::Rate, "events/s"), (Cost::Processor, "µs/event")],
            Self::Payload => &[
                (Cost::Rate, "events/s"),
                (Cost::Megabytes, "MB/s"),
                (Cost::Processor, "µs/event"),
            ],
        }
    }

    /// The stores, each of which is a line. One line without a store.
    fn stores(self) -> &'static [Option<StoreKind>] {
        match self {
            Self::Members | Self::Rows => &[Some(StoreKind::Sqlite), Some(StoreKind::Postgres)],
            Self::Keys | Self::Payload => &[None],
        }
    }

    fn chart(self, report: &Report) -> Chart {
        let [name, title, x_axis] = self.texts();
        let of_first = |store: Option<StoreKind>| store == self.stores()[0];
        let ticks = self.points().iter().filter(|point| of_first(point.store));
        let panel = |&(cost, y_axis): &(Cost, &'static str)| Panel {
            y_axis,
            series: self
                .stores()
                .iter()
                .map(|store| self.series(report, *store, cost))
                .collect(),
        };
        Chart {
            name,
            title,
            x_axis,
            ticks: ticks.map(|point| (point.x as f64, point.tick)).collect(),
            panels: self.costs().iter().map(panel).collect(),
        }
    }

    /// The points that were measured.
    fn series(self, report: &Report, store: Option<StoreKind>, cost: Cost) -> Series {
        let points = self.points().iter().filter(|point| point.store == store);
        let measured = points.filter_map(|point| {
            let line = report.line(point.contestant)?;
            Some((point.x as f64, cost.of(line)?))
        });
        Series {
            name: store.map_or("", StoreKind::name),
            points: measured.collect(),
        }
    }
}

/// The charts of the report, without those of which nothing was measured.
pub(crate) fn figures(report: &Report) -> Vec<Chart> {
    let charts = Dimension::ALL.map(|dimension| dimension.chart(report));
    charts.into_iter().filter(Chart::has_points).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::rounds::ContestantTurns;
    use crate::spec::Turn;
    use crate::workloads::growth::plan;

    /// The report of these contestants, whose values are 1, 2 and so on.
    fn report(is_measured: impl Fn(&str) -> bool) -> Report {
        let plan = plan();
        let measured = plan
            .contestants
            .iter()
            .filter(|known| is_measured(known.name));
        let turns = measured
            .zip(1_u32..)
            .map(|(contestant, value)| ContestantTurns {
                name: contestant.name.to_owned(),
                turns: vec![Turn {
                    value: value.into(),
                    us_per_message: Some(f64::from(value) * 10.0),
                    rss_mib: 1.0,
                    details: [(MB_PER_SECOND.to_owned(), f64::from(value) * 100.0)].into(),
                }],
            });
        let turns = Ok(turns.collect());
        let kafka = "a Kafka".to_owned();
        Report::new("growth".to_owned(), &plan, turns, kafka, Machine::current())
    }

    #[test]
    fn every_contestant_is_a_point_of_each_panel() {
        let charts = figures(&report(|_| true));
        let shape = |chart: &Chart| {
            let lines = chart.panels.iter().flat_map(|panel| &panel.series);
            let points = lines.map(|line| line.points.len()).sum::<usize>();
            (chart.name, chart.panels.len(), chart.ticks.len(), points)
        };
        let shapes: Vec<_> = charts.iter().map(shape).collect();
        let expected = [
            ("members", 2, 4, 2 * 8),
            ("keys", 2, 4, 2 * 4),
            ("payload", 3, 4, 3 * 4),
            ("rows", 2, 3, 2 * 6),
        ];
        assert_eq!(shapes, expected);
        let postgres = &charts[0].panels[0].series[1];
        assert_eq!(postgres.name, "PostgreSQL");
        assert_eq!(
            postgres.points,
            [(1.0, 1.0), (2.0, 2.0), (4.0, 3.0), (8.0, 4.0)]
        );
        let megabytes = &charts[2].panels[1].series[0];
        assert_eq!(megabytes.points[0], (100.0, 1_300.0));
        assert!(charts.iter().all(|chart| chart.to_svg().is_ok()));
    }

    #[test]
    fn what_was_not_measured_is_missing() {
        let charts = figures(&report(|name| name.starts_with("rows-1m")));
        let names: Vec<&str> = charts.iter().map(|chart| chart.name).collect();
        assert_eq!(names, ["rows"]);
        let lines = charts.iter().flat_map(|chart| &chart.panels[0].series);
        assert!(lines.into_iter().all(|line| line.points.len() == 1));
        assert!(figures(&report(|_| false)).is_empty());
    }
}
