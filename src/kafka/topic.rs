//! The rules of topic names.

/// Whether brokers accept this name for a topic: 1 to 249 letters, digits, dots, underscores and
/// hyphens, and not only one or two dots.
///
/// Brokers also refuse a name that differs from an existing one in dots and underscores only. This
/// function does not ask them.
///
/// ```
/// use evenkeel::kafka::is_topic_name;
///
/// assert!(is_topic_name("shop.orders"));
/// assert!(!is_topic_name("shop orders"));
/// ```
pub fn is_topic_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=249).contains(&name.len()) && name.bytes().all(allowed) && name != "." && name != ".."
}

#[cfg(test)]
mod tests {
    use super::is_topic_name;

    #[test]
    fn names_are_accepted_as_brokers_accept_them() {
        let longest = "x".repeat(249);
        for good in ["shop.orders", "a", "A_b-1", "...", &longest] {
            assert!(is_topic_name(good), "{good}");
        }
        let longer = "x".repeat(250);
        for bad in ["", ".", "..", "a b", "a/b", "ä", "a\0", &longer] {
            assert!(!is_topic_name(bad), "{bad:?}");
        }
    }
}
