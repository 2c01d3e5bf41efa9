//! The workloads, one file each. A new one needs a variant of [`Workload`] and a file with its plan
//! and its turn.
//!
//! - [`throughput`]: events per second; [`timing`]: delays; [`stores`]: effects and the outbox
//! - [`backlog`]: memory with many waiting records; [`parked`]: assignment with many parked ones
//! - [`gateway`]: posts and streams over HTTP; [`shop`]: the programs of the shop, end to end
//! - [`peers`]: the same work by others
//! - [`growth`]: how costs grow, as figures

mod backlog;
mod gateway;
mod growth;
mod parked;
mod peers;
mod shop;
mod stores;
mod throughput;
mod timing;

use crate::charts::Chart;
use crate::report::Report;
use crate::spec::{Data, Plan, Spec, Turn};
use crate::workload::Workload;
use gateway::{outage, overload, posts, streams};
use stores::{effects, outbox, shared_rows};
use throughput::{consume, decode, keys, publish, slow};
use timing::{hot_key, latency, lifecycle, rebalance};

impl Workload {
    /// The plan: data, contestants and aims.
    pub(crate) fn plan(self) -> Plan {
        match self {
            Self::Consume => consume::plan(),
            Self::Decode => decode::plan(),
            Self::Slow => slow::plan(),
            Self::Publish => publish::plan(),
            Self::Latency => latency::plan(),
            Self::Effects => effects::plan(),
            Self::SharedRows => shared_rows::plan(),
            Self::Relay => outbox::relay::plan(),
            Self::OutboxPublish => outbox::publish::plan(),
            Self::Backlog => backlog::plan(),
            Self::Keys => keys::plan(),
            Self::HotKey => hot_key::plan(),
            Self::Rebalance => rebalance::plan(),
            Self::Lifecycle => lifecycle::plan(),
            Self::Parked => parked::plan(),
            Self::Gateway => posts::plan(),
            Self::GatewayOverload => overload::plan(),
            Self::GatewayOutage => outage::plan(),
            Self::GatewayStreams => streams::plan(),
            Self::Peers => peers::plan(),
            Self::Shop => shop::plan(),
            Self::Growth => growth::plan(),
        }
    }

    /// The data that a contestant without prepared data writes, if the workload counts records.
    pub(crate) fn written_data(self) -> Data {
        match self {
            Self::Relay => outbox::relay::DATA,
            Self::OutboxPublish => outbox::publish::DATA,
            Self::Shop => shop::DATA,
            Self::Growth => growth::WRITTEN,
            _ => consume::DATA,
        }
    }

    /// Runs one turn, in this process.
    pub(crate) async fn turn(self, spec: &Spec) -> anyhow::Result<Turn> {
        match self {
            Self::Consume => consume::turn(spec).await,
            Self::Decode => decode::turn(spec).await,
            Self::Slow => slow::turn(spec).await,
            Self::Publish => publish::turn(spec).await,
            Self::Latency => latency::turn(spec).await,
            Self::Effects => effects::turn(spec).await,
            Self::SharedRows => shared_rows::turn(spec).await,
            Self::Relay => outbox::relay::turn(spec).await,
            Self::OutboxPublish => outbox::publish::turn(spec).await,
            Self::Backlog => backlog::turn(spec).await,
            Self::Keys => keys::turn(spec).await,
            Self::HotKey => hot_key::turn(spec).await,
            Self::Rebalance => rebalance::turn(spec).await,
            Self::Lifecycle => lifecycle::turn(spec).await,
            Self::Parked => parked::turn(spec).await,
            Self::Gateway => posts::turn(spec).await,
            Self::GatewayOverload => overload::turn(spec).await,
            Self::GatewayOutage => outage::turn(spec).await,
            Self::GatewayStreams => streams::turn(spec).await,
            Self::Peers => Box::pin(peers::turn(spec)).await,
            Self::Shop => Box::pin(shop::turn(spec)).await,
            Self::Growth => Box::pin(growth::turn(spec)).await,
        }
    }

    /// The figures of its report. Only `growth` has some.
    pub(crate) fn figures(self, report: &Report) -> Vec<Chart> {
        match self {
            Self::Growth => growth::figures(report),
            _ => Vec::new(),
        }
    }
}
