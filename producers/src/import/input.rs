//! Opens what is imported and finds where to begin. Knows the files, not what their lines mean.

use super::Plan;
use super::format::Format;
use super::lines::{Content, Line, Lines};
use super::resume::{Found, Identity, Progress, ResumeFile};
use anyhow::Context;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// An input that stands where the import begins.
pub(super) struct Input {
    /// The lines to come.
    pub(super) lines: Lines<Box<dyn Read + Send>>,
    /// How far an earlier run got.
    pub(super) start: Progress,
    /// A CSV's header, where the lines to come begin behind it.
    pub(super) header: Option<Vec<u8>>,
    /// Bytes to come, where that is known.
    pub(super) bytes_to_come: Option<u64>,
    /// Where to keep progress; none for an input that cannot be read again.
    pub(super) resume: Option<ResumeFile>,
    /// Something to tell the user.
    pub(super) notice: Option<String>,
}

impl Input {
    /// Opens the plan's input. A regular file that was interrupted before goes on where it stopped.
    pub(super) fn open(plan: &Plan, event_type: &str, brokers: &str) -> anyhow::Result<Self> {
        let Some(path) = &plan.file else {
            let stdin = Box::new(std::io::stdin());
            return Ok(Self::from_beginning(stdin, plan.format, None));
        };
        let named = || format!("cannot read {}", path.display());
        let file = File::open(path).with_context(named)?;
        let metadata = file.metadata().with_context(named)?;
        if metadata.is_dir() {
            anyhow::bail!("{} is a folder, not a file of lines", path.display());
        }
        if !metadata.is_file() {
            return Ok(Self::from_beginning(Box::new(file), plan.format, None));
        }
        let identity = Identity::new(event_type, brokers, &metadata).with_context(named)?;
        let resume = ResumeFile::beside(path, identity);
        let (start, notice) = begin(plan, &resume)?;
        let mut input = Self::after(file, start, plan.format).with_context(named)?;
        input.bytes_to_come = Some(metadata.len().saturating_sub(start.end_bytes));
        input.resume = Some(resume);
        input.notice = notice;
        Ok(input)
    }

    fn after(mut file: File, start: Progress, format: Format) -> std::io::Result<Self> {
        if start.line == 0 {
            return Ok(Self::from_beginning(Box::new(file), format, None));
        }
        let header = match format {
            Format::Csv => match Lines::after(&file, format, 0, 0).next()? {
                Some(Line {
                    content: Content::Bytes(header),
                    ..
                }) => Some(header),
                _ => None,
            },
            Format::Jsonl => None,
        };
        file.seek(SeekFrom::Start(start.end_bytes))?;
        Ok(Self {
            lines: Lines::after(Box::new(file), format, start.line, start.end_bytes),
            start,
            ..Self::from_beginning(Box::new(std::io::empty()), format, header)
        })
    }

    fn from_beginning(
        reader: Box<dyn Read + Send>,
        format: Format,
        header: Option<Vec<u8>>,
    ) -> Self {
        Self {
            lines: Lines::after(reader, format, 0, 0),
            start: Progress::default(),
            header,
            bytes_to_come: None,
            resume: None,
            notice: None,
        }
    }
}

/// Where to begin, and what to say about it.
fn begin(plan: &Plan, resume: &ResumeFile) -> anyhow::Result<(Progress, Option<String>)> {
    if plan.restart || plan.skip_lines.is_some() {
        return Ok((Progress::default(), None));
    }
    let found = resume.load().with_context(|| unreadable(resume.path()))?;
    Ok(match found {
        Found::Nothing => (Progress::default(), None),
        Found::Progress(progress) => {
            let notice = format!(
                "going on at line {}, where the last import stopped",
                progress.line + 1
            );
            (progress, Some(notice))
        }
        Found::NotOurs(reason) => {
            let path = resume.path().display();
            let notice = format!("beginning at line 1: {path} does not count, {reason}");
            (Progress::default(), Some(notice))
        }
    })
}

fn unreadable(path: &Path) -> String {
    format!(
        "cannot read {}; --restart begins without it",
        path.display()
    )
}
