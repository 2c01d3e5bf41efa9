//! `evenkeel groups rate`: limits the rate of a group.

use super::give::{CommandArgs, ControlCommand};
use crate::arguments::group_args::GroupArg;
use clap::Args;
use evenkeel::control::Action;
use evenkeel_program::exit::Usage;
use std::num::NonZeroU32;
use std::str::FromStr;

/// Limit the records per second that each member takes, until the limit is set to off.
///
/// The limit applies to each member: a group of three takes three times as many. It survives
/// restarts. Parked records that are due are not limited. Safe to repeat; a new limit replaces the
/// old one.
///
/// Exit codes: 0 answered, or kept for members that start; 1 refused; 5 not all members answered in
/// time, and the limit stays in force.
#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
pub(in crate::commands) struct RateArgs {
    #[command(flatten)]
    group: GroupArg,

    /// Records per second and member, at least 1; or off.
    #[arg(value_name = "RECORDS|off")]
    rate: Rate,

    #[command(flatten)]
    command: CommandArgs,
}

/// A limit, or none for `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate(Option<NonZeroU32>);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self(None)),
            text => text.parse().map(|rate| Self(Some(rate))).map_err(|_| {
                "a rate is a number of records from 1, or off; to take none, pause the group"
                    .to_owned()
            }),
        }
    }
}

impl RateArgs {
    /// The command that the arguments describe.
    pub(in crate::commands) fn command(&self) -> Result<ControlCommand<'_>, Usage> {
        Ok(ControlCommand {
            group: self.group.name(),
            flags: &self.command,
            action: Action::Rate {
                records_per_second: self.rate.0,
            },
        })
    }
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
