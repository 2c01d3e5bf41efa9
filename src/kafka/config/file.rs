//! Settings in a file: TOML, or `key=value` lines in a file whose name ends in `.properties`.
//!
//! Owns the format that all programs share. No error quotes the content of the file, which may be a
//! password.
//!
//! In TOML, `brokers` at the top level is a text or an array of texts, and every other property
//! is in the table `[kafka]`. The rest of the top level belongs to the program, with tables of its
//! own. A property of librdkafka outside of `[kafka]` is refused, because the program would ignore
//! it silently.

use super::ConfigError;
use super::properties::{self, Property};
use serde::de::DeserializeOwned;
use std::path::Path;

/// The expected content, for a file without settings of Kafka.
const EXPECTED: &str =
    "expected brokers = \"host:port\", or a table [kafka] of librdkafka properties";

/// The content of a file.
pub(super) struct FileContent {
    pub(super) settings: Vec<Property>,
    /// The keys of its top level, which may be those of a program.
    keys: Vec<String>,
}

impl FileContent {
    /// Refuses a file without settings of Kafka: its content was meant as something else.
    pub(super) fn about_kafka(self, path: &Path) -> Result<Self, ConfigError> {
        let about_kafka = |key: &String| key == "brokers" || key == "kafka";
        if !self.settings.is_empty() || self.keys.iter().any(about_kafka) {
            return Ok(self);
        }
        let reason = match self.keys.is_empty() {
            true => format!("is empty; {EXPECTED}"),
            false => format!("has only {}; {EXPECTED}", self.keys.join(", ")),
        };
        Err(ConfigError::new(name_of(path), reason))
    }
}

/// Reads the content of a program's file beside Kafka's settings, which
/// [`ConfigLayers`](super::ConfigLayers) reads: the default of `T` for a `.properties` file. Errors
/// name the file, the line and the column, and quote no value.
///
/// ```
/// #[derive(Default, serde::Deserialize)]
/// #[serde(default)]
/// struct Program {
///     concurrency: Option<usize>,
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("payments.toml");
/// std::fs::write(&path, "concurrency = 16\n[kafka]\nlinger.ms = 5\n")?;
/// let program: Program = evenkeel::kafka::read_toml(&path)?;
/// assert_eq!(program.concurrency, Some(16));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Returns an error if the file cannot be read, is not TOML, or does not match `T`.
pub fn read_toml<T: DeserializeOwned + Default>(path: &Path) -> Result<T, ConfigError> {
    if is_properties(path) {
        return Ok(T::default());
    }
    parse_toml(path, &read(path)?)
}

/// The properties in a file, including `brokers` of its top level as `bootstrap.servers`. Other
/// keys of the top level belong to the program.
///
/// A property may occur under two names (`sasl.mechanism` and `sasl.mechanisms`) only with equal
/// values: the order of a TOML table carries no meaning, so no value could win.
pub(super) fn contents(path: &Path) -> Result<FileContent, ConfigError> {
    let text = read(path)?;
    let named = |reason: String| ConfigError::new(name_of(path), reason);
    let contents = match is_properties(path) {
        true => FileContent {
            settings: properties::parse(&text).map_err(named)?,
            keys: Vec::new(),
        },
        false => {
            let table: toml::Table = parse_toml(path, &text)?;
            let others = table.iter().filter(|(key, _)| *key != "kafka");
            for (key, value) in others {
                if let Some(property) = property_in(key, value) {
                    return Err(named(format!(
                        "{property} is outside of the table [kafka]; move it into that table"
                    )));
                }
            }
            FileContent {
                settings: properties_of_table(&table).map_err(named)?,
                keys: table.keys().cloned().collect(),
            }
        }
    };
    let settings = &contents.settings;
    let mut seen: Vec<(&str, &str, &str)> = Vec::with_capacity(settings.len());
    for (name, value) in settings {
        let canonical = super::rules::canonical(name);
        let other = seen.iter().find(|(seen, ..)| *seen == canonical);
        if let Some((_, other, _)) = other.filter(|(.., other)| other != value) {
            return Err(named(format!(
                "{other} and {name} set the same property to two values; keep one"
            )));
        }
        seen.push((canonical, name, value));
    }
    Ok(contents)
}

/// The name of a file in errors and warnings.
pub(super) fn name_of(path: &Path) -> String {
    format!("configuration file {}", path.display())
}

/// Whether a file consists of `key=value` lines, by its name.
fn is_properties(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("properties"))
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| {
        let reason = match error.kind() {
            std::io::ErrorKind::InvalidData => "is not UTF-8 text".to_owned(),
            _ => format!("cannot be read: {error}"),
        };
        ConfigError::new(name_of(path), reason)
    })
}

fn parse_toml<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let place = error.span().map_or_else(String::new, |span| {
            let (line, column) = line_and_column(text, span.start);
            format!("line {line}, column {column}: ")
        });
        // A message may quote a value of the wrong kind. The expected kind is enough.
        let message = unquoted(error.message());
        let hint =
            match properties::is_properties_text(text) && text.parse::<toml::Table>().is_err() {
                true => "; a file of key=value lines must have a name that ends in .properties",
                false => "",
            };
        ConfigError::new(name_of(path), format!("{place}{message}{hint}"))
    })
}

/// Line and column of a position, both from 1.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.matches('\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

/// The message without its values, which serde puts between double quotes. A value may contain
/// quotes itself, so everything between the first and the last one is removed.
fn unquoted(message: &str) -> String {
    match (message.find('"'), message.rfind('"')) {
        (Some(first), Some(last)) if first < last => {
            format!("{}…{}", &message[..first], &message[last + 1..])
        }
        _ => message.to_owned(),
    }
}

/// The properties of a TOML document: `brokers` of the top level, and the table `[kafka]`.
fn properties_of_table(document: &toml::Table) -> Result<Vec<Property>, String> {
    let mut settings = Vec::new();
    if let Some(brokers) = document.get("brokers") {
        flatten("bootstrap.servers", brokers, &mut settings)?;
    }
    match document.get("kafka") {
        None => {}
        Some(toml::Value::Table(kafka)) => {
            for (key, value) in kafka {
                let key = if key == "brokers" {
                    "bootstrap.servers"
                } else {
                    key
                };
                flatten(key, value, &mut settings)?;
            }
        }
        Some(_) => return Err("kafka must be a table of librdkafka properties".to_owned()),
    }
    Ok(settings)
}

/// The property of librdkafka that a key of the top level sets. A quoted name with a dot was meant
/// as one, known or not; a table of names that librdkafka does not know is one of the program.
fn property_in(key: &str, value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::Table(table) => table.iter().find_map(|(name, value)| {
            let name = format!("{key}.{name}");
            match value.is_table() {
                true => property_in(&name, value),
                false => super::rules::is_known(&name).then_some(name),
            }
        }),
        _ => key.contains('.').then(|| key.to_owned()),
    }
}

/// In TOML an unquoted `a.b = 1` is a table; as a property it is `a.b`.
fn flatten(key: &str, value: &toml::Value, settings: &mut Vec<Property>) -> Result<(), String> {
    let text = match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(flag) => flag.to_string(),
        toml::Value::Table(table) => {
            return table
                .iter()
                .try_for_each(|(name, value)| flatten(&format!("{key}.{name}"), value, settings));
        }
        toml::Value::Array(items) if key == "bootstrap.servers" => {
            let servers = items.iter().map(|item| item.as_str());
            let servers: Option<Vec<&str>> = servers.collect();
            servers
                .ok_or("brokers must be a text or an array of texts")?
                .join(",")
        }
        toml::Value::Array(_) | toml::Value::Datetime(_) => {
            return Err(format!("{key} must be a text, a number or a boolean"));
        }
    };
    settings.push((key.to_owned(), text));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings_of(name: &str, text: &str) -> Result<Vec<Property>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let contents = contents(&path).and_then(|contents| contents.about_kafka(&path));
        let settings = contents.map(|contents| contents.settings);
        settings
            .map_err(|error| error.to_string())
            .map(|mut settings| {
                settings.sort();
                settings
            })
    }

    fn owned(expected: &[(&str, &str)]) -> Vec<Property> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        expected.iter().map(own).collect()
    }

    #[test]
    fn every_form_of_a_setting_is_read() {
        for (text, expected) in [
            (
                "[kafka]\n\"client.id\" = \"me\"\nsecurity.protocol = \"SSL\"\nlinger.ms = 5\n",
                &[
                    ("client.id", "me"),
                    ("linger.ms", "5"),
                    ("security.protocol", "SSL"),
                ][..],
            ),
            ("brokers = \"a:1\"", &[("bootstrap.servers", "a:1")]),
            (
                "brokers = [\"a:1\", \"b:2\"]",
                &[("bootstrap.servers", "a:1,b:2")],
            ),
            (
                "[kafka]\nbrokers = \"a:1\"",
                &[("bootstrap.servers", "a:1")],
            ),
            (
                "store = \"s.db\"\nbrokers = \"a:1\"\n[kafka]\nsocket.keepalive.enable = true\n",
                &[
                    ("bootstrap.servers", "a:1"),
                    ("socket.keepalive.enable", "true"),
                ],
            ),
            (
                "[kafka]\nsasl.password = \" a b \"",
                &[("sasl.password", " a b ")],
            ),
            (
                "brokers = \"a:1\"\n[retry]\nattempts = 3\n[retry.delays]\nfirst = \"1s\"\n",
                &[("bootstrap.servers", "a:1")],
            ),
        ] {
            assert_eq!(settings_of("c.toml", text), Ok(owned(expected)), "{text}");
        }
    }

    #[test]
    fn a_file_without_kafka_settings_is_refused_with_advice() {
        for (text, says) in [
            ("", "is empty; expected brokers ="),
            ("# nothing\n", "is empty"),
            ("brokerz = \"a:1\"", "has only brokerz"),
            ("kafka = 1", "must be a table"),
            ("sasl.password = \"a\"", "sasl.password is outside"),
            ("\"sasl.passwort\" = \"a\"", "sasl.passwort is outside"),
            ("[ssl.ca]\nlocation = \"a\"", "ssl.ca.location is outside"),
            ("[kafka]\na = []", "a must be a text"),
            (
                "[kafka]\nsasl.mechanism = \"PLAIN\"\nsasl.mechanisms = \"GSSAPI\"",
                "sasl.mechanism and sasl.mechanisms",
            ),
            (
                "bootstrap.servers=a:1\nsecurity.protocol=SSL\n",
                "must have a name that ends in .properties",
            ),
        ] {
            let error = settings_of("c.toml", text).unwrap_err();
            assert!(
                error.contains("c.toml") && error.contains(says),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn no_error_quotes_the_file() {
        #[derive(Debug, serde::Deserialize)]
        struct Program {
            #[allow(dead_code)]
            concurrency: Option<u32>,
        }
        for text in [
            "[kafka]\nsasl.password = \"hunter2\n",
            "[kafka]\nsasl.password = hunter2\n",
            "[kafka]\n\"sasl.password\" hunter2\n",
            "[kafka]\nsasl.password = 'hunter2\n",
            "[kafka]\nsasl.password = [\"hunter2\"]\n",
            "concurrency = \"hunter2\"",
            "concurrency = \"hunter2 \\\" hunter2\"",
        ] {
            let path = Path::new("c.toml");
            let errors = [
                parse_toml::<Program>(path, text).err(),
                settings_of("c.toml", text)
                    .err()
                    .map(|error| ConfigError::new("", error)),
            ];
            let told: Vec<String> = errors.iter().flatten().map(ToString::to_string).collect();
            assert!(!told.is_empty(), "{text}");
            for error in told {
                assert!(!error.contains("hunter2"), "{error}");
            }
        }
        let error = parse_toml::<Program>(Path::new("c.toml"), "a = 1\nä = \n").unwrap_err();
        assert!(error.to_string().contains("line 2, column 1"), "{error}");
    }
}
