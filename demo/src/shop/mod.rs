//! The shop's programs that run, with their flags.
//!
//! [`services`]: the services and what each must handle; [`build_or_find`]: executables;
//! [`provider`]: the payment provider.

pub(crate) mod build_or_find;
pub(crate) mod provider;
pub(crate) mod services;

use crate::args::Args;
use crate::monitoring::store::store_of;
use crate::shop::services::{GATEWAY, SERVICES};
use crate::supervisor::{Daemon, Program};
use anyhow::Context;
use build_or_find::Binaries;
use evenkeel::testing::free_port;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The producer commands.
const PRODUCERS: [&str; 2] = ["orders", "stock"];

/// Number of customers. It is small, so that each orders a few times per second and a failing
/// customer is noticed.
pub(crate) const CUSTOMERS: u32 = 50;

/// The service that answers queries of orders. It has one instance, and thus one address.
const ORDERBOARD: &str = "orderboard";

/// Name of the payment provider's program.
const PROVIDER: &str = "payment-provider";

/// Number of gateways. They share one store, as instances of a service on one machine do.
const GATEWAYS: usize = 2;

/// Services with two instances, which share the group and the store.
const TWICE: [&str; 3] = ["payments", "inventory", "shipping"];

/// An order needs six units on average (two lines of three), each line of one of fifty articles:
/// one unit of an article per about eight orders. The delivery is a tenth smaller.
const UNITS_DIVISOR: u64 = 9;

/// A killed member keeps its partitions until its session expires. 6 s is the minimum that brokers
/// allow by default. With it, a group that is hit repeatedly makes progress between two blows.
const SESSION: [&str; 2] = ["session.timeout.ms=6000", "heartbeat.interval.ms=1000"];

/// All programs that a run needs.
pub(crate) fn program_names() -> Vec<&'static str> {
    let services = SERVICES.iter().map(|(service, _)| *service);
    services
        .chain(PRODUCERS)
        .chain([PROVIDER, GATEWAY])
        .collect()
}

/// The files and the brokers of a run.
pub(crate) struct Shop<'a> {
    pub(crate) binaries: &'a Binaries,
    pub(crate) brokers: &'a str,
    pub(crate) directory: &'a Path,
    /// Ports of the payment provider on 127.0.0.1: for payments, and for commands.
    pub(crate) provider_ports: (u16, u16),
    pub(crate) gateway_ports: GatewayPorts,
}

/// Ports on 127.0.0.1 that the gateways need. They keep them across restarts.
pub(crate) struct GatewayPorts {
    /// For callers, of each gateway.
    callers: [u16; GATEWAYS],
    /// Of the orderboard, which answers the gateways' queries.
    orderboard: u16,
}

impl GatewayPorts {
    /// Ports that are free now.
    pub(crate) fn choose() -> anyhow::Result<Self> {
        let mut callers = [0; GATEWAYS];
        for port in &mut callers {
            *port = free_port()?;
        }
        let orderboard = free_port()?;
        Ok(Self {
            callers,
            orderboard,
        })
    }
}

impl Shop<'_> {
    /// Every daemon, not started yet.
    pub(crate) fn daemons(&self) -> anyhow::Result<Vec<Daemon>> {
        let mut daemons = Vec::new();
        for (service, _) in SERVICES {
            let instances = if TWICE.contains(service) { 2 } else { 1 };
            for number in 1..=instances {
                daemons.push(self.daemon(service, number)?);
            }
        }
        for (number, port) in (1..).zip(self.gateway_ports.callers) {
            daemons.push(self.gateway(number, port)?);
        }
        Ok(daemons)
    }

    /// The URLs of the gateways.
    pub(crate) fn gateway_urls(&self) -> Vec<String> {
        let url = |port: &u16| format!("http://127.0.0.1:{port}");
        self.gateway_ports.callers.iter().map(url).collect()
    }

    fn gateway(&self, number: u32, port: u16) -> anyhow::Result<Daemon> {
        let admin_port = free_port()?;
        let name = format!("{GATEWAY}-{number}");
        let mut store = OsString::from("sqlite:");
        store.push(store_of(self.directory, GATEWAY));
        let mut arguments = self.connection();
        arguments.extend(["--store".into(), store]);
        for (flag, value) in [
            ("--listen", format!("127.0.0.1:{port}")),
            ("--admin", format!("127.0.0.1:{admin_port}")),
            ("--orderboard", self.orderboard_url()),
            ("--worker-name", name.clone()),
        ] {
            arguments.extend([flag.into(), value.into()]);
        }
        arguments.push("--no-auth".into());
        let program = self.program(GATEWAY, &name, arguments)?;
        Ok(Daemon::new(program, GATEWAY, admin_port))
    }

    fn orderboard_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.gateway_ports.orderboard)
    }

    fn daemon(&self, service: &'static str, number: u32) -> anyhow::Result<Daemon> {
        let admin_port = free_port()?;
        let admin = format!("127.0.0.1:{admin_port}");
        let mut arguments = self.connection();
        arguments.push("--store".into());
        arguments.push(store_of(self.directory, service).into());
        arguments.extend(["--admin".into(), admin.into()]);
        // The demo kills processes, and causes no power failure.
        arguments.extend(["--durability".into(), "process-crash".into()]);
        for setting in SESSION {
            arguments.extend(["-X".into(), setting.into()]);
        }
        if service == "payments" {
            let url = format!("http://127.0.0.1:{}", self.provider_ports.0);
            arguments.extend(["--provider-url".into(), url.into()]);
        }
        if service == ORDERBOARD {
            let api = format!("127.0.0.1:{}", self.gateway_ports.orderboard);
            arguments.extend(["--api".into(), api.into()]);
        }
        let program = self.program(service, &format!("{service}-{number}"), arguments)?;
        Ok(Daemon::new(program, service, admin_port))
    }

    /// The payment provider.
    pub(crate) fn provider(&self) -> anyhow::Result<Program> {
        let (queries, admin) = self.provider_ports;
        let address = |port: u16| format!("127.0.0.1:{port}").into();
        let arguments = vec![
            "--listen".into(),
            address(queries),
            "--admin".into(),
            address(admin),
        ];
        self.program(PROVIDER, PROVIDER, arguments)
    }

    /// Simulates orders at `rate` per second, and records the acknowledged ones in its journal.
    pub(crate) fn orders(&self, args: &Args, rate: u32, seed: u64) -> anyhow::Result<Program> {
        let mut arguments = vec!["simulate".into()];
        arguments.extend(self.connection());
        for (flag, value) in [
            ("--rate", rate.to_string()),
            ("--for", format!("{}s", args.load.as_secs())),
            ("--seed", seed.to_string()),
            ("--customers", CUSTOMERS.to_string()),
        ] {
            arguments.extend([flag.into(), value.into()]);
        }
        arguments.push("--quiet".into());
        arguments.extend(["--rate-file".into(), self.rate_file().into()]);
        arguments.extend(["--journal".into(), self.journal("orders").into()]);
        self.program("orders", "orders", arguments)
    }

    /// Delivers a little less stock than the orders need, so that the last of them are rejected.
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

    /// Changes the rate of the simulation. The simulation reads the file once per second and must
    /// never read a partial one.
    pub(crate) fn set_rate(&self, rate: u32) -> anyhow::Result<()> {
        let (file, new) = (self.rate_file(), self.directory.join("rate.new"));
        std::fs::write(&new, rate.to_string())?;
        std::fs::rename(new, file).context("cannot set the rate")
    }

    fn rate_file(&self) -> PathBuf {
        self.directory.join("rate")
    }

    /// The path of the journal of a producer command, or of the callers of the gateways.
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

    /// The directory of the processes' output.
    pub(crate) fn logs(&self) -> PathBuf {
        self.directory.join("logs")
    }
}
