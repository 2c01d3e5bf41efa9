//! The event types that a command knows: the shop's, or those of a folder.
//!
//! The shop's schemas are compiled into the tool, so `schemas` and `publish` work without any file.
//! A folder replaces them; it does not add to them.

use anyhow::Context;
use clap::Args;
use evenkeel::schema::Catalogue;
use std::path::PathBuf;

/// The flag that names the schemas.
#[derive(Debug, Clone, Args)]
pub(crate) struct CatalogueArgs {
    /// Folder with schemas, in files TYPE.schema.json [default: the shop's schemas].
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) schemas: Option<PathBuf>,
}

impl CatalogueArgs {
    /// Compiles the schemas. Fails if the folder cannot be read or one of its files is not a
    /// schema; the error names it.
    pub(crate) fn load(&self) -> anyhow::Result<Catalogue> {
        match &self.schemas {
            Some(dir) => Catalogue::from_dir(dir)
                .with_context(|| format!("loading the schemas of {}", dir.display())),
            None => shop_schemas::catalogue().context("loading the shop's schemas"),
        }
    }
}

/// The types of a catalogue, for a message.
pub(crate) fn known_types(catalogue: &Catalogue) -> String {
    catalogue.types().collect::<Vec<_>>().join(", ")
}
