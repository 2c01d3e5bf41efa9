//! The manual page of a command: clap's data, exit status, environment and examples.

use super::examples::lines_of;
use clap::Command;
use clap_mangen::roff::{Roff, bold, roman};
use evenkeel_program::exit::STATUS;
use std::io;

/// Variables that are not the default of an argument.
const ENVIRONMENT: [(&str, &str); 4] = [
    (
        "KAFKA_BOOTSTRAP_SERVERS, KAFKA_BROKERS",
        "Bootstrap servers, if --brokers is not given.",
    ),
    (
        "KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_*, KAFKA_SSL_*, KAFKA_X__*",
        "Properties of librdkafka: KAFKA_SASL_USERNAME sets sasl.username, KAFKA_X__LINGER_MS sets \
         linger.ms.",
    ),
    (
        "RUST_LOG",
        "Log filter for standard error, such as evenkeel=debug. If it is not set, only outbox \
         relay logs, from info on.",
    ),
    ("NO_COLOR", "Print help without colours."),
];

/// The manual page of the command at `path`, in roff. The command must be built: clap adds the
/// names of the parents and the global arguments only then.
pub(crate) fn page(command: &Command, path: &str) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let plain = command.clone().version(env!("CARGO_PKG_VERSION"));
    let man = clap_mangen::Man::new(plain).manual("evenkeel");
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.get_arguments().next().is_some() {
        man.render_options_section(&mut page)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in STATUS {
        roff.control("TP", [])
            .text([bold(code)])
            .text([roman(meaning)]);
    }
    roff.control("SH", ["ENVIRONMENT"]);
    for (name, meaning) in environment(command) {
        roff.control("TP", [])
            .text([bold(name)])
            .text([roman(meaning)]);
    }
    let lines = lines_of(path);
    if !lines.is_empty() {
        roff.control("SH", ["EXAMPLES"]).control("nf", []);
        for line in lines {
            roff.text([roman(*line)]);
        }
        roff.control("fi", []);
    }
    roff.to_writer(&mut page)?;
    man.render_version_section(&mut page)?;
    Ok(page)
}

/// The variables that a command reads. Those of its arguments come first.
fn environment(command: &Command) -> Vec<(String, String)> {
    let of_arguments = command.get_arguments().filter_map(|argument| {
        let name = argument.get_env()?.to_string_lossy().into_owned();
        let flag = argument.get_long().map(|long| format!("--{long}"));
        let flag = flag.unwrap_or_else(|| argument.get_id().to_string());
        Some((name, format!("Default of {flag}.")))
    });
    let others = ENVIRONMENT.iter();
    let others = others.map(|(name, meaning)| ((*name).to_owned(), (*meaning).to_owned()));
    of_arguments.chain(others).collect()
}
