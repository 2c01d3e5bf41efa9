//! The names of callers, and the `source` that follows from a name.

use crate::http::percent_encoded;

/// The place of the caller's name in a template of sources.
const PLACEHOLDER: &str = "{sub}";

/// The bytes that a template of sources may have.
const MAX_TEMPLATE_BYTES: usize = 256;

/// Whether a caller may have this name: 1 to 128 visible ASCII characters. It stands in logs, and
/// in the scope of an `Idempotency-Key`.
pub(super) fn is_caller_name(name: &str) -> bool {
    (1..=128).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether a text can be the `source` of events: a URI reference of at most 256 bytes, as far as
/// its characters show.
pub(super) fn is_source(text: &str) -> bool {
    (1..=MAX_TEMPLATE_BYTES).contains(&text.len()) && text.bytes().all(is_uri_byte)
}

/// Whether a text is a template of sources: it contains `{sub}` once, and is a source with any
/// name in its place.
pub(super) fn is_source_template(template: &str) -> bool {
    template.matches(PLACEHOLDER).count() == 1 && is_source(&template.replace(PLACEHOLDER, "x"))
}

/// The source of a caller. Characters of the name that have a meaning in a URI are
/// percent-encoded, so that two names never have the same source.
pub(super) fn source_of(template: &str, name: &str) -> String {
    template.replace(PLACEHOLDER, &percent_encoded(name))
}

fn is_uri_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !br#""<>\^`{|}"#.contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_visible_ascii() {
        let longest = "n".repeat(128);
        let longer = "n".repeat(129);
        for (name, expected) in [
            ("mobile", true),
            ("auth0|12345", true),
            (&*longest, true),
            (&*longer, false),
            ("", false),
            ("a b", false),
            ("a\nb", false),
            ("zoë", false),
        ] {
            assert_eq!(is_caller_name(name), expected, "{name:?}");
        }
    }

    #[test]
    fn sources_of_different_names_differ() {
        for (name, source) in [
            ("mobile", "/callers/mobile"),
            ("auth0|1", "/callers/auth0%7C1"),
            ("a/b", "/callers/a%2Fb"),
            ("a%2Fb", "/callers/a%252Fb"),
            ("{sub}", "/callers/%7Bsub%7D"),
        ] {
            assert_eq!(source_of("/callers/{sub}", name), source);
            assert!(is_source(source), "{source}");
        }
    }

    #[test]
    fn templates_contain_the_name_once() {
        for (template, expected) in [
            ("/callers/{sub}", true),
            ("https://shop.example/{sub}/app", true),
            ("/callers", false),
            ("/{sub}/{sub}", false),
            ("/call ers/{sub}", false),
            ("/{sub}/{name}", false),
        ] {
            assert_eq!(is_source_template(template), expected, "{template}");
        }
    }
}
