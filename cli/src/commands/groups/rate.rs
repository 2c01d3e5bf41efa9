//! `evenkeel groups rate`: how fast a group may go.

use super::order::{self, OrderArgs};
use crate::connection::ConnectionArgs;
use crate::exit::{Ending, Usage};
use clap::Args;
use evenkeel::control::Action;
use std::num::NonZeroU32;
use std::str::FromStr;

/// Limit how many records a second each member takes, until it is set to off.
///
/// The limit is each member's own: a group of three takes three times as many. It outlives the members.
#[derive(Debug, Args)]
pub(super) struct RateArgs {
    /// The group.
    group: String,

    /// Records a second and member, or off.
    #[arg(value_name = "RECORDS|off")]
    rate: Rate,

    #[command(flatten)]
    order: OrderArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate(Option<NonZeroU32>);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self(None)),
            text => text.parse().map(|rate| Self(Some(rate))).map_err(|_| {
                "a rate is a number of records from 1, or off; to take none, pause".to_owned()
            }),
        }
    }
}

impl RateArgs {
    fn action(&self) -> Action {
        Action::Rate {
            records_per_second: self.rate.0,
        }
    }

    pub(super) fn check(&self) -> Result<(), Usage> {
        self.order.check(self.action())
    }
}

/// Sets the rate.
pub(super) async fn run(connection: &ConnectionArgs, args: RateArgs) -> anyhow::Result<Ending> {
    let action = args.action();
    order::give(connection, &args.group, args.order, action).await
}

#[cfg(test)]
mod tests {
    use super::Rate;

    #[test]
    fn a_rate_is_a_number_or_off() {
        let read = |text: &str| text.parse::<Rate>().ok().map(|rate| rate.0.map(u32::from));
        assert_eq!(read("50"), Some(Some(50)));
        assert_eq!(read("off"), Some(None));
        assert_eq!(read("0"), None);
        assert_eq!(read("-1"), None);
    }
}
