//! The group of a command: a positional argument, or `--group`.
//!
//! Both forms exist because `dlq` has topics as its arguments, and every other command a group.
//! With the flag, one form works everywhere.

use clap::Args;

/// One group.
#[derive(Debug, Clone, Args)]
pub(crate) struct GroupArg {
    /// Consumer group.
    #[arg(
        value_name = "GROUP",
        required_unless_present = "group_flag",
        conflicts_with = "group_flag"
    )]
    group: Option<String>,

    /// Consumer group, instead of the argument.
    #[arg(short, long = "group", value_name = "GROUP")]
    group_flag: Option<String>,
}

impl GroupArg {
    /// The name of the group.
    pub(crate) fn name(&self) -> &str {
        let name = self.group.as_ref().or(self.group_flag.as_ref());
        name.map_or("", String::as_str)
    }
}

/// Any number of groups.
#[derive(Debug, Clone, Args)]
pub(crate) struct GroupsArg {
    /// Consumer groups.
    #[arg(value_name = "GROUP")]
    groups: Vec<String>,

    /// Consumer group, instead of the arguments; may be repeated.
    #[arg(short, long = "group", value_name = "GROUP")]
    group_flag: Vec<String>,
}

impl GroupsArg {
    /// The names of the groups, each once.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for name in self.groups.iter().chain(&self.group_flag) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    #[command(allow_missing_positional = true)]
    struct One {
        #[command(flatten)]
        group: GroupArg,

        rate: u32,
    }

    #[derive(Parser)]
    struct Many {
        #[command(flatten)]
        groups: GroupsArg,
    }

    #[test]
    fn a_group_is_an_argument_or_a_flag() {
        let check = |args: &[&str], expected: Option<&str>| {
            let args = [&["test"], args].concat();
            let group = One::try_parse_from(&args).ok();
            let name = group.as_ref().map(|one| (one.group.name(), one.rate));
            assert_eq!(name, expected.map(|name| (name, 5)), "{args:?}");
        };
        check(&["g", "5"], Some("g"));
        check(&["--group", "g", "5"], Some("g"));
        check(&["5", "-g", "g"], Some("g"));
        check(&["5"], None);
        check(&["g", "5", "--group", "g"], None);
        let many = Many::try_parse_from(["test", "a", "b", "-g", "c", "-g", "a"]).unwrap();
        assert_eq!(many.groups.names(), ["a", "b", "c"]);
    }
}
