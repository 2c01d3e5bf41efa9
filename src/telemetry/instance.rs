//! The name of this process among those of its service.
//!
//! It tells operators apart which process wrote a dead letter, leased a slot of the outbox or
//! belongs to a group's member.

/// The name that was given to this process, or otherwise its host and process id.
pub(crate) fn instance(name: Option<&str>) -> String {
    name.map_or_else(
        || format!("{}/{}", host(), std::process::id()),
        str::to_owned,
    )
}

/// The host name as Linux reports it, which in a container is that of the container. On other
/// systems it is that of the environment.
pub(crate) fn host() -> String {
    let told = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let told = told.or_else(|| std::env::var("HOSTNAME").ok());
    let name = told.as_deref().map(str::trim).unwrap_or_default();
    if name.is_empty() { "unknown" } else { name }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::instance;

    #[test]
    fn a_name_counts_and_else_a_process_on_a_host() {
        assert_eq!(instance(Some("payments-1")), "payments-1");
        let (host, process) = instance(None)
            .split_once('/')
            .map(|(host, process)| (host.to_owned(), process.parse().ok()))
            .expect("two parts");
        assert!(!host.is_empty());
        assert_eq!(process, Some(std::process::id()));
    }
}
