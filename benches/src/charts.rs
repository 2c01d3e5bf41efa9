//! Line charts as SVG: a logarithmic x axis, and one panel below the other for each quantity.
//!
//! The same numbers result in the same bytes. The ground is white, so that a chart is legible on a
//! dark page. Text stays text, in the reader's sans-serif font.

use anyhow::Context;
use plotters::coord::Shift;
use plotters::prelude::{
    BindKeyPoints, ChartBuilder, DrawingArea, FontStyle, IntoDrawingArea, IntoLogRange,
    IntoTextStyle, LineSeries, RGBColor, SVGBackend, TRANSPARENT, WHITE,
};
use plotters::style::Color;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::ops::Range;
use std::path::Path;

/// A chart. Its panels share the x axis.
pub(crate) struct Chart {
    /// The name of its file, without `.svg`.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// What the x axis shows, with its unit.
    pub(crate) x_axis: &'static str,
    /// Positions on the x axis with their labels, in ascending order; each greater than zero.
    pub(crate) ticks: Vec<(f64, &'static str)>,
    pub(crate) panels: Vec<Panel>,
}

/// One quantity.
pub(crate) struct Panel {
    /// What the y axis shows, with its unit.
    pub(crate) y_axis: &'static str,
    /// In the same order in all panels of a chart.
    pub(crate) series: Vec<Series>,
}

/// A line of a panel.
pub(crate) struct Series {
    /// Shown if there are several.
    pub(crate) name: &'static str,
    /// In ascending order of x, which is greater than zero.
    pub(crate) points: Vec<(f64, f64)>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const WIDTH: u32 = 720;
const HEADER: u32 = 64;
const PANEL: u32 = 240;
/// The left edge of title and legend.
const LEFT: i32 = 16;
/// Distance between two names of the legend.
const LEGEND_STEP: i32 = 140;
/// Distance of a value from its point.
const VALUE_GAP: i32 = 8;
const POINT_RADIUS: u32 = 4;

const FONT: &str = "sans-serif";
const TEXT: i32 = 16;
const TITLE: i32 = 20;
const GRID: RGBColor = RGBColor(222, 226, 230);
/// Distinct for readers who confuse red and green, and dark enough for text on white.
const COLORS: [RGBColor; 3] = [
    RGBColor(0, 96, 168),
    RGBColor(184, 76, 0),
    RGBColor(0, 112, 84),
];

impl Chart {
    /// Whether there is a point to show.
    pub(crate) fn has_points(&self) -> bool {
        let mut series = self.panels.iter().flat_map(|panel| &panel.series);
        series.any(|series| !series.points.is_empty())
    }

    /// Writes the chart to a file of its name in this folder, which is created if it is missing.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let path = folder.join(format!("{}.svg", self.name));
        let svg = self.to_svg()?;
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&path, svg))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// The chart as an SVG document.
    pub(crate) fn to_svg(&self) -> anyhow::Result<String> {
        let mut svg = String::new();
        let panels = self.panels.len();
        let size = (WIDTH, HEADER + PANEL * panels as u32);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE)?;
        self.draw_header(&root)?;
        let (_, body) = root.split_vertically(HEADER);
        for (area, panel) in body.split_evenly((panels, 1)).iter().zip(&self.panels) {
            self.draw_panel(&root, area, panel)?;
        }
        root.present()?;
        drop((root, body));
        Ok(svg)
    }

    fn draw_header(&self, root: &Area<'_>) -> anyhow::Result<()> {
        let title = (FONT, TITLE, FontStyle::Bold).into_text_style(root);
        root.draw_text(self.title, &title, (LEFT, LEFT / 2))?;
        let Some(panel) = self.panels.first().filter(|panel| panel.series.len() > 1) else {
            return Ok(());
        };
        for ((series, color), place) in panel.series.iter().zip(COLORS.iter().cycle()).zip(0..) {
            let style = (FONT, TEXT, FontStyle::Bold, color).into_text_style(root);
            let position = (LEFT + place * LEGEND_STEP, HEADER as i32 / 2 + 2);
            root.draw_text(&format!("● {}", series.name), &style, position)?;
        }
        Ok(())
    }

    fn draw_panel(&self, root: &Area<'_>, area: &Area<'_>, panel: &Panel) -> anyhow::Result<()> {
        let ticks = self.ticks.iter().map(|(at, _)| *at).collect();
        let x = self.x_range().log_scale().with_key_points(ticks);
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(52)
            .y_label_area_size(88)
            .build_cartesian_2d(x, 0.0..panel.top())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .set_all_tick_mark_size(4)
            .y_labels(5)
            .x_desc(self.x_axis)
            .y_desc(panel.y_axis)
            .x_label_formatter(&|x| self.label(*x))
            .y_label_formatter(&|y| short(*y))
            .label_style((FONT, TEXT))
            .axis_desc_style((FONT, TEXT))
            .draw()?;
        for (series, color) in panel.series.iter().zip(COLORS.iter().cycle()) {
            let line = color.filled().stroke_width(2);
            let points = series.points.iter().copied();
            chart.draw_series(LineSeries::new(points, line).point_size(POINT_RADIUS))?;
            let style = (FONT, TEXT, color).into_text_style(root);
            for (x, y) in &series.points {
                let (across, down) = chart.plotting_area().map_coordinate(&(*x, *y));
                let (anchor, gap) = if panel.has_higher(*x, *y) {
                    (VPos::Top, VALUE_GAP)
                } else {
                    (VPos::Bottom, -VALUE_GAP)
                };
                let style = style.pos(Pos::new(HPos::Center, anchor));
                root.draw_text(&short(*y), &style, (across, down + gap))?;
            }
        }
        Ok(())
    }

    /// From below the first tick to above the last, so that no point is on an edge.
    fn x_range(&self) -> Range<f64> {
        let first = self.ticks.first().map_or(1.0, |(at, _)| *at);
        let last = self.ticks.last().map_or(first, |(at, _)| *at);
        let margin = (last / first).powf(0.1).max(1.2);
        first / margin..last * margin
    }

    /// The label of a tick.
    fn label(&self, x: f64) -> String {
        let tick = self.ticks.iter().find(|(at, _)| *at == x);
        tick.map_or_else(String::new, |(_, label)| (*label).to_owned())
    }
}

impl Panel {
    /// The end of the y axis, with room for the values above the points.
    fn top(&self) -> f64 {
        let points = self.series.iter().flat_map(|series| &series.points);
        let highest = points.map(|(_, y)| *y).fold(0.0, f64::max);
        if highest > 0.0 { highest * 1.25 } else { 1.0 }
    }

    /// Whether another point is above this one: its value is then written below.
    fn has_higher(&self, x: f64, y: f64) -> bool {
        let mut points = self.series.iter().flat_map(|series| &series.points);
        points.any(|(other_x, other_y)| *other_x == x && *other_y > y)
    }
}

/// A number with three digits, or all of a whole one below ten thousand.
fn short(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let (scaled, unit) = if value >= 1e6 {
        (value / 1e6, "M")
    } else if value >= 1e4 {
        (value / 1e3, "k")
    } else {
        (value, "")
    };
    let digits = if scaled >= 100.0 {
        0
    } else if scaled >= 10.0 {
        1
    } else {
        2
    };
    format!("{scaled:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use roxmltree::{Document, Node};

    fn chart() -> Chart {
        let series = |name, values: [f64; 3]| Series {
            name,
            points: [1.0, 10.0, 100.0].into_iter().zip(values).collect(),
        };
        Chart {
            name: "test",
            title: "a < b & \"c\"",
            x_axis: "members",
            ticks: vec![(1.0, "1"), (10.0, "ten"), (100.0, "100")],
            panels: vec![
                Panel {
                    y_axis: "effects/s",
                    series: vec![
                        series("SQLite", [14_800.0, 9_000.0, 711_000.0]),
                        series("PostgreSQL", [18_300.0, 12_345.0, 1_234_567.0]),
                    ],
                },
                Panel {
                    y_axis: "µs/effect",
                    series: vec![
                        series("SQLite", [1.37, 59.0, 190.0]),
                        series("PostgreSQL", [4.18, 42.2, 124.0]),
                    ],
                },
            ],
        }
    }

    fn elements<'a, 'input>(
        svg: &'a Document<'input>,
        name: &'static str,
    ) -> impl Iterator<Item = Node<'a, 'input>> {
        let elements = svg.descendants();
        elements.filter(move |node| node.tag_name().name() == name)
    }

    fn texts(svg: &Document<'_>) -> Vec<String> {
        let texts = elements(svg, "text").filter_map(|node| node.text());
        texts.map(|text| text.trim().to_owned()).collect()
    }

    #[test]
    fn a_chart_is_xml_with_every_point_and_value() {
        let svg = chart().to_svg().expect("it draws");
        assert!(svg.len() < 30 * 1024, "{} bytes", svg.len());
        let svg = Document::parse(&svg).expect("it is XML");
        assert_eq!(elements(&svg, "circle").count(), 12);
        let lines = elements(&svg, "polyline");
        let lines = lines.filter(|line| line.attribute("stroke-width") == Some("2"));
        assert_eq!(lines.count(), 4);
        let texts = texts(&svg);
        let values = [
            "14.8k", "9000", "711k", "18.3k", "12.3k", "1.23M", "1.37", "59.0", "190", "4.18",
            "42.2", "124",
        ];
        let names = [
            "a < b & \"c\"",
            "● SQLite",
            "● PostgreSQL",
            "members",
            "ten",
        ];
        let axes = ["effects/s", "µs/effect"];
        for text in values.iter().chain(&names).chain(&axes) {
            assert!(texts.iter().any(|known| known == text), "{text}: {texts:?}");
        }
    }

    #[test]
    fn equal_factors_are_equal_distances() {
        let svg = chart().to_svg().expect("it draws");
        let svg = Document::parse(&svg).expect("it is XML");
        let across: Vec<i32> = elements(&svg, "circle")
            .filter_map(|circle| circle.attribute("cx")?.parse().ok())
            .collect();
        for line in across.chunks(3) {
            let (first, second) = (line[1] - line[0], line[2] - line[1]);
            assert!(first > 100 && (first - second).abs() <= 1, "{line:?}");
        }
    }

    #[test]
    fn the_same_numbers_result_in_the_same_bytes() {
        let draw = || chart().to_svg().expect("it draws");
        assert_eq!(draw(), draw());
    }

    #[test]
    fn a_chart_of_one_point_draws() {
        let mut chart = chart();
        chart.ticks.truncate(1);
        for panel in &mut chart.panels {
            panel.series.truncate(1);
            panel.series[0].points.truncate(1);
        }
        let svg = chart.to_svg().expect("it draws");
        let svg = Document::parse(&svg).expect("it is XML");
        assert_eq!(elements(&svg, "circle").count(), 2);
        assert!(!texts(&svg).contains(&"● SQLite".to_owned()));
    }

    #[test]
    fn a_chart_is_written_under_its_name() {
        let folder = tempfile::tempdir().expect("a temporary folder is created");
        let folder = folder.path().join("figures");
        chart().write(&folder).expect("it is written");
        let svg = std::fs::read_to_string(folder.join("test.svg")).expect("it is there");
        assert_eq!(svg, chart().to_svg().expect("it draws"));
    }
}
