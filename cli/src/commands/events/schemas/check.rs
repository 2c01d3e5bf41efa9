//! `evenkeel schemas check`: validates schema documents, or payloads against a schema.
//!
//! One argument that is no file is an event type; its payloads come from standard input. Text that
//! is not JSON counts as an invalid payload, and ends the input, because the start of the next one
//! is unknown.

use crate::arguments::catalogue::{CatalogueArgs, known_types};
use crate::output::{Column, Listing, OutputArgs, Row, id, name, or_dash, text};
use anyhow::Context;
use clap::Args;
use evenkeel::schema::Catalogue;
use evenkeel_program::exit::{Ending, Usage};
use serde::Serialize;
use serde_json::{Deserializer, Value};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

/// Check schema files, or the payloads of an event type from standard input.
///
/// With files: whether each is a usable schema. With an event type: whether each JSON text on
/// standard input conforms to its schema. Needs no cluster.
///
/// Exit codes: 0 all are valid; 3 something is invalid.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Schema files, or one event type.
    #[arg(required = true, value_name = "FILE|TYPE")]
    what: Vec<String>,

    #[command(flatten)]
    output: OutputArgs,
}

/// The result for a document or a payload.
#[derive(Serialize)]
struct Checked {
    /// The file, or the payload's number from 1.
    subject: String,
    /// Whether it is valid.
    valid: bool,
    /// Why it is not.
    reason: Option<String>,
}

impl Row for Checked {
    const COLUMNS: &'static [Column] = &[id("subject"), name("valid"), text("reason")];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![vec![
            self.subject.clone(),
            if self.valid { "yes" } else { "no" }.to_owned(),
            or_dash(self.reason.as_deref()),
        ]]
    }
}

impl Checked {
    /// The result for a subject. An error is the reason.
    fn new(subject: String, result: Result<(), String>) -> Self {
        Self {
            subject,
            valid: result.is_ok(),
            reason: result.err(),
        }
    }
}

/// Distinguishes files from an event type, and checks them.
pub(super) fn run(catalogue: &CatalogueArgs, args: CheckArgs) -> anyhow::Result<Ending> {
    let output = args.output;
    if let [ty] = args.what.as_slice()
        && !Path::new(ty).exists()
    {
        let catalogue = catalogue.load()?;
        if catalogue.schema(ty).is_none() {
            let known = known_types(&catalogue);
            let text = format!("{ty} is neither a file nor an event type; there are: {known}");
            return Err(Usage(text).into());
        }
        return check_payloads(&catalogue, ty, output);
    }
    let mut listing = Listing::stdout(output);
    let mut ending = Ending::Done;
    for file in args.what.iter().map(PathBuf::from) {
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("reading {}", file.display()))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let ty = name.strip_suffix(".schema.json").unwrap_or(&name);
        let result = Catalogue::from_texts([(ty, text.as_str())]).map(drop);
        let checked = Checked::new(
            file.display().to_string(),
            result.map_err(|error| error.to_string()),
        );
        if !checked.valid {
            ending = Ending::FoundBad;
        }
        listing.push(&checked)?;
    }
    listing.finish()?;
    Ok(ending)
}

/// Checks each JSON text of standard input. A text may span several lines.
fn check_payloads(catalogue: &Catalogue, ty: &str, output: OutputArgs) -> anyhow::Result<Ending> {
    let mut listing = Listing::stdout(output);
    let mut ending = Ending::Done;
    let input = BufReader::new(io::stdin());
    let mut number = 0;
    for payload in Deserializer::from_reader(input).into_iter::<Value>() {
        number += 1;
        let result = match payload {
            Ok(payload) => catalogue.validate(ty, &payload).map_err(|e| e.to_string()),
            Err(error) if error.is_io() => return Err(error.into()),
            Err(error) => Err(format!("not JSON: {error}")),
        };
        let checked = Checked::new(number.to_string(), result);
        if !checked.valid {
            ending = Ending::FoundBad;
        }
        listing.push(&checked)?;
    }
    listing.finish()?;
    if number == 0 {
        return Err(Usage("there is no payload on standard input".to_owned()).into());
    }
    Ok(ending)
}
