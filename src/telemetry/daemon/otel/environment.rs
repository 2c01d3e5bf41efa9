//! The variables of the export, by OpenTelemetry's specification.
//!
//! Owns their meaning as far as the SDK leaves it open: it falls back to a collector on this
//! machine if the URL is invalid, and silently to a default for an unknown sampler. Here the first
//! is an error, and the second a warning. The SDK itself reads the headers, the attributes, the
//! sampler and the sizes of the queue.

use std::io;
use std::time::Duration;
use tracing_subscriber::filter::Targets;

/// The path of spans below the URL of a collector.
const TRACES_PATH: &str = "/v1/traces";

/// The spans that are exported by default: all of the level INFO, and the library's own of the
/// level DEBUG.
const SPANS: &str = "info,evenkeel=debug";

/// The time of a request to the collector, if no variable says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The samplers that the SDK knows.
const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

/// What the variables say about an export that is wanted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Environment {
    /// The URL to which spans are posted. It may contain a password.
    pub(super) endpoint: String,
    /// The name of the service.
    pub(super) service: String,
    /// The time of a request.
    pub(super) timeout: Duration,
    /// Which spans are exported, as levels by target.
    filter: String,
    /// Variables that have no effect, to be logged.
    pub(super) warnings: Vec<String>,
}

impl Environment {
    /// Reads the variables. `None` if no export is wanted.
    ///
    /// # Errors
    /// If the URL or the timeout cannot be used, or a compression is asked for.
    pub(super) fn read(
        variable: &dyn Fn(&str) -> Option<String>,
        service: &str,
    ) -> io::Result<Option<Self>> {
        // By the specification an empty variable is one that is not set.
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let is = |name: &str, wanted: &str| {
            set(name).is_some_and(|value| value.trim().eq_ignore_ascii_case(wanted))
        };
        if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
            return Ok(None);
        }
        let Some(endpoint) = endpoint(&set)? else {
            return Ok(None);
        };
        refuse_compression(&set)?;
        Ok(Some(Self {
            endpoint,
            service: service_name(&set).unwrap_or_else(|| service.to_owned()),
            timeout: timeout(&set)?,
            filter: set("EVENKEEL_SPANS").unwrap_or_else(|| SPANS.to_owned()),
            warnings: warnings(&set),
        }))
    }

    /// Which spans are exported.
    ///
    /// # Errors
    /// If `EVENKEEL_SPANS` cannot be read.
    pub(super) fn spans(&self) -> io::Result<Targets> {
        self.filter.parse().map_err(|error| {
            let reason = format!("cannot be read: {error}; for example: {SPANS}");
            invalid("EVENKEEL_SPANS", &reason)
        })
    }

    /// The collector for messages: without user, password and query.
    pub(super) fn visible_endpoint(&self) -> &str {
        let end = self.endpoint.find(['?', '#']);
        let url = end.map_or(&*self.endpoint, |end| &self.endpoint[..end]);
        url.rsplit_once('@').map_or(url, |(_, host)| host)
    }
}

/// A variable's value, if it is set and not empty.
type Set<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// The URL for spans: that of spans as it is, or the general one with their path.
fn endpoint(set: &Set<'_>) -> io::Result<Option<String>> {
    const OF_SPANS: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    const OF_ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let (name, url) = match (set(OF_SPANS), set(OF_ALL)) {
        (Some(url), _) => (OF_SPANS, url.trim().to_owned()),
        (None, Some(url)) => {
            let base = url.trim().trim_end_matches('/');
            (OF_ALL, format!("{base}{TRACES_PATH}"))
        }
        (None, None) => return Ok(None),
    };
    let is_http = reqwest::Url::parse(&url)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    match is_http {
        true => Ok(Some(url)),
        false => Err(invalid(name, "is no URL such as http://localhost:4318")),
    }
}

/// The exporter has no compression, and would refuse even `none`, without naming the variable.
fn refuse_compression(set: &Set<'_>) -> io::Result<()> {
    const NAMES: [&str; 2] = [
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
        "OTEL_EXPORTER_OTLP_COMPRESSION",
    ];
    match NAMES.into_iter().find(|name| set(name).is_some()) {
        Some(name) => Err(invalid(name, "is not supported: unset it")),
        None => Ok(()),
    }
}

fn timeout(set: &Set<'_>) -> io::Result<Duration> {
    const NAMES: [&str; 2] = [
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
        "OTEL_EXPORTER_OTLP_TIMEOUT",
    ];
    for name in NAMES {
        if let Some(text) = set(name) {
            let millis: Option<u64> = text.trim().parse().ok().filter(|millis| *millis > 0);
            let millis = millis.ok_or_else(|| invalid(name, "is no number of milliseconds"))?;
            return Ok(Duration::from_millis(millis));
        }
    }
    Ok(TIMEOUT)
}

/// The service's name by its own variable, or else by the attributes.
fn service_name(set: &Set<'_>) -> Option<String> {
    if let Some(name) = set("OTEL_SERVICE_NAME") {
        return Some(name);
    }
    let attributes = set("OTEL_RESOURCE_ATTRIBUTES")?;
    let mut pairs = attributes
        .split(',')
        .filter_map(|pair| pair.split_once('='));
    let (_, name) = pairs.find(|(key, _)| key.trim() == "service.name")?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

fn warnings(set: &Set<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(sampler) = set("OTEL_TRACES_SAMPLER") {
        if !SAMPLERS.contains(&&*sampler) {
            warnings.push(format!(
                "OTEL_TRACES_SAMPLER is none of {}: parentbased_always_on is used",
                SAMPLERS.join(", ")
            ));
        }
        if sampler.ends_with("traceidratio") && !is_ratio(set("OTEL_TRACES_SAMPLER_ARG")) {
            warnings.push(
                "OTEL_TRACES_SAMPLER_ARG is no number from 0 to 1, such as 0.1: every trace that \
                 begins here is sampled, or none if it is negative"
                    .to_owned(),
            );
        }
    }
    if let Some(exporter) = set("OTEL_TRACES_EXPORTER")
        && exporter.trim() != "otlp"
    {
        warnings.push(
            "OTEL_TRACES_EXPORTER is neither otlp nor none: spans are exported by OTLP".to_owned(),
        );
    }
    let protocols = [
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
    ];
    let protocol = protocols.into_iter().find_map(set);
    if protocol.is_some_and(|protocol| protocol != "http/protobuf") {
        warnings.push(
            "spans are exported as http/protobuf, although OTEL_EXPORTER_OTLP_PROTOCOL asks for \
             another protocol: use the collector's port for HTTP, usually 4318"
                .to_owned(),
        );
    }
    warnings
}

/// Whether a sampler's argument is a ratio. The SDK parses it without trimming, too.
fn is_ratio(argument: Option<String>) -> bool {
    let ratio = argument.and_then(|text| text.parse::<f64>().ok());
    ratio.is_some_and(|ratio| (0.0..=1.0).contains(&ratio))
}

fn invalid(name: &str, reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{name} {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> io::Result<Option<Environment>> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Environment::read(&variable, "payments")
    }

    fn wanted(variables: &[(&str, &str)]) -> Environment {
        let collector = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        let variables = [variables, &[collector][..]].concat();
        let environment = read(&variables).expect("valid variables");
        environment.expect("an export is wanted")
    }

    #[test]
    fn spans_are_exported_only_to_a_named_collector() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
        type Variables<'a> = &'a [(&'a str, &'a str)];
        let cases: [(Variables<'_>, Option<&str>); 8] = [
            (&[], None),
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")], None),
            (&[endpoint], Some("http://c:4318/v1/traces")),
            (
                &[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c/otlp/")],
                Some("https://c/otlp/v1/traces"),
            ),
            (
                &[
                    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c/own"),
                    endpoint,
                ],
                Some("http://c/own"),
            ),
            (&[endpoint, ("OTEL_SDK_DISABLED", "TRUE")], None),
            (&[endpoint, ("OTEL_TRACES_EXPORTER", "none")], None),
            (
                &[endpoint, ("OTEL_SDK_DISABLED", "false")],
                Some("http://c:4318/v1/traces"),
            ),
        ];
        for (variables, expected) in cases {
            let environment = read(variables).expect("valid variables");
            let found = environment.map(|environment| environment.endpoint);
            assert_eq!(found.as_deref(), expected, "{variables:?}");
        }
    }

    #[test]
    fn an_unusable_variable_is_an_error_that_names_it() {
        let collector = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "unix:///run/otel"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ] {
            let error = read(&[(name, value), collector]).expect_err(name);
            assert!(error.to_string().starts_with(name), "{error}");
        }
        let environment = wanted(&[("EVENKEEL_SPANS", "info,evenkeel=loud")]);
        let error = environment.spans().expect_err("no such level");
        assert!(error.to_string().starts_with("EVENKEEL_SPANS"), "{error}");
    }

    #[test]
    fn the_name_of_the_service_has_an_order_of_sources() {
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "a=b, service.name = till ,c=d");
        let cases: [(&[(&str, &str)], &str); 3] = [
            (&[], "payments"),
            (&[attributes], "till"),
            (&[("OTEL_SERVICE_NAME", "web"), attributes], "web"),
        ];
        for (variables, expected) in cases {
            assert_eq!(wanted(variables).service, expected);
        }
    }

    #[test]
    fn variables_without_effect_are_warned_of() {
        assert_eq!(wanted(&[]).warnings, Vec::<String>::new());
        let known = [
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.1"),
            ("OTEL_TRACES_EXPORTER", "otlp"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ];
        assert_eq!(wanted(&known).warnings, Vec::<String>::new());
        for (name, value) in [
            ("OTEL_TRACES_SAMPLER", "xray"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_EXPORTER", "console"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ] {
            assert_eq!(wanted(&[(name, value)]).warnings.len(), 1, "{name}={value}");
        }
        for ratio in ["ten", "10", "-1", "NaN"] {
            let sampler = ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
            let warnings = wanted(&[sampler, ("OTEL_TRACES_SAMPLER_ARG", ratio)]).warnings;
            assert_eq!(warnings.len(), 1, "{ratio}");
        }
    }

    #[test]
    fn messages_show_no_password_of_the_collector() {
        let environment = wanted(&[(
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "https://jane:hunter2@c/v1/traces?token=hunter2",
        )]);
        assert_eq!(environment.visible_endpoint(), "c/v1/traces");
        assert_eq!(
            wanted(&[]).visible_endpoint(),
            "http://collector:4318/v1/traces"
        );
    }

    #[test]
    fn by_default_spans_of_the_library_are_exported_in_detail() {
        let spans = wanted(&[]).spans().expect("a valid default");
        for (target, level, expected) in [
            ("shop::orders", tracing::Level::INFO, true),
            ("shop::orders", tracing::Level::DEBUG, false),
            ("evenkeel::send", tracing::Level::DEBUG, true),
            ("evenkeel_gateway::request", tracing::Level::DEBUG, true),
            ("evenkeel::send", tracing::Level::TRACE, false),
        ] {
            assert_eq!(
                spans.would_enable(target, &level),
                expected,
                "{target} {level}"
            );
        }
    }
}
