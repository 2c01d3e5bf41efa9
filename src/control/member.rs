//! The process behind the id of a group's member.
//!
//! The brokers list members by an id that they assign. This entry maps it to a host and a process,
//! so that an operator finds the log and the probes of the member that does not answer.

use crate::telemetry::host;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The process behind a member's id. A member writes this entry when the group has assigned its id,
/// and once a day, and deletes it when it stops. A killed member cannot delete it: ask the brokers
/// whether it is still a member.
///
/// ```
/// use evenkeel::control::MemberInfo;
///
/// let mut info = MemberInfo::new("evenkeel-419fe0af", "payments");
/// info.admin = Some("10.0.0.7:9101".to_owned());
/// assert!(info.place().ends_with("admin 10.0.0.7:9101"));
/// assert_eq!(info.key(), "member/evenkeel-419fe0af");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MemberInfo {
    /// The id of the member in its group.
    pub member: String,
    /// The host name of the member. In a container it is that of the container.
    pub host: String,
    /// The process id on this host.
    pub pid: u32,
    /// The release of evenkeel that the member is built with.
    pub version: String,
    /// The member's `client.id`.
    pub client_id: String,
    /// The member's instance id, if its membership is static.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// The address that serves /livez, /readyz and /metrics, as seen from its host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    /// When the member wrote this entry.
    pub at: Timestamp,
}

impl MemberInfo {
    /// The entry of the member with this id in this process: with its host name, its process id and
    /// its release, as of now. Without an instance id and an admin address.
    pub fn new(member: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self {
            member: member.into(),
            host: host(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            client_id: client_id.into(),
            instance_id: None,
            admin: None,
            at: Timestamp::now(),
        }
    }

    /// The key of the entry on the log.
    pub fn key(&self) -> String {
        Self::key_of(&self.member)
    }

    pub(crate) fn key_of(member: &str) -> String {
        format!("{PREFIX}{member}")
    }

    /// Encodes the entry.
    ///
    /// # Errors
    /// Returns an error only if JSON encoding fails, which its types exclude.
    pub fn value(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// A short description of the process: `host vm, pid 25898, admin 127.0.0.1:9101`.
    pub fn place(&self) -> String {
        let place = format!("host {}, pid {}", self.host, self.pid);
        match &self.admin {
            Some(admin) => format!("{place}, admin {admin}"),
            None => place,
        }
    }
}

/// The prefix of the keys of members.
pub(super) const PREFIX: &str = "member/";
