//! Names of topics that Kafka does not tell apart.

/// Whether Kafka treats two names as equal: it allows no two topics that differ in dots and
/// underscores only, because both become underscores in names of metrics.
pub(crate) fn collide_in_kafka(one: &str, other: &str) -> bool {
    let plain = |byte: u8| if byte == b'.' { b'_' } else { byte };
    one.len() == other.len() && one.bytes().map(plain).eq(other.bytes().map(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_in_dots_collide() {
        assert!(collide_in_kafka("retry.my.app.t", "retry.my_app.t"));
        assert!(!collide_in_kafka("retry.my-app.t", "retry.my_app.t"));
        assert!(!collide_in_kafka("a.b", "a.b.c"));
    }
}
