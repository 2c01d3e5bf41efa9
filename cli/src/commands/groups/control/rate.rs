//! `evenkeel groups rate`: limits the rate of a group.

use super::give::{CommandArgs, give};
use crate::arguments::connection::ConnectionArgs;
use crate::arguments::group_args::GroupArg;
use clap::Args;
use evenkeel::control::Action;
use evenkeel_program::exit::{Ending, Usage};
use std::num::NonZeroU32;
use std::str::FromStr;

/// Limit how many records a second each member takes, until it is set to off.
///
/// The limit is each member's own: a group of three takes three times as many. It outlives the
/// members.
#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
pub(in crate::commands) struct RateArgs {
    #[command(flatten)]
    group: GroupArg,

    /// Records a second and member, or off.
    #[arg(value_name = "RECORDS|off")]
    rate: Rate,

    #[command(flatten)]
    command: CommandArgs,
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

    pub(in crate::commands) fn check(&self) -> Result<(), Usage> {
        self.command.check(self.action())
    }
}

/// Gives the command.
pub(in crate::commands) async fn run(
    connection: &ConnectionArgs,
    args: RateArgs,
) -> anyhow::Result<Ending> {
    let action = args.action();
    give(connection, args.group.name(), args.command, action).await
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
