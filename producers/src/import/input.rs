//! Opens the input and finds the line at which to begin. Does not parse lines.

use super::Plan;
use super::format::Format;
use super::lines::{At, Content, Line, Lines};
use super::resume::{Found, Identity, Progress, ResumeFile};
use anyhow::Context;
use std::fs::{File, Metadata};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// An input, positioned at the beginning of the import.
pub(super) struct Input {
    /// The lines to import.
    pub(super) lines: Lines<Box<dyn Read + Send>>,
    /// The progress of an earlier run.
    pub(super) start: Progress,
    /// Header and field separator of a CSV, if the lines begin after the header.
    pub(super) header: Option<(Vec<u8>, u8)>,
    /// Number of bytes to import, if known.
    pub(super) bytes_to_come: Option<u64>,
    /// The progress file. `None` for an input that cannot be read again.
    pub(super) resume: Option<ResumeFile>,
    /// A message to the user.
    pub(super) notice: Option<String>,
}

/// The opened input, before the cluster is known.
pub(super) enum Opened {
    /// A file that can be read again.
    File(File, Metadata),
    /// Any other input.
    Stream(Box<dyn Read + Send>),
}

impl Opened {
    pub(super) fn open(plan: &Plan) -> anyhow::Result<Self> {
        let Some(path) = &plan.file else {
            return Ok(Self::Stream(Box::new(std::io::stdin())));
        };
        let named = || format!("cannot read {}", path.display());
        let file = File::open(path).with_context(named)?;
        let metadata = file.metadata().with_context(named)?;
        if metadata.is_dir() {
            anyhow::bail!("{} is a folder, not a file of lines", path.display());
        }
        Ok(match metadata.is_file() {
            true => Self::File(file, metadata),
            false => Self::Stream(Box::new(file)),
        })
    }
}

impl Input {
    /// Positions the input. A file whose import to this cluster was interrupted continues where it
    /// stopped.
    pub(super) fn begin(
        opened: Opened,
        plan: &Plan,
        event_type: &str,
        cluster: &str,
    ) -> anyhow::Result<Self> {
        let (file, metadata, path) = match (opened, &plan.file) {
            (Opened::File(file, metadata), Some(path)) => (file, metadata, path),
            (Opened::File(file, _), None) => {
                return Ok(Self::from_beginning(Box::new(file), plan));
            }
            (Opened::Stream(stream), _) => return Ok(Self::from_beginning(stream, plan)),
        };
        let named = || format!("cannot read {}", path.display());
        let identity = Identity::new(event_type, cluster, &metadata).with_context(named)?;
        let resume = ResumeFile::beside(path, identity);
        let (start, notice) = begin(plan, &resume, &file)?;
        let mut input = Self::after(file, start, plan).with_context(named)?;
        input.bytes_to_come = Some(metadata.len().saturating_sub(start.at.bytes));
        input.resume = Some(resume);
        input.notice = notice;
        Ok(input)
    }

    fn after(mut file: File, start: Progress, plan: &Plan) -> std::io::Result<Self> {
        file.seek(SeekFrom::Start(0))?;
        if start.at.line == 0 {
            return Ok(Self::from_beginning(Box::new(file), plan));
        }
        let mut delimiter = plan.delimiter;
        let mut header = None;
        if plan.format == Format::Csv
            && let Some(Line {
                content: Content::Bytes(names),
                delimiter: found,
                ..
            }) = Lines::after(&file, plan.format, delimiter, At::default()).next()?
        {
            delimiter = Some(found);
            header = Some((names, found));
        }
        file.seek(SeekFrom::Start(start.at.bytes))?;
        Ok(Self {
            lines: Lines::after(Box::new(file), plan.format, delimiter, start.at),
            start,
            header,
            ..Self::from_beginning(Box::new(std::io::empty()), plan)
        })
    }

    fn from_beginning(reader: Box<dyn Read + Send>, plan: &Plan) -> Self {
        Self {
            lines: Lines::after(reader, plan.format, plan.delimiter, At::default()),
            start: Progress::default(),
            header: None,
            bytes_to_come: None,
            resume: None,
            notice: None,
        }
    }
}

/// Where to begin, and the message about it.
fn begin(
    plan: &Plan,
    resume: &ResumeFile,
    input: &File,
) -> anyhow::Result<(Progress, Option<String>)> {
    if plan.restart || plan.skip_lines.is_some() {
        return Ok((Progress::default(), None));
    }
    let found = resume
        .load(input)
        .with_context(|| unreadable(resume.path()))?;
    Ok(match found {
        Found::Nothing => (Progress::default(), None),
        Found::Progress(progress) => {
            let notice = format!(
                "continuing at line {}, where the last import stopped",
                progress.at.line + 1
            );
            (progress, Some(notice))
        }
        Found::NotOurs(reason) => {
            let path = resume.path().display();
            let notice = format!("starting at line 1: {path} is ignored: {reason}");
            (Progress::default(), Some(notice))
        }
    })
}

fn unreadable(path: &Path) -> String {
    format!(
        "cannot read {}; --restart starts without it",
        path.display()
    )
}
