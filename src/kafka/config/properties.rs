//! Files of `key=value` lines in the format of kcat and of Java's clients.
//!
//! Owns the differences from librdkafka's names: a Java login module becomes user name and
//! password, and a property without a counterpart is refused with its replacement. Quotes no value.
//!
//! The format is a subset of Java's: one property a line, comments with `#` and `!`, no
//! continuation lines and no escapes. A line that Java would read differently is refused.

/// Properties of Java's clients that librdkafka does not have, with their replacements.
const JAVA: &[(&str, &str)] = &[
    (
        "ssl.truststore",
        "Java's trust stores are not read; set ssl.ca.location to a file of certificates in PEM",
    ),
    (
        "ssl.keystore",
        "Java's key stores are not read; set ssl.certificate.location and ssl.key.location to \
         files in PEM",
    ),
    (
        "sasl.login.callback",
        "it names a Java class; set sasl.oauthbearer.config=file=/path/to/token",
    ),
    (
        "sasl.client.callback",
        "it names a Java class; set sasl.oauthbearer.config=file=/path/to/token",
    ),
];

/// Parses the lines. An error names the line.
pub(super) fn parse(text: &str) -> Result<Vec<Property>, String> {
    let mut settings = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            return Err(format!(
                "line {number}: a property is written as name=value"
            ));
        };
        let (name, value) = (name.trim_end(), value.trim_start());
        // A Java file may continue a line with a backslash, which would cut the value here.
        if value.ends_with('\\') {
            return Err(format!(
                "line {number}: write the value of {name} on one line"
            ));
        }
        if name == "sasl.jaas.config" {
            let named = |reason: &str| format!("line {number}: sasl.jaas.config: {reason}");
            settings.extend(login(value).map_err(named)?);
            continue;
        }
        if let Some((_, instead)) = JAVA.iter().find(|(java, _)| name.starts_with(java)) {
            return Err(format!("line {number}: {name}: {instead}"));
        }
        settings.push((name.to_owned(), value.to_owned()));
    }
    match settings.is_empty() {
        true => Err("is empty; expected lines such as bootstrap.servers=host:port".to_owned()),
        false => Ok(settings),
    }
}

/// Whether a text consists of such lines, at least one of them. It selects the advice for a file
/// that is not TOML, so a wrong answer costs only a hint.
pub(super) fn is_properties_text(text: &str) -> bool {
    let mut lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .peekable();
    let is_property = |line: &str| {
        let name = line.split_once('=').map(|(name, _)| name.trim());
        name.is_some_and(|name| {
            name.contains('.')
                && name
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))
        })
    };
    lines.peek().is_some() && lines.all(is_property)
}

/// User name and password in `…PlainLoginModule required username="u" password="p";`.
fn login(value: &str) -> Result<Vec<Property>, &'static str> {
    if !value.contains("PlainLoginModule") && !value.contains("ScramLoginModule") {
        return Err(
            "only the modules for PLAIN and SCRAM are understood; set librdkafka's own properties",
        );
    }
    let option = |name: &str| {
        let after = value.split_once(&format!("{name}="))?.1;
        let after = after.strip_prefix('"')?;
        let mut text = String::new();
        let mut characters = after.chars();
        loop {
            match characters.next()? {
                '"' => return Some(text),
                '\\' => text.push(characters.next()?),
                character => text.push(character),
            }
        }
    };
    match (option("username"), option("password")) {
        (Some(user), Some(password)) => Ok(vec![
            ("sasl.username".to_owned(), user),
            ("sasl.password".to_owned(), password),
        ]),
        _ => Err("username=\"…\" and password=\"…\" are expected in it"),
    }
}

/// A property in a file: name and value.
pub(super) type Property = (String, String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_java_client_file_becomes_properties() {
        let text = "# a comment\n\nbootstrap.servers = a:1\nsasl.mechanism=SCRAM-SHA-512\n\
            sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username=\"me\" \
            password=\"a \\\" b=;\";\n";
        let expected = [
            ("bootstrap.servers", "a:1"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", "me"),
            ("sasl.password", "a \" b=;"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parse(text).unwrap(), expected);
    }

    #[test]
    fn properties_without_counterpart_are_refused_with_an_alternative() {
        for (text, says) in [
            ("", "is empty"),
            ("a", "line 1: a property"),
            ("ssl.truststore.location=/t.jks", "ssl.ca.location"),
            ("ssl.keystore.type=PEM", "ssl.certificate.location"),
            (
                "\nsasl.jaas.config=Krb5LoginModule required;",
                "line 2: sasl.jaas.config",
            ),
            (
                "sasl.jaas.config=PlainLoginModule required password=\"hunter2\";",
                "username",
            ),
            ("sasl.jaas.config=PlainLoginModule required \\", "one line"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                error.contains(says) && !error.contains("hunter2"),
                "{text}: {error}"
            );
        }
    }
}
