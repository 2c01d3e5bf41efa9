//! The name of the operator, for headers, control commands and logs.
//!
//! It is a claim, not a proof: whoever may write to the topic may write any name. The brokers' log
//! has the authenticated user.

use crate::arguments::connection::ConnectionArgs;
use evenkeel_program::exit::Usage;
use std::process::{Command, Stdio};

/// The operator's name: the given name, else the SASL user, else the user of this machine. A usage
/// error if none is known, because an anonymous command would be of no use in a history.
pub(crate) fn name(by: Option<&str>, connection: &ConnectionArgs) -> anyhow::Result<String> {
    if let Some(by) = by {
        return Ok(by.to_owned());
    }
    let kafka = connection.kafka()?;
    let sasl = kafka.properties.get("sasl.username").cloned();
    let known = of(sasl, machine_user);
    Ok(known.ok_or_else(|| {
        let text = "the operator is unknown: this user has no name on this machine; set --by NAME";
        Usage(text.to_owned())
    })?)
}

/// The name of this process's user. POSIX has a command for it, which works with every user
/// database.
fn machine_user() -> Option<String> {
    let id = Command::new("id").arg("-un").stderr(Stdio::null()).output();
    let id = id.ok().filter(|id| id.status.success())?;
    let name = String::from_utf8(id.stdout).ok()?;
    Some(name.trim_end().to_owned())
}

/// The SASL user, else the user of the machine. An empty or blank name counts as none.
fn of(sasl: Option<String>, user: impl FnOnce() -> Option<String>) -> Option<String> {
    let is_name = |name: &String| !name.trim().is_empty();
    sasl.filter(is_name).or_else(|| user().filter(is_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_user_goes_before_the_machines() {
        let check = |sasl: Option<&str>, user: Option<&str>, expected: Option<&str>| {
            let found = of(sasl.map(str::to_owned), || user.map(str::to_owned));
            assert_eq!(found.as_deref(), expected, "{sasl:?} {user:?}");
        };
        check(Some("alice"), Some("root"), Some("alice"));
        check(None, Some("root"), Some("root"));
        check(Some(""), Some("root"), Some("root"));
        check(None, Some(" "), None);
        check(None, None, None);
    }
}
