//! Patterns with `*` and `?`. Pure.

/// Whether the pattern matches the whole text. `*` matches any number of bytes and `?` exactly one.
/// Nothing escapes them. Never fails and never backtracks beyond the last star, so that no pattern
/// of an operator can hang the tool: the time is at most the product of both lengths.
///
/// ```
/// use evenkeel_ops::names::wildcard::matches;
///
/// assert!(matches(b"shop.order-*", b"shop.order-placed.v1"));
/// assert!(!matches(b"shop.order", b"shop.order-placed.v1"), "the whole text counts");
/// ```
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while seen < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at, seen));
                at += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[seen] => {
                at += 1;
                seen += 1;
            }
            _ => match retry {
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    at = star + 1;
                    seen = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_pattern_matches_the_whole_text() {
        let check = |pattern: &str, text: &str, expected| {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        };
        check("", "", true);
        check("", "a", false);
        check("abc", "abc", true);
        check("abc", "abcd", false);
        check("*", "", true);
        check("shop.order-*.v1", "shop.order-placed.v1", true);
        check("shop.order-*.v1", "shop.order-placed.v2", false);
        check("*a*b", "xaxbxab", true);
        check("*a*b", "xaxbxabx", false);
        check("o-?", "o-1", true);
        check("o-?", "o-", false);
        check("a**", "a", true);
    }
}
