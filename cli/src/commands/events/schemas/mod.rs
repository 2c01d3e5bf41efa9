//! `evenkeel schemas`: lists event types and their schemas, and validates payloads.
//!
//! Needs no cluster. Topics and keys are those of the shop's declarations; types of a folder that
//! are not declared have dashes there.

mod check;

use crate::arguments::catalogue::{CatalogueArgs, known_types};
use crate::output::{Column, Listing, OutputArgs, Row, name, or_dash, print, text};
use clap::{Args, Subcommand};
use evenkeel_program::exit::{Ending, Usage};
use serde::Serialize;
use serde_json::Value;

/// List, show and check the schemas of event types.
#[derive(Debug, Args)]
pub(crate) struct SchemasArgs {
    #[command(subcommand)]
    command: SchemasCommand,

    #[command(flatten)]
    catalogue: CatalogueArgs,
}

/// The commands of `schemas`.
#[derive(Debug, Subcommand)]
enum SchemasCommand {
    /// List the event types, with the topic and the key that are declared for them.
    #[command(visible_alias = "ls")]
    List(OutputArgs),
    /// Print the schema of an event type as JSON.
    Show(ShowArgs),
    Check(check::CheckArgs),
}

/// The type to show.
#[derive(Debug, Args)]
struct ShowArgs {
    /// Event type, for example shop.order-placed.v1.
    #[arg(value_name = "TYPE")]
    ty: String,
}

/// Runs one of the schema commands.
pub(crate) fn run(args: SchemasArgs) -> anyhow::Result<Ending> {
    match args.command {
        SchemasCommand::List(output) => list(&args.catalogue, output),
        SchemasCommand::Show(show_args) => show(&args.catalogue, &show_args.ty),
        SchemasCommand::Check(check_args) => check::run(&args.catalogue, check_args),
    }
}

/// An event type as it is listed.
#[derive(Serialize)]
struct SchemaRow {
    /// The event type.
    #[serde(rename = "type")]
    ty: String,
    /// The topic that is declared for it, if any.
    topic: Option<String>,
    /// The field of the payload that is declared as its key, if any.
    key: Option<String>,
    /// The schema's description, if it has one.
    description: Option<String>,
}

impl Row for SchemaRow {
    const COLUMNS: &'static [Column] = &[
        name("type"),
        name("topic"),
        name("key"),
        text("description"),
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![vec![
            self.ty.clone(),
            or_dash(self.topic.as_deref()),
            or_dash(self.key.as_deref()),
            or_dash(self.description.as_deref()),
        ]]
    }
}

/// Lists the types in the order of the catalogue.
fn list(catalogue: &CatalogueArgs, output: OutputArgs) -> anyhow::Result<Ending> {
    let catalogue = catalogue.load()?;
    let rows = catalogue.types().map(|ty| {
        let travels =
            |topic: &&shop_schemas::TopicDeclaration| topic.events.iter().any(|event| event == ty);
        let declaration = shop_schemas::topics().iter().find(travels);
        let description = catalogue
            .schema(ty)
            .and_then(|schema| schema.get("description"));
        SchemaRow {
            ty: ty.to_owned(),
            topic: declaration.map(|topic| topic.name.clone()),
            key: declaration.map(|topic| topic.key.clone()),
            description: description.and_then(Value::as_str).map(str::to_owned),
        }
    });
    Listing::print(output, rows)?;
    Ok(Ending::Done)
}

/// Prints the schema, indented. An unknown type is a usage error that lists the known ones.
fn show(catalogue: &CatalogueArgs, ty: &str) -> anyhow::Result<Ending> {
    let catalogue = catalogue.load()?;
    let Some(schema) = catalogue.schema(ty) else {
        let known = known_types(&catalogue);
        return Err(Usage(format!("no schema for event type {ty}; there are: {known}")).into());
    };
    let mut text = serde_json::to_string_pretty(schema)?;
    text.push('\n');
    print(&text)?;
    Ok(Ending::Done)
}
