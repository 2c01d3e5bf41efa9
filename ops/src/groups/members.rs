//! The processes of members, as published by the members themselves.

use evenkeel::control::{ControlState, MemberInfo};
use evenkeel::kafka::admin::GroupDescription;

/// The processes of the current members. Leaves out members that have published nothing about
/// themselves, such as those of other libraries, and processes of former members.
pub fn processes(control: &ControlState, group: &GroupDescription) -> Vec<MemberInfo> {
    let members = group.members.iter();
    let known = members.filter_map(|member| control.member(&member.member_id));
    known.cloned().collect()
}

/// A member's id, with its process if known, such as `ID (host vm, pid 25898)`. For people.
pub fn name(control: &ControlState, member: &str) -> String {
    match control.member(member) {
        Some(info) => format!("{member} ({})", info.place()),
        None => member.to_owned(),
    }
}
