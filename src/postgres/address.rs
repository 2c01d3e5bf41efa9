//! Parses `postgres://…` into the driver's options.
//!
//! Owns the known parameters of an address. Never logs a value of one, because it may be a secret.
//!
//! The driver rejects some parameters and ignores others without a word; a password with an
//! unescaped `?` or `&` even turns into parameters. Therefore the known ones are passed on, unknown
//! ones are named in a warning if they look like a name, and an error never quotes the address.

use sqlx::postgres::PgConnectOptions;
use std::str::FromStr;

/// Marks an address with a pooler that assigns server connections per transaction; the name is
/// Prisma's.
const POOLER: &str = "pgbouncer";

/// The parameters that sqlx knows.
const UNDERSTOOD: [&str; 18] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// libpq's modes. Checked here, because the driver's error would repeat the given value.
const SSL_MODES: [&str; 6] = [
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
];

/// Whether a text can be the name of a parameter, and no piece of a password. Only such a text is
/// logged.
fn is_name(text: &str) -> bool {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-[]".contains(&byte);
    text.len() < 40 && text.bytes().all(is_of_name)
}

/// The URL in the address of a store: the whole address, if it has the form of one.
pub(crate) fn url_in(address: &str) -> Option<&str> {
    let is_url = address.starts_with("postgres://") || address.starts_with("postgresql://");
    is_url.then_some(address)
}

/// The address of a database.
pub(super) struct Address {
    /// The driver's options, with an application name.
    pub(super) options: PgConnectOptions,
    /// Whether a pooler assigns server connections per transaction.
    pub(super) is_pooled: bool,
}

impl Address {
    /// Parses `postgres://user:password@host:port/database?parameters`. Unknown parameters are left
    /// out with a warning. The application name is `evenkeel` unless the address gives one.
    ///
    /// # Errors
    /// If the address cannot be parsed, names several hosts, or has an invalid `sslmode` or
    /// `pgbouncer`; the error repeats no part of it.
    pub(super) fn of(url: &str) -> Result<Self, sqlx::Error> {
        let invalid = |reason: &str| sqlx::Error::Configuration(reason.into());
        let (place, parameters) = url.split_once('?').unwrap_or((url, ""));
        let hosts = place.split_once("://").map_or("", |(_, rest)| rest);
        let hosts = hosts.split('/').next().unwrap_or_default();
        let hosts = hosts.rsplit('@').next().unwrap_or_default();
        if hosts.contains(',') {
            return Err(invalid(
                "it names several hosts, and the driver accepts one: use an address that follows \
                 the primary",
            ));
        }
        let mut is_pooled = false;
        let mut understood = Vec::new();
        for parameter in parameters.split('&').filter(|text| !text.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match name {
                POOLER => {
                    is_pooled = value.parse().map_err(|_| {
                        invalid("its parameter pgbouncer is neither true nor false")
                    })?;
                }
                "sslmode" | "ssl-mode" if !SSL_MODES.contains(&value) => {
                    return Err(invalid(
                        "its sslmode is none of disable, allow, prefer, require, verify-ca and \
                         verify-full",
                    ));
                }
                _ if UNDERSTOOD.contains(&name) || name.starts_with("options[") => {
                    understood.push(parameter);
                }
                // Text that is not a name may be a part of a password with a `?` or `&` in it.
                _ => tracing::warn!(
                    parameter = if is_name(name) { name } else { "?" },
                    "unknown parameter of the store's address; it has no effect"
                ),
            }
        }
        let options = match understood.is_empty() {
            true => PgConnectOptions::from_str(place)?,
            false => PgConnectOptions::from_str(&format!("{place}?{}", understood.join("&")))?,
        };
        // Poolers refuse this parameter at the start. It was useful before PostgreSQL 12 only, and
        // for numbers as text.
        let options = options.extra_float_digits(None);
        let options = match options.get_application_name() {
            Some(_) => options,
            None => options.application_name("evenkeel"),
        };
        Ok(Self { options, is_pooled })
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn unknown_parameters_are_left_out_and_the_others_kept() {
        let address = Address::of(
            "postgres://u:p@db:6432/shop?connect_timeout=5&pgbouncer=true&application_name=a&options[search_path]=x",
        );
        let address = address.expect("an address");
        assert!(address.is_pooled);
        assert_eq!(address.options.get_application_name(), Some("a"));
        assert_eq!(address.options.get_options(), Some("-c search_path=x"));
        assert_eq!(address.options.get_port(), 6432);
        assert!(!Address::of("postgres://db/shop").expect("one").is_pooled);
    }

    #[test]
    fn an_address_that_cannot_be_read_is_not_repeated() {
        for (url, reason) in [
            ("postgres://u:s3cret@a:5432,b:5432/shop", "several hosts"),
            ("postgres://u:s3cret@a/shop?pgbouncer=yes", "neither true"),
            ("postgres://u:s3cret@a:70000/shop", "port"),
            (
                "postgres://u:s3cret@a/shop?sslmode=s3cret",
                "sslmode is none",
            ),
        ] {
            let Err(error) = Address::of(url) else {
                panic!("{url} was read");
            };
            let text = error.to_string();
            assert!(text.contains(reason), "{url}: {text}");
            assert!(!text.contains("s3cret"), "{text}");
        }
    }
}
