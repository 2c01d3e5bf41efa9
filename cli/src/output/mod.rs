//! The output of listings: a table for people, JSON for programs. Rows are streamed; memory does
//! not grow with their number.
//!
//! - [`column_widths`]: widths on a narrow terminal; [`record_template`]: kcat's format tokens
//! - [`stderr`]: lines on standard error; [`observer`], [`progress`]: reports of operations

mod column_widths;
pub(crate) mod observer;
pub(crate) mod progress;
pub(crate) mod record_template;
pub(crate) mod stderr;

pub(crate) use column_widths::{Column, id, name, number, text};
pub(crate) use evenkeel_program::output_format::OutputFormat;
pub(crate) use evenkeel_program::stdout::{AfterDone, print, print_line};

use clap::Args;
use column_widths::{GAP, Kind, fit};
use comfy_table::{CellAlignment, ColumnConstraint, Row as TableRow, Table, Width, presets};
use evenkeel::telemetry::visible;
use evenkeel_program::stdout::{Stdout, print_json_line};
use serde::Serialize;
use std::io::{self, Write};

/// The format of a listing.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct OutputArgs {
    /// Output format.
    #[arg(short, long, value_enum, default_value = "table")]
    output: OutputFormat,

    /// Print complete tables. Otherwise cells are cut off with … to fit the terminal.
    #[arg(long, visible_alias = "wide")]
    no_trunc: bool,
}

impl OutputArgs {
    /// The output format.
    pub(crate) fn format(self) -> OutputFormat {
        self.output
    }

    /// Whether the output is a table, for people.
    pub(crate) fn is_table(self) -> bool {
        self.output == OutputFormat::Table
    }
}

/// A row of a listing.
///
/// JSON is what serde writes; its field names are stable: `tests/cli/output/json_keys.txt` lists
/// them. Column titles are for people and may change. Cells need no escaping: the listing does it.
pub(crate) trait Row: Serialize {
    /// Columns of the table.
    const COLUMNS: &'static [Column];

    /// The cells of the table. Several lines if the row has parts.
    fn cells(&self) -> Vec<Vec<String>>;
}

/// The text of a cell. A dash for `None`.
pub(crate) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A time to the second, as in cells.
pub(crate) fn seconds(time: jiff::Timestamp) -> String {
    time.strftime("%FT%TZ").to_string()
}

/// Prints help or a version, as clap does.
pub(crate) fn print_help(help: &clap::Error) -> anyhow::Result<()> {
    match help.print() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::from(error).context("standard output cannot be written"))
        }
        _ => Ok(()),
    }
}

/// Maximum number of rows that are held to compute common column widths.
const TABLE_ROWS_MAX: usize = 500;

/// Prints a value as JSON: on several lines, or on one line for JSON lines. The caller prints
/// tables.
pub(crate) fn print_json(format: OutputFormat, thing: &impl Serialize) -> io::Result<()> {
    let json = match format {
        OutputFormat::Jsonl => serde_json::to_string(thing)?,
        OutputFormat::Json | OutputFormat::Table => serde_json::to_string_pretty(thing)?,
    };
    print_json_line(&json)
}

/// Writes rows as they arrive. Call [`finish`](Self::finish) at the end: without it, a table lacks
/// its last rows and a JSON array its bracket.
pub(crate) struct Listing<W: Write, R: Row> {
    out: Stdout<W>,
    format: OutputFormat,
    /// The width of the terminal, if the table must fit it.
    screen: Option<u16>,
    /// The number of rows so far.
    rows: usize,
    /// Cells of rows that are not written yet.
    held: Vec<Vec<String>>,
    /// Column widths of the written blocks.
    widths: Vec<u16>,
    row: std::marker::PhantomData<R>,
}

/// A listing on standard output.
pub(crate) type StdoutListing<R> = Listing<io::BufWriter<io::StdoutLock<'static>>, R>;

impl<R: Row> StdoutListing<R> {
    /// A listing on standard output. A table fits the terminal if there is one.
    pub(crate) fn stdout(args: OutputArgs) -> Self {
        let out = Stdout::new();
        let fits = out.is_terminal() && !args.no_trunc;
        // A terminal of unknown width reports 0: `docker exec -t`, `script`, some CI systems.
        let width = fits.then(|| Table::new().width()).flatten();
        Self::new(out, args.output, width.filter(|width| *width > 0))
    }

    /// Writes all rows, then the end.
    pub(crate) fn print(args: OutputArgs, rows: impl IntoIterator<Item = R>) -> io::Result<()> {
        let mut listing = Self::stdout(args);
        for row in rows {
            listing.push(&row)?;
        }
        listing.finish()
    }
}

impl<W: Write, R: Row> Listing<W, R> {
    fn new(out: Stdout<W>, format: OutputFormat, screen: Option<u16>) -> Self {
        Self {
            out,
            format,
            screen,
            rows: 0,
            held: Vec::new(),
            widths: Vec::new(),
            row: std::marker::PhantomData,
        }
    }

    /// Adds a row. JSON is written immediately, a table in blocks.
    pub(crate) fn push(&mut self, row: &R) -> io::Result<()> {
        match self.format {
            OutputFormat::Table => {
                // Names chosen by others (client ids, keys) must neither control the terminal nor
                // look like rows.
                let clean = |cell: String| visible(&cell).into_owned();
                let rows = row.cells().into_iter();
                self.held
                    .extend(rows.map(|cells| cells.into_iter().map(clean).collect()));
                if self.held.len() >= TABLE_ROWS_MAX {
                    self.write_table()?;
                }
            }
            OutputFormat::Json => {
                let before: &[u8] = if self.rows == 0 { b"[\n" } else { b",\n" };
                self.out.write_all(before)?;
                self.out.write_json(&serde_json::to_string(row)?)?;
            }
            OutputFormat::Jsonl => {
                self.out.write_json(&serde_json::to_string(row)?)?;
                self.out.write_all(b"\n")?;
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// Flushes the buffer, so that a reader of JSON lines receives the rows so far.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Writes the remaining rows. A table without rows consists of its titles.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        if self.format == OutputFormat::Table && self.rows == 0 {
            self.write_table()?;
        }
        self.finish_rows()
    }

    /// Writes the remaining rows. A table without rows is empty.
    pub(crate) fn finish_rows(&mut self) -> io::Result<()> {
        match self.format {
            OutputFormat::Table if !self.held.is_empty() => self.write_table()?,
            OutputFormat::Table | OutputFormat::Jsonl => {}
            OutputFormat::Json if self.rows == 0 => self.out.write_all(b"[]\n")?,
            OutputFormat::Json => self.out.write_all(b"\n]\n")?,
        }
        self.out.flush()
    }

    /// Writes the held rows, one line each. The titles precede the first row.
    fn write_table(&mut self) -> io::Result<()> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if self.widths.is_empty() {
            table.set_header(one_line(R::COLUMNS.iter().map(|c| c.title.to_uppercase())));
        }
        table.add_rows(self.held.drain(..).map(one_line));
        let mut widths = table.column_max_content_widths();
        for (width, before) in widths.iter_mut().zip(&self.widths) {
            *width = (*width).max(*before);
        }
        if let Some(screen) = self.screen {
            fit(&mut widths, R::COLUMNS, screen);
        }
        for (at, column) in table.column_iter_mut().enumerate() {
            // No blank before the first column. A cell that is too long is cut at any character.
            let width = Width::Fixed(widths[at].saturating_add(GAP));
            column
                .set_padding((0, GAP))
                .set_delimiter('\0')
                .set_constraint(ColumnConstraint::Absolute(width));
            if R::COLUMNS[at].kind == Kind::Number {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        self.widths = widths;
        for line in table.lines() {
            writeln!(self.out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A row whose cells are cut rather than wrapped.
fn one_line(cells: impl IntoIterator<Item = String>) -> TableRow {
    let mut row = TableRow::from(cells);
    row.max_height(1);
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Sample {
        name: &'static str,
        size: u32,
        why: &'static str,
    }

    impl Row for Sample {
        const COLUMNS: &'static [Column] = &[id("key"), number("size"), text("why")];

        fn cells(&self) -> Vec<Vec<String>> {
            vec![vec![
                self.name.to_owned(),
                self.size.to_string(),
                self.why.to_owned(),
            ]]
        }
    }

    fn sample(name: &'static str, size: u32, why: &'static str) -> Sample {
        Sample { name, size, why }
    }

    fn written(format: OutputFormat, screen: Option<u16>, rows: &[Sample]) -> String {
        let mut listing = Listing::new(Stdout::to(Vec::new()), format, screen);
        for row in rows {
            listing.push(row).unwrap();
        }
        listing.finish().unwrap();
        String::from_utf8(listing.out.get_ref().clone()).unwrap()
    }

    #[test]
    fn each_format_writes_what_its_reader_expects() {
        let two = [sample("a", 1, "x"), sample("long", 20, "y")];
        let check = |format, rows: &[Sample], expected: &str| {
            assert_eq!(written(format, None, rows), expected);
        };
        check(OutputFormat::Jsonl, &[], "");
        check(OutputFormat::Json, &[], "[]\n");
        check(OutputFormat::Table, &[], "KEY  SIZE  WHY\n");
        let lines = [
            r#"{"name":"a","size":1,"why":"x"}"#,
            r#"{"name":"long","size":20,"why":"y"}"#,
        ];
        check(
            OutputFormat::Jsonl,
            &two,
            &format!("{}\n{}\n", lines[0], lines[1]),
        );
        check(
            OutputFormat::Json,
            &two,
            &format!("[\n{},\n{}\n]\n", lines[0], lines[1]),
        );
        let table = "KEY   SIZE  WHY\na        1  x\nlong    20  y\n";
        check(OutputFormat::Table, &two, table);
    }

    #[test]
    fn a_cell_neither_steers_the_terminal_nor_forges_a_row() {
        let check = |name, expected: &str| {
            for screen in [None, Some(80)] {
                let table = written(OutputFormat::Table, screen, &[sample(name, 1, "-")]);
                let row = table
                    .lines()
                    .nth(1)
                    .map(|row| row.split_whitespace().collect::<Vec<_>>().join(" "));
                assert_eq!(row.as_deref(), Some(expected), "{table}");
                assert_eq!(table.lines().count(), 2, "{table}");
            }
        };
        check("\u{1b}[31mred", r"\u{1b}[31mred 1 -");
        check("k1\nk2", r"k1\nk2 1 -");
        check("a\u{202e}b", r"a\u{202e}b 1 -");
    }

    /// On a terminal of any width.
    #[test]
    fn rows_stay_on_one_line_and_keys_stay_whole() {
        let key = "customer-0190a4f2-7c1e-7b6a-9d51-0242ac120002";
        let why = "transient: the provider answered 503 Service Unavailable, twice";
        let rows = [
            sample(key, 7, why),
            sample("k", 1234, "日本語 の 理由 です よ"),
        ];
        for screen in [20, 40, 60, 72, 80, 100, 120, 200] {
            let table = written(OutputFormat::Table, Some(screen), &rows);
            assert_eq!(table.lines().count(), 3, "{screen}: {table}");
            assert!(table.contains(key), "{screen}: {table}");
            let is_whole = table.contains(why);
            assert_eq!(is_whole, screen >= 118, "{screen}: {table}");
            assert_eq!(table.contains('…'), !is_whole, "{screen}: {table}");
        }
        let whole = written(OutputFormat::Table, None, &rows);
        assert!(whole.contains(why) && !whole.contains('…'), "{whole}");
    }

    #[test]
    fn a_long_table_is_written_in_blocks_under_one_header() {
        let mut listing = Listing::new(Stdout::to(Vec::new()), OutputFormat::Table, None);
        for size in 0..2 * TABLE_ROWS_MAX as u32 {
            listing.push(&sample("a", size, "x")).unwrap();
            assert!(listing.held.len() < TABLE_ROWS_MAX);
        }
        let table = String::from_utf8(listing.out.get_ref().clone()).unwrap();
        assert_eq!(table.lines().count(), 2 * TABLE_ROWS_MAX + 1);
        assert_eq!(table.matches("SIZE").count(), 1);
    }
}
