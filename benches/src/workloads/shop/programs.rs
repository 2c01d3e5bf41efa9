//! The shop's programs that are started, with their flags. Starts nothing.

use super::services::{SERVICES, Service};
use crate::spec::Spec;
use anyhow::{Context, bail};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// The contestant whose daemons' commits survive a killed process, and no power failure.
pub(super) const PROCESS_CRASH: &str = "evenkeel-process-crash";
/// The payment provider's program.
const PROVIDER: &str = "payment-provider";
/// The command that builds all programs.
const BUILD: &str = "cargo build --release -p shop-consumers";

/// A program to start.
#[derive(Debug)]
pub(super) struct Program {
    /// Name of the process, such as `payments-1`.
    pub(super) name: String,
    pub(super) executable: PathBuf,
    pub(super) arguments: Vec<OsString>,
    /// The port of 127.0.0.1 and the path that answer with 200 once it is ready.
    pub(super) ready: (u16, &'static str),
}

/// The folder of this program, if it has all of the shop's programs.
pub(super) fn folder() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program")?;
    let folder = own.parent().context("a program is in a folder")?;
    check_folder(folder)?;
    Ok(folder.to_owned())
}

fn check_folder(folder: &Path) -> anyhow::Result<()> {
    let names = SERVICES.iter().map(|service| service.name);
    let is_missing = |name: &&str| !folder.join(name).is_file();
    let missing: Vec<&str> = names.chain([PROVIDER]).filter(is_missing).collect();
    if !missing.is_empty() {
        bail!(
            "{} not in {}: build the shop's programs with `{BUILD}`",
            missing.join(", "),
            folder.display()
        );
    }
    Ok(())
}

/// The payment provider, which comes first, and the daemons of every service. Their stores are in
/// `directory`. Each call of `port` returns another free port.
pub(super) fn programs(
    spec: &Spec,
    folder: &Path,
    directory: &Path,
    mut port: impl FnMut() -> io::Result<u16>,
) -> anyhow::Result<Vec<Program>> {
    let (payments, commands) = (port()?, port()?);
    let mut programs = vec![provider(folder, payments, commands)];
    for service in &SERVICES {
        for number in 1..=service.instances {
            let mut daemon = daemon(spec, service, folder, directory, port()?);
            daemon.name += &format!("-{number}");
            if service.name == "payments" {
                let url = format!("http://{}", address(payments));
                daemon
                    .arguments
                    .extend(["--provider-url".into(), url.into()]);
            }
            programs.push(daemon);
        }
    }
    Ok(programs)
}

/// The path of the store of a service.
pub(super) fn store(directory: &Path, service: &str) -> PathBuf {
    directory.join(format!("{service}.db"))
}

fn provider(folder: &Path, payments: u16, commands: u16) -> Program {
    let (payments, admin) = (address(payments), address(commands));
    Program {
        name: PROVIDER.to_owned(),
        executable: folder.join(PROVIDER),
        arguments: ["--listen", &payments, "--admin", &admin]
            .map(OsString::from)
            .into(),
        ready: (commands, "/behaviour"),
    }
}

fn daemon(
    spec: &Spec,
    service: &Service,
    folder: &Path,
    directory: &Path,
    admin_port: u16,
) -> Program {
    let admin = address(admin_port);
    let mut arguments: Vec<OsString> = ["--brokers", &spec.brokers, "--admin", &admin]
        .map(OsString::from)
        .into();
    arguments.push("--store".into());
    arguments.push(store(directory, service.name).into());
    if spec.contestant == PROCESS_CRASH {
        arguments.extend(["--durability", "process-crash"].map(OsString::from));
    }
    for property in &spec.properties {
        arguments.extend(["-X", property].map(OsString::from));
    }
    Program {
        name: service.name.to_owned(),
        executable: folder.join(service.name),
        arguments,
        ready: (admin_port, "/readyz"),
    }
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Workload;
    use std::collections::BTreeSet;

    fn of_contestant(contestant: &str) -> Vec<Program> {
        let spec = Spec {
            workload: Workload::Shop,
            contestant: contestant.to_owned(),
            brokers: "127.0.0.1:9092".to_owned(),
            topic: String::new(),
            data: super::super::DATA,
            properties: vec!["linger.ms=0".to_owned()],
        };
        let (folder, directory) = (Path::new("/programs"), Path::new("/stores"));
        let mut ports = 0;
        let port = || {
            ports += 1;
            Ok(ports)
        };
        programs(&spec, folder, directory, port).expect("ports for all")
    }

    fn has(program: &Program, flag: &str, value: &str) -> bool {
        let mut pairs = program.arguments.windows(2);
        pairs.any(|pair| pair[0] == flag && pair[1] == value)
    }

    #[test]
    fn only_the_contestant_of_that_name_changes_the_durability() {
        for (contestant, changes) in [("evenkeel", false), (PROCESS_CRASH, true)] {
            for daemon in &of_contestant(contestant)[1..] {
                let is_changed = has(daemon, "--durability", "process-crash");
                assert_eq!(is_changed, changes, "{daemon:?}");
                assert!(has(daemon, "-X", "linger.ms=0"), "{daemon:?}");
            }
        }
    }

    #[test]
    fn programs_have_different_names_and_ports_and_payments_the_providers() {
        let programs = of_contestant("evenkeel");
        let names: BTreeSet<&str> = programs.iter().map(|program| &*program.name).collect();
        let ports: BTreeSet<u16> = programs.iter().map(|program| program.ready.0).collect();
        assert_eq!((names.len(), ports.len()), (9, 9));
        assert!(has(&programs[0], "--listen", "127.0.0.1:1"));
        for program in &programs {
            let asks = has(program, "--provider-url", "http://127.0.0.1:1");
            assert_eq!(asks, program.name.starts_with("payments"), "{program:?}");
        }
    }

    #[test]
    fn missing_programs_are_named_with_the_command_that_builds_them() {
        let folder = tempfile::tempdir().expect("a temporary folder is created");
        for service in &SERVICES[1..] {
            std::fs::write(folder.path().join(service.name), "").expect("it is writable");
        }
        let error = check_folder(folder.path()).expect_err("two are missing");
        let error = error.to_string();
        assert!(
            error.starts_with("payments, payment-provider not in"),
            "{error}"
        );
        assert!(error.contains(BUILD), "{error}");
        for name in ["payments", PROVIDER] {
            std::fs::write(folder.path().join(name), "").expect("it is writable");
        }
        check_folder(folder.path()).expect("all are there");
    }
}
