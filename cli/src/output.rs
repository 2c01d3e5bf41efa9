//! How listings look: a table for people, JSON for programs. Rows stream; memory does not grow with their number.

use crate::format::one_line;
use clap::{Args, ValueEnum};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

/// How a listing is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// Columns for people.
    Table,
    /// One JSON array.
    Json,
    /// One JSON object a line.
    Jsonl,
}

/// The format of a listing.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct OutputArgs {
    /// How to write the listing.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: OutputFormat,
}

/// A row of a listing. As JSON it is what serde makes of it: field names are a promise to scripts.
pub(crate) trait Row: Serialize {
    /// Column titles of the table.
    const COLUMNS: &'static [&'static str];

    /// The cells of the table; more than one line where the row has parts.
    fn cells(&self) -> Vec<Vec<String>>;
}

/// Rows of a table that share column widths, and are held until the table is written.
const TABLE_ROWS_MAX: usize = 500;

/// A terminal that shows the table.
#[derive(Debug, Clone, Copy)]
struct Screen {
    width: Option<u16>,
}

/// Writes rows to `W` as they come.
pub(crate) struct Listing<W: Write, R: Row> {
    out: W,
    format: OutputFormat,
    rows: usize,
    held: Vec<Vec<String>>,
    screen: Option<Screen>,
    row: std::marker::PhantomData<R>,
}

/// A result for a reader that may leave before its end, as in `evenkeel groups lag | head -1`: what is written then is
/// dropped, and the command goes on to its exit code.
pub(crate) struct ForReader<W> {
    out: W,
    has_left: bool,
}

impl ForReader<BufWriter<StdoutLock<'static>>> {
    /// On standard output.
    pub(crate) fn stdout() -> Self {
        Self::new(BufWriter::new(io::stdout().lock()))
    }
}

/// Writes one line for a reader that may leave.
pub(crate) fn print_line(text: &str) -> io::Result<()> {
    let mut out = ForReader::stdout();
    writeln!(out, "{text}")?;
    out.flush()
}

impl<W: Write> ForReader<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            has_left: false,
        }
    }

    fn unless_left<T>(
        &mut self,
        done: T,
        write: impl FnOnce(&mut W) -> io::Result<T>,
    ) -> io::Result<T> {
        if self.has_left {
            return Ok(done);
        }
        match write(&mut self.out) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.has_left = true;
                Ok(done)
            }
            result => result,
        }
    }
}

impl<W: Write> Write for ForReader<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unless_left(bytes.len(), |out| out.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unless_left((), Write::flush)
    }
}

impl<R: Row> Listing<ForReader<BufWriter<StdoutLock<'static>>>, R> {
    /// A listing on standard output; a table fits the terminal if there is one.
    pub(crate) fn stdout(format: OutputFormat) -> Self {
        let screen = io::stdout().is_terminal().then(|| Screen {
            // A terminal that does not know its width says 0: `docker exec -t`, `script`, some CI.
            width: Table::new().width().filter(|width| *width > 0),
        });
        Self::new(ForReader::stdout(), format, screen)
    }

    /// Writes all rows, then the end.
    pub(crate) fn print(format: OutputFormat, rows: impl IntoIterator<Item = R>) -> io::Result<()> {
        let mut listing = Self::stdout(format);
        for row in rows {
            listing.push(&row)?;
        }
        listing.finish()
    }
}

impl<W: Write, R: Row> Listing<W, R> {
    fn new(out: W, format: OutputFormat, screen: Option<Screen>) -> Self {
        Self {
            out,
            format,
            rows: 0,
            held: Vec::new(),
            screen,
            row: std::marker::PhantomData,
        }
    }

    /// Adds a row. JSON is written at once; a table in blocks.
    pub(crate) fn push(&mut self, row: &R) -> io::Result<()> {
        match self.format {
            OutputFormat::Table => {
                self.hold(row.cells());
                if self.held.len() >= TABLE_ROWS_MAX {
                    self.write_table()?;
                }
            }
            OutputFormat::Json => {
                let before: &[u8] = if self.rows == 0 { b"[\n" } else { b",\n" };
                self.out.write_all(before)?;
                serde_json::to_writer(&mut self.out, row)?;
            }
            OutputFormat::Jsonl => {
                serde_json::to_writer(&mut self.out, row)?;
                self.out.write_all(b"\n")?;
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// Keeps rows until the block is written. Names that others chose (client ids, keys) may neither steer the terminal nor
    /// look like rows of their own.
    fn hold(&mut self, rows: Vec<Vec<String>>) {
        let clean = |cell: String| one_line(&cell);
        let rows = rows.into_iter();
        self.held
            .extend(rows.map(|cells| cells.into_iter().map(clean).collect()));
    }

    /// Passes on what is buffered, so that a reader of JSON lines sees the rows that are there.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Writes what is left.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        match self.format {
            OutputFormat::Table if !self.held.is_empty() || self.rows == 0 => self.write_table()?,
            OutputFormat::Table | OutputFormat::Jsonl => {}
            OutputFormat::Json if self.rows == 0 => self.out.write_all(b"[]\n")?,
            OutputFormat::Json => self.out.write_all(b"\n]\n")?,
        }
        self.out.flush()
    }

    fn write_table(&mut self) -> io::Result<()> {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_header(R::COLUMNS.iter().map(|title| title.to_uppercase()))
            .add_rows(self.held.drain(..));
        // Two blanks between columns and none before the first, so that cells that wrap stay below their title.
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        if let Some(width) = self.screen.and_then(|screen| screen.width) {
            table
                .set_content_arrangement(ContentArrangement::Dynamic)
                .set_width(width);
        }
        for line in table.lines() {
            writeln!(self.out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Pair {
        name: &'static str,
        size: u32,
    }

    impl Row for Pair {
        const COLUMNS: &'static [&'static str] = &["name", "size"];

        fn cells(&self) -> Vec<Vec<String>> {
            vec![vec![self.name.to_owned(), self.size.to_string()]]
        }
    }

    fn written(format: OutputFormat, screen: Option<Screen>, rows: &[Pair]) -> String {
        let mut out = Vec::new();
        let mut listing = Listing::new(&mut out, format, screen);
        for row in rows {
            listing.push(row).unwrap();
        }
        listing.finish().unwrap();
        drop(listing);
        String::from_utf8(out).unwrap()
    }

    const TWO: &[Pair] = &[
        Pair { name: "a", size: 1 },
        Pair {
            name: "long",
            size: 20,
        },
    ];

    #[test]
    fn each_format_writes_what_its_reader_expects() {
        let check =
            |format, rows, expected: &str| assert_eq!(written(format, None, rows), expected);
        check(OutputFormat::Jsonl, &[], "");
        check(OutputFormat::Json, &[], "[]\n");
        check(OutputFormat::Table, &[], "NAME  SIZE\n");
        check(
            OutputFormat::Jsonl,
            TWO,
            "{\"name\":\"a\",\"size\":1}\n{\"name\":\"long\",\"size\":20}\n",
        );
        check(
            OutputFormat::Json,
            TWO,
            "[\n{\"name\":\"a\",\"size\":1},\n{\"name\":\"long\",\"size\":20}\n]\n",
        );
        check(OutputFormat::Table, TWO, "NAME  SIZE\na     1\nlong  20\n");
    }

    #[test]
    fn a_cell_neither_steers_the_terminal_nor_forges_a_row() {
        let check = |name, expected: &str| {
            let rows = [Pair { name, size: 1 }];
            for screen in [None, Some(Screen { width: None })] {
                let table = written(OutputFormat::Table, screen, &rows);
                assert_eq!(table.lines().nth(1), Some(expected), "{table}");
                assert_eq!(table.lines().count(), 2, "{table}");
            }
        };
        check("\u{1b}[31mred", "red   1");
        check("k1\nk2  7", "k1\\nk2  7  1");
        check("a\u{202e}b", "ab    1");
    }

    #[test]
    fn a_reader_that_leaves_ends_the_writing_and_other_errors_are_errors() {
        struct Broken(io::ErrorKind);
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(self.0.into())
            }
        }
        let mut left = ForReader::new(Broken(io::ErrorKind::BrokenPipe));
        assert!(left.write_all(b"all").is_ok());
        assert!(left.flush().is_ok());
        let mut full = ForReader::new(Broken(io::ErrorKind::StorageFull));
        assert!(full.write_all(b"all").is_err());
    }

    #[test]
    fn a_long_table_is_written_in_blocks() {
        let mut listing = Listing::new(Vec::new(), OutputFormat::Table, None);
        for size in 0..TABLE_ROWS_MAX as u32 {
            listing.push(&Pair { name: "a", size }).unwrap();
        }
        assert!(listing.held.is_empty());
        assert_eq!(
            listing.out.iter().filter(|byte| **byte == b'\n').count(),
            TABLE_ROWS_MAX + 1
        );
    }
}
