//! Which of the shop's programs run, with which flags.

use crate::args::Args;
use crate::audit::DUTIES;
use crate::binaries::Binaries;
use crate::fleet::{Daemon, Program};
use crate::sample::store_of;
use anyhow::Context;
use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

/// The producer commands that are used.
const PRODUCERS: [&str; 2] = ["orders", "stock"];

/// How many customers order: so few that each orders a few times a second, and one that the payment provider fails is missed.
pub(crate) const CUSTOMERS: u32 = 50;

/// Whom payments asks.
const PROVIDER: &str = "payment-provider";

/// Services of which two instances run: they share the group and the store.
const TWICE: [&str; 3] = ["payments", "inventory", "shipping"];

/// An order asks for six units on average (two lines of three), of one of fifty articles each: one unit of an article for
/// about eight orders. A tenth less is delivered.
const UNITS_DIVISOR: u64 = 9;

/// A member that was killed holds its partitions for as long as its session lasts. 6 s is the least that brokers allow by
/// default, so that a group that is struck again and again still gets something done in between.
const SESSION: [&str; 2] = ["session.timeout.ms=6000", "heartbeat.interval.ms=1000"];

/// All programs that a run needs.
pub(crate) fn program_names() -> Vec<&'static str> {
    let services = DUTIES.iter().map(|(service, _)| *service);
    services.chain(PRODUCERS).chain([PROVIDER]).collect()
}

/// Where a run keeps its files, and which brokers it talks to.
pub(crate) struct Shop<'a> {
    pub(crate) binaries: &'a Binaries,
    pub(crate) brokers: &'a str,
    pub(crate) directory: &'a Path,
    /// Ports of the payment provider on 127.0.0.1: where it is asked, and where it is told how to behave.
    pub(crate) provider_ports: (u16, u16),
}

impl Shop<'_> {
    /// Every daemon, not started yet.
    pub(crate) fn daemons(&self) -> anyhow::Result<Vec<Daemon>> {
        let mut daemons = Vec::new();
        for (service, _) in DUTIES {
            let instances = if TWICE.contains(service) { 2 } else { 1 };
            for number in 1..=instances {
                daemons.push(self.daemon(service, number)?);
            }
        }
        Ok(daemons)
    }

    fn daemon(&self, service: &'static str, number: u32) -> anyhow::Result<Daemon> {
        let admin_port = free_port()?;
        let admin = format!("127.0.0.1:{admin_port}");
        let mut arguments = self.connection();
        arguments.push("--store".into());
        arguments.push(store_of(self.directory, service).into());
        arguments.extend(["--admin".into(), admin.into()]);
        // It kills processes, and cuts no power.
        arguments.extend(["--durability".into(), "process-crash".into()]);
        for setting in SESSION {
            arguments.extend(["-X".into(), setting.into()]);
        }
        if service == "payments" {
            let url = format!("http://127.0.0.1:{}", self.provider_ports.0);
            arguments.extend(["--provider-url".into(), url.into()]);
        }
        let program = self.program(service, &format!("{service}-{number}"), arguments)?;
        Ok(Daemon::new(program, service, admin_port))
    }

    /// The payment provider.
    pub(crate) fn provider(&self) -> anyhow::Result<Program> {
        let (asked, told) = self.provider_ports;
        let address = |port: u16| format!("127.0.0.1:{port}").into();
        let arguments = vec![
            "--listen".into(),
            address(asked),
            "--admin".into(),
            address(told),
        ];
        self.program(PROVIDER, PROVIDER, arguments)
    }

    /// Simulates orders and writes those that were acknowledged into its journal.
    pub(crate) fn orders(&self, args: &Args, seed: u64) -> anyhow::Result<Program> {
        let mut arguments = vec!["simulate".into()];
        arguments.extend(self.connection());
        for (flag, value) in [
            ("--rate", args.rate.to_string()),
            ("--for", format!("{}s", args.load.as_secs())),
            ("--seed", seed.to_string()),
            ("--customers", CUSTOMERS.to_string()),
        ] {
            arguments.extend([flag.into(), value.into()]);
        }
        arguments.push("--quiet".into());
        arguments.extend(["--journal".into(), self.journal("orders").into()]);
        self.program("orders", "orders", arguments)
    }

    /// Fills inventory's shelves with a little less than the orders will ask for, so that the last of them are rejected.
    /// The receipts on its standard output are its journal.
    pub(crate) fn stock(&self, args: &Args) -> anyhow::Result<Program> {
        let quantity = u64::from(args.rate) * args.load.as_secs() / UNITS_DIVISOR;
        let mut arguments = vec!["fill".into()];
        arguments.extend(self.connection());
        arguments.extend(["--quantity".into(), quantity.max(1).to_string().into()]);
        arguments.extend(["--output".into(), "jsonl".into()]);
        let mut program = self.program("stock", "stock", arguments)?;
        program.output = Some(self.journal("stock"));
        Ok(program)
    }

    /// Where a producer command writes what was acknowledged.
    pub(crate) fn journal(&self, producer: &str) -> PathBuf {
        self.directory.join(format!("{producer}.journal.jsonl"))
    }

    fn connection(&self) -> Vec<OsString> {
        vec!["--brokers".into(), self.brokers.into()]
    }

    fn program(
        &self,
        executable: &str,
        name: &str,
        arguments: Vec<OsString>,
    ) -> anyhow::Result<Program> {
        Ok(Program {
            name: name.to_owned(),
            executable: self.binaries.path(executable)?.to_owned(),
            arguments,
            log: self.logs().join(format!("{name}.log")),
            output: None,
        })
    }

    /// Where the processes' output goes.
    pub(crate) fn logs(&self) -> PathBuf {
        self.directory.join("logs")
    }
}

/// A port that is free now. A daemon keeps it across restarts; should another program take it in between, the daemon says
/// so in its log and ends, which the run reports.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port is free on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}
