//! The command `gateway`: its flags, and what it prints.
//!
//! There are two stages: [`Options`] is the parsed command line, [`ProgramSettings`] has the
//! library's types. Without a subcommand the gateway runs.

use super::config_file::ConfigFile;
use super::run::{ProgramSettings, run};
use crate::access::{JwtSettings, hash_token, new_token};
use crate::server::settings::{AccessSettings, GatewaySettings, StoreAddress, TlsFiles};
use crate::server::tls::Tls;
use crate::shop;
use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use evenkeel::kafka::ConfigError;
use evenkeel::telemetry::daemon::admin_address;
use evenkeel_program::connection::{BrokerArgs, ConfigFile as ProgramFile};
use evenkeel_program::duration::parse_duration;
use evenkeel_program::exit::{self, Ending, Usage};
use evenkeel_program::redacted_address::RedactedAddress;
use evenkeel_program::stdout::print;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

const AFTER_HELP: &str = "\
Examples:
  gateway --no-auth --brokers localhost:9092
  gateway token new --name mobile
  gateway --listen 0.0.0.0:8443 --tokens tokens.toml --tls-cert server.crt --tls-key server.key
  gateway --store postgres://gateway@db/shop --jwks jwks.json --issuer URL --audience gateway
  gateway check --config gateway.toml

Exit codes:
  0         Stopped; every request was answered
  1         Failed
  2         Wrong usage, or an invalid configuration file
  4         No broker can be reached
  5         Stopped; requests that were under way at the deadline were cut
  130, 143  A second SIGINT or SIGTERM ended it at once

Accepted events that are not yet published stay in the outbox, whatever the exit code.";

/// An HTTP and gRPC gateway to the shop's events
#[derive(Debug, Parser)]
#[command(
    name = "gateway",
    version,
    args_conflicts_with_subcommands = true,
    after_help = AFTER_HELP
)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the configuration and its files, and change nothing
    Check(Box<Options>),
    /// Tokens of callers
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Print a new token, once, and the lines of the token file with its hash
    New {
        /// Name of the caller
        #[arg(long, default_value = "caller")]
        name: String,
    },
}

/// The flags of the gateway.
#[derive(Debug, Clone, Default, Args)]
pub struct Options {
    /// Bootstrap servers, and properties of the client
    #[command(flatten)]
    pub brokers: BrokerArgs<false>,
    /// Public address: a port alone is on 127.0.0.1; 0.0.0.0:PORT is reachable from other machines
    /// [default: 8080]
    #[arg(long, env = "GATEWAY_LISTEN", value_name = "[ADDR:]PORT", value_parser = admin_address)]
    pub listen: Option<SocketAddr>,
    /// Address of /livez, /readyz and /metrics [default: no server]
    #[arg(long, env = "GATEWAY_ADMIN", value_name = "[ADDR:]PORT", value_parser = admin_address)]
    pub admin: Option<SocketAddr>,
    /// Where accepted events become durable: sqlite:PATH, postgres://USER@HOST/DATABASE, or
    /// brokers, which recognises no repetitions [default: sqlite:gateway.db]
    #[arg(
        long,
        env = "GATEWAY_STORE",
        value_name = "ADDRESS",
        hide_env_values = true
    )]
    pub store: Option<RedactedAddress>,
    /// File with the hashes of the callers' tokens [default: none]
    #[arg(long, env = "GATEWAY_TOKENS", value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// File with the public keys of the issuer of JSON Web Tokens, a JWK set [default: none]
    #[arg(long, env = "GATEWAY_JWKS", value_name = "FILE")]
    pub jwks: Option<PathBuf>,
    /// The iss that a JSON Web Token must have
    #[arg(long, env = "GATEWAY_ISSUER", value_name = "TEXT")]
    pub issuer: Option<String>,
    /// The aud that a JSON Web Token must have
    #[arg(long, env = "GATEWAY_AUDIENCE", value_name = "TEXT")]
    pub audience: Option<String>,
    /// No authentication: every request has all rights. For development; refused if --listen is
    /// reachable from other machines
    #[arg(long, conflicts_with_all = ["tokens", "jwks", "issuer", "audience"])]
    pub no_auth: bool,
    /// Certificate with its chain, PEM; read again when it changes [default: plain text]
    #[arg(long, env = "GATEWAY_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Key of the certificate, PEM
    #[arg(long, env = "GATEWAY_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Name of this gateway, in the header worker of each answer [default: host name and process
    /// id]
    #[arg(long, env = "GATEWAY_WORKER_NAME", value_name = "NAME")]
    pub worker_name: Option<String>,
    /// Origin of another site whose pages may use the gateway; may be repeated [default: none]
    #[arg(long, value_name = "ORIGIN")]
    pub allowed_origin: Vec<String>,
    /// URL of an instance of the orderboard, for GET /orders/{id}; may be repeated [default: none]
    #[arg(long, value_name = "URL")]
    pub orderboard: Vec<String>,
    /// Deadline of a stop, for requests under way and for the outbox [default: 25s]
    #[arg(long, env = "GATEWAY_STOP_WITHIN", value_name = "TIME", value_parser = parse_duration)]
    pub stop_within: Option<Duration>,
    /// How long the gateway serves after it reported that it is not ready; part of --stop-within
    /// [default: none]
    #[arg(
        long,
        env = "GATEWAY_PRE_STOP_DELAY",
        value_name = "TIME",
        value_parser = parse_duration
    )]
    pub pre_stop_delay: Option<Duration>,
    /// Configuration file: TOML, or .properties with the connection to Kafka
    #[arg(long, env = "GATEWAY_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Log as JSON lines
    #[arg(long)]
    pub log_json: bool,
}

/// The `main` of the command: parses the flags, runs, prints errors to standard error.
pub async fn main() -> ExitCode {
    let line = CommandLine::parse();
    let result = match line.command {
        None => Box::pin(start(line.options)).await,
        Some(Command::Check(options)) => check(*options),
        Some(Command::Token { command }) => match command {
            TokenCommand::New { name } => token(&name),
        },
    };
    exit::report(result, |error| format!("error: {}", exit::message(error)))
}

async fn start(options: Options) -> Result<Ending> {
    run(options.settings()?).await
}

/// Reads everything that a start reads, and opens no port and no store.
fn check(options: Options) -> Result<Ending> {
    let settings = options.settings()?.gateway;
    let types = shop::allow_list()?.routes().count();
    settings.access.authenticator()?;
    if let Some(tls) = &settings.tls {
        Tls::from_files(&tls.certificate, &tls.key)?;
    }
    print(&format!(
        "the configuration is valid: {types} event types, store {}\n",
        settings.store.kind()
    ))?;
    Ok(Ending::Done)
}

fn token(name: &str) -> Result<Ending> {
    let token = new_token();
    let hash = hash_token(&token);
    // A name with quotes would be another TOML text.
    if !name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:@/".contains(&byte))
    {
        return Err(Usage("--name has letters, digits and -_.:@/ only".to_owned()).into());
    }
    print(&format!(
        "The token, shown only now; the caller sends it as `Authorization: Bearer TOKEN`:\n\n\
         {token}\n\n\
         Lines for the file of --tokens:\n\n\
         [[tokens]]\n\
         name = \"{name}\"\n\
         sha256 = \"{hash}\"\n\
         [tokens.rights]\n\
         post = [\"shop.order-placed.v1\"]\n\
         stream = []\n\
         status = true\n"
    ))
    .context("the token cannot be shown, and is lost")?;
    Ok(Ending::Done)
}

impl Options {
    /// Builds the settings. Precedence, highest first: flag, environment variable, file, default.
    /// Kafka settings are an exception: a file named on the command line takes precedence over
    /// variables.
    ///
    /// # Errors
    /// If the file or a value is invalid, or the flags contradict each other. The message names
    /// them.
    pub fn settings(self) -> Result<ProgramSettings> {
        let file = match &self.config {
            Some(path) => ConfigFile::read(path)?,
            None => ConfigFile::default(),
        };
        let program_file = ProgramFile {
            path: self.config.as_deref(),
            variable: "GATEWAY_CONFIG",
            is_program_file: true,
        };
        let layers = self.brokers.layers("gateway", program_file)?;
        let kafka = layers.build()?;
        let access = self.access(&file)?;
        let tls = self.tls(&file)?;
        let store = self
            .store
            .as_ref()
            .map(|store| store.as_str().parse::<StoreAddress>());
        let store = store
            .transpose()
            .map_err(|reason| Usage(format!("--store: {reason}")))?;
        let worker = self.worker_name.or(file.worker_name);
        let worker = worker.unwrap_or_else(default_worker_name);
        if !worker.bytes().all(|byte| byte.is_ascii_graphic()) || worker.is_empty() {
            let reason = "must be visible ASCII characters without spaces";
            return Err(ConfigError::new("worker_name", reason).into());
        }
        let mut gateway = GatewaySettings::new(kafka, access, worker).with_tls(tls);
        gateway.listen = self.listen.or(file.listen).unwrap_or(gateway.listen);
        gateway.store = store.or(file.store).unwrap_or(gateway.store);
        gateway.allowed_origins = first_of(self.allowed_origin, file.allowed_origins);
        gateway.orderboards = first_of(self.orderboard, file.orderboards);
        if let Some(within) = self.stop_within.or(file.stop_within) {
            gateway.stop.within = within;
        }
        if let Some(delay) = self.pre_stop_delay.or(file.pre_stop_delay) {
            gateway.stop.pre_stop_delay = delay;
        }
        if let Some(max) = file.connections_max {
            gateway.connections.connections_max = max.get();
        }
        gateway.connections.connections_per_ip_max = file.connections_per_ip_max.map(usize::from);
        if let Some(idle) = file.idle_timeout {
            gateway.connections.idle_max = idle;
        }
        let admission = file.admission.apply(gateway.store.admission())?;
        gateway.admission = Some(admission);
        gateway.stream = file.streams.apply(gateway.stream);
        gateway.validate().map_err(Usage)?;
        Ok(ProgramSettings {
            gateway,
            admin: self.admin.or(file.admin),
            log_json: self.log_json || file.log_json.unwrap_or(false),
            warnings: layers.warnings(),
        })
    }

    fn access(&self, file: &ConfigFile) -> Result<AccessSettings, Usage> {
        if self.no_auth {
            return Ok(AccessSettings::Open);
        }
        let jwt = self.jwt(file)?;
        let tokens = self.tokens.clone().or_else(|| file.tokens.clone());
        if tokens.is_none() && jwt.is_none() {
            let text = "how do callers prove who they are? --tokens FILE (see `gateway token \
                        new`), --jwks FILE, or for development --no-auth";
            return Err(Usage(text.to_owned()));
        }
        Ok(AccessSettings::Tokens { file: tokens, jwt })
    }

    /// The settings of the file, each of which a flag overrides. Without them all flags are needed.
    fn jwt(&self, file: &ConfigFile) -> Result<Option<JwtSettings>, Usage> {
        let flags = (&self.jwks, &self.issuer, &self.audience);
        if let Some(of_file) = &file.jwt {
            let mut jwt = of_file.clone();
            jwt.key_set = flags.0.clone().unwrap_or(jwt.key_set);
            jwt.issuer = flags.1.clone().unwrap_or(jwt.issuer);
            jwt.audience = flags.2.clone().unwrap_or(jwt.audience);
            return Ok(Some(jwt));
        }
        match flags {
            (None, None, None) => Ok(None),
            (Some(jwks), Some(issuer), Some(audience)) => {
                Ok(Some(JwtSettings::new(jwks, issuer, audience)))
            }
            _ => {
                let text = "--jwks, --issuer and --audience belong together: a token of another \
                            service of the same issuer would be valid here otherwise";
                Err(Usage(text.to_owned()))
            }
        }
    }

    fn tls(&self, file: &ConfigFile) -> Result<Option<TlsFiles>, Usage> {
        let certificate = self.tls_cert.as_ref().or(file.tls_cert.as_ref());
        let key = self.tls_key.as_ref().or(file.tls_key.as_ref());
        match (certificate, key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => Ok(Some(TlsFiles::new(certificate, key))),
            _ => Err(Usage("--tls-cert and --tls-key belong together".to_owned())),
        }
    }
}

/// The values of a flag that may be repeated, or those of the file if there are none.
fn first_of(flags: Vec<String>, file: Option<Vec<String>>) -> Vec<String> {
    match flags.is_empty() {
        true => file.unwrap_or_default(),
        false => flags,
    }
}

/// The host name as Linux reports it, which in a container is that of the container, and the
/// process id.
fn default_worker_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host = host.or_else(|| std::env::var("HOSTNAME").ok());
    let host = host
        .as_deref()
        .map(str::trim)
        .filter(|host| !host.is_empty());
    format!("{}/{}", host.unwrap_or("unknown"), std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(arguments: &[&str]) -> Result<ProgramSettings> {
        let arguments = std::iter::once("gateway").chain(arguments.iter().copied());
        let line = CommandLine::try_parse_from(arguments).expect("the flags are known");
        line.options.settings()
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        CommandLine::command().debug_assert();
    }

    #[test]
    fn flags_override_the_file_and_it_overrides_defaults() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("gateway.toml");
        let text = "listen = \"8081\"\nstore = \"brokers\"\nstop_within = \"7s\"\n\
                    idle_timeout = \"9s\"\n[admission]\nuploads_max = 7\n\
                    [streams]\nclients_max = 3\n";
        std::fs::write(&path, text).expect("a writable file");
        let path = path.to_str().expect("UTF-8");
        let default = settings(&["--no-auth"]).expect("valid").gateway;
        assert_eq!(default.listen, ([127, 0, 0, 1], 8080).into());
        assert_eq!(default.store, StoreAddress::Sqlite("gateway.db".into()));
        let file = settings(&["--no-auth", "--config", path])
            .expect("valid")
            .gateway;
        assert_eq!(file.listen, ([127, 0, 0, 1], 8081).into());
        assert_eq!(file.store, StoreAddress::Brokers);
        assert_eq!(file.stop.within, Duration::from_secs(7));
        assert_eq!(file.connections.idle_max, Duration::from_secs(9));
        let admission = file.admission.expect("that of the file");
        assert_eq!(admission.uploads_max, 7);
        assert_eq!(admission.queue_age_max, Some(Duration::from_secs(1)));
        assert_eq!(file.stream.clients_max, 3);
        let flags = [
            "--no-auth",
            "--config",
            path,
            "--listen",
            "8082",
            "--store",
            "sqlite:x.db",
        ];
        let flag = settings(&flags).expect("valid").gateway;
        assert_eq!(flag.listen, ([127, 0, 0, 1], 8082).into());
        assert_eq!(flag.store, StoreAddress::Sqlite("x.db".into()));
    }

    #[test]
    fn flags_override_single_settings_of_jwts() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("gateway.toml");
        let text = "[jwt]\nkey_set = \"file.json\"\nissuer = \"file\"\naudience = \"file\"\n\
                    source = \"/apps/{sub}\"\nrate = 7\n";
        std::fs::write(&path, text).expect("a writable file");
        let path = path.to_str().expect("UTF-8");
        let of_file = JwtSettings::new("file.json", "file", "file")
            .with_source("/apps/{sub}")
            .with_rate(7);
        let mut other_keys = of_file.clone();
        other_keys.key_set = "flag.json".into();
        let mut other_audience = of_file.clone();
        other_audience.audience = "flag".to_owned();
        for (flags, expected) in [
            (&[][..], of_file),
            (&["--jwks", "flag.json"], other_keys),
            (&["--audience", "flag"], other_audience),
        ] {
            let arguments = [&["--config", path][..], flags].concat();
            let settings = settings(&arguments).expect("valid").gateway;
            let AccessSettings::Tokens { jwt, .. } = settings.access else {
                panic!("{flags:?} authenticate")
            };
            assert_eq!(jwt, Some(expected), "{flags:?}");
        }
    }

    #[test]
    fn unusable_flags_are_refused_with_the_remedy() {
        for (arguments, expected) in [
            (&[][..], "--no-auth"),
            (&["--no-auth", "--listen", "0.0.0.0:8080"], "--tokens"),
            (&["--jwks", "jwks.json"], "--audience"),
            (&["--issuer", "https://a.example"], "--jwks"),
            (&["--no-auth", "--tls-cert", "server.crt"], "--tls-key"),
            (&["--no-auth", "--allowed-origin", "*"], "--allowed-origin"),
            (&["--no-auth", "--worker-name", "a b"], "worker_name"),
            (&["--no-auth", "--store", "gateway.db"], "sqlite:PATH"),
        ] {
            let error = settings(arguments).expect_err(expected);
            let message = exit::message(&error);
            assert!(message.contains(expected), "{message}");
            assert_eq!(exit::code(&error), exit::USAGE, "{message}");
        }
    }

    #[test]
    fn authentication_and_its_absence_exclude_each_other() {
        let arguments = ["gateway", "--no-auth", "--tokens", "tokens.toml"];
        assert!(CommandLine::try_parse_from(arguments).is_err());
    }
}
