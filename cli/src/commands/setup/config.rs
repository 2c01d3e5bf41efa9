//! `evenkeel config`: the effective settings and their origins.
//!
//! Secrets are masked by `evenkeel::kafka::EffectiveSetting`, not here, so no output format can
//! show them.

use crate::arguments::connection::{ConnectionArgs, print_config_warnings};
use crate::output::{Column, Listing, OutputArgs, Row, name, text};
use clap::{Args, Subcommand};
use evenkeel::kafka::EffectiveSetting;
use evenkeel_program::exit::Ending;
use serde::Serialize;

/// Show the connection settings in effect.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,

    #[command(flatten)]
    connection: ConnectionArgs,
}

/// The commands of `config`.
#[derive(Debug, Subcommand)]
enum ConfigCommand {
    Show(ShowArgs),
}

/// Show the settings in effect, with secrets masked. librdkafka's defaults apply to all others.
///
/// Connects to nothing. Precedence, highest first: flag, file of --config, environment variable,
/// file of EVENKEEL_CONFIG, default.
#[derive(Debug, Args)]
struct ShowArgs {
    /// Also show the origin of each setting; JSON always contains it.
    #[arg(long)]
    origin: bool,

    #[command(flatten)]
    output: OutputArgs,
}

/// A setting in a table without origins. JSON has the origin in any case.
#[derive(Serialize)]
#[serde(transparent)]
struct Setting(EffectiveSetting);

impl Row for Setting {
    const COLUMNS: &'static [Column] = &[name("setting"), text("value")];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![vec![self.0.name.clone(), self.0.value.clone()]]
    }
}

/// A setting in a table with origins.
#[derive(Serialize)]
#[serde(transparent)]
struct WithOrigin(EffectiveSetting);

impl Row for WithOrigin {
    const COLUMNS: &'static [Column] = &[name("setting"), text("value"), text("origin")];

    fn cells(&self) -> Vec<Vec<String>> {
        let setting = &self.0;
        vec![vec![
            setting.name.clone(),
            setting.value.clone(),
            setting.origin.to_string(),
        ]]
    }
}

/// Prints the settings. Connects to nothing; invalid settings are a usage error.
pub(crate) fn run(args: ConfigArgs) -> anyhow::Result<Ending> {
    let ConfigCommand::Show(show) = args.command;
    let layers = args.connection.layers()?;
    print_config_warnings(&layers);
    let settings = layers.effective()?.into_iter();
    match show.origin {
        true => Listing::print(show.output, settings.map(WithOrigin))?,
        false => Listing::print(show.output, settings.map(Setting))?,
    }
    Ok(Ending::Done)
}
