//! What flags and the configuration file choose among.

use clap::ValueEnum;
use evenkeel::inbox::Durability;
use serde::Deserialize;

/// The protocol by which a group's members share its partitions. All members of a group have to use
/// the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupProtocol {
    /// The members assign; partitions that stay are not revoked.
    Classic,
    /// The brokers assign (KIP-848).
    Consumer,
}

/// The failure that the store's commits survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Survives {
    /// A power failure: a commit waits until the disk has it.
    PowerLoss,
    /// A killed process. A power failure may lose the last commits.
    ProcessCrash,
}

impl From<Survives> for Durability {
    fn from(survives: Survives) -> Self {
        match survives {
            Survives::PowerLoss => Self::PowerLoss,
            Survives::ProcessCrash => Self::ProcessCrash,
        }
    }
}
