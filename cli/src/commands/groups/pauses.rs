//! Pauses as table cells.

use crate::output::{or_dash, seconds};
use evenkeel_ops::groups::health::Restriction;

/// The cell for pauses. One pause: its scope and start. More: their number and the oldest.
pub(super) fn cell(paused: &[Restriction]) -> String {
    match paused {
        [] => "-".to_owned(),
        [one] => format!("{} since {}", one.target, seconds(one.at)),
        more => {
            let oldest = more.iter().map(|pause| pause.at).min();
            format!(
                "{} pauses since {}",
                more.len(),
                or_dash(oldest.map(seconds))
            )
        }
    }
}

/// The cell for the pause of one partition.
pub(super) fn partition_cell(pause: Option<&Restriction>) -> String {
    or_dash(
        pause.map(|pause| format!("since {} by {}: {}", seconds(pause.at), pause.by, pause.why)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel::control::{Action, Command, ControlState, Entry, Scope};
    use evenkeel_ops::groups::health::pauses;

    fn paused(scope: Scope) -> ControlState {
        let mut control = ControlState::default();
        let command = Command::new("alice", "a test", Action::Pause { scope }).unwrap();
        control.apply(Entry::Command(command), false).unwrap();
        control
    }

    #[test]
    fn a_cell_tells_what_is_paused_and_since_when() {
        assert_eq!(cell(&[]), "-");
        let one = pauses(&paused(Scope::Group));
        assert!(
            cell(&one).starts_with("the whole group since 2"),
            "{}",
            cell(&one)
        );
        let two = [&one[..], &one[..]].concat();
        assert!(cell(&two).starts_with("2 pauses since 2"), "{}", cell(&two));
    }
}
