//! The certificate authorities that a client trusts by default.
//!
//! The bundled OpenSSL has a default directory of its own, which no system fills. So the system's
//! bundle is used, for the brokers and the token endpoint alike: `SSL_CERT_FILE` or `SSL_CERT_DIR`,
//! or the usual paths. An authority that the user sets (`ssl.ca.location` or `ssl.ca.pem`) replaces
//! the system's bundle and is not added to it.

use rdkafka::ClientConfig;

/// Makes librdkafka search the usual paths for the system's bundle.
const PROBE: &str = "probe";

/// Sets the system's bundle if TLS is used and no other is set.
pub(super) fn set_default(config: &mut ClientConfig, variable: impl Fn(&str) -> Option<String>) {
    // Windows and macOS have their own stores, which librdkafka knows.
    if cfg!(any(windows, target_os = "macos")) {
        return;
    }
    let named = |name: &str| variable(name).filter(|path| !path.is_empty());
    let bundle = named("SSL_CERT_FILE")
        .or_else(|| named("SSL_CERT_DIR"))
        .unwrap_or_else(|| PROBE.to_owned());
    let protocol = config.get("security.protocol").unwrap_or_default();
    let uses_tls = protocol.to_ascii_lowercase().ends_with("ssl");
    let is_free = |names: &[&str]| names.iter().all(|name| config.get(name).is_none());
    let brokers = uses_tls && is_free(&["ssl.ca.location", "ssl.ca.pem"]);
    let tokens = config.get("sasl.oauthbearer.token.endpoint.url").is_some()
        && is_free(&["https.ca.location", "https.ca.pem"]);
    if brokers {
        config.set("ssl.ca.location", &bundle);
    }
    if tokens {
        config.set("https.ca.location", &bundle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(
        properties: &[(&str, &str)],
        variables: &[(&str, &str)],
    ) -> (Option<String>, Option<String>) {
        let mut config = ClientConfig::new();
        for (name, value) in properties {
            config.set(*name, *value);
        }
        set_default(&mut config, |wanted| {
            let found = variables.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| (*value).to_owned())
        });
        let get = |name| config.get(name).map(str::to_owned);
        (get("ssl.ca.location"), get("https.ca.location"))
    }

    #[test]
    fn tls_without_a_named_bundle_trusts_the_system_bundle() {
        let some = |text: &str| Some(text.to_owned());
        let tls = ("security.protocol", "SASL_SSL");
        let tokens = ("sasl.oauthbearer.token.endpoint.url", "https://t/");
        assert_eq!(trusted(&[], &[]), (None, None));
        assert_eq!(
            trusted(&[("security.protocol", "SASL_PLAINTEXT")], &[]),
            (None, None)
        );
        assert_eq!(trusted(&[tls], &[]), (some("probe"), None));
        assert_eq!(trusted(&[tls, tokens], &[]), (some("probe"), some("probe")));
        let named = [("ssl.ca.location", "/ca"), ("https.ca.pem", "pem")];
        let all = [tls, tokens, named[0], named[1]];
        assert_eq!(
            trusted(&all, &[("SSL_CERT_FILE", "/f")]),
            (some("/ca"), None)
        );
        let both = [("SSL_CERT_FILE", "/f"), ("SSL_CERT_DIR", "/d")];
        assert_eq!(trusted(&[tls], &both), (some("/f"), None));
        assert_eq!(trusted(&[tls], &both[1..]), (some("/d"), None));
        assert_eq!(
            trusted(&[tls], &[("SSL_CERT_FILE", "")]),
            (some("probe"), None)
        );
    }
}
