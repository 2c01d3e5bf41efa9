//! `evenkeel config`: the effective settings and their origins.

use crate::arguments::connection::{ConnectionArgs, warn_of};
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

#[derive(Serialize)]
#[serde(transparent)]
struct Setting(EffectiveSetting);

impl Row for Setting {
    const COLUMNS: &'static [Column] = &[name("setting"), text("value")];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![vec![self.0.name.clone(), self.0.value.clone()]]
    }
}

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

/// Prints the settings.
pub(crate) fn run(args: ConfigArgs) -> anyhow::Result<Ending> {
    let ConfigCommand::Show(show) = args.command;
    let layers = args.connection.layers()?;
    warn_of(&layers);
    let settings = layers.effective()?.into_iter();
    match show.origin {
        true => Listing::print(show.output, settings.map(WithOrigin))?,
        false => Listing::print(show.output, settings.map(Setting))?,
    }
    Ok(Ending::Done)
}
