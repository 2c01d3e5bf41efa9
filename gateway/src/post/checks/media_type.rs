//! Media types, as far as posting needs them: the type, and its `charset`.

use std::borrow::Cow;

/// A media type such as `application/json; charset=utf-8`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::post) struct MediaType<'t> {
    /// Type and subtype, in lower case.
    essence: Cow<'t, str>,
    /// The `charset`, in any case.
    charset: Option<&'t str>,
}

impl<'t> MediaType<'t> {
    /// Reads a media type. None if it is not one. Other parameters than `charset` are ignored.
    pub(in crate::post) fn parse(text: &'t str) -> Option<Self> {
        let mut parts = parts(text);
        let essence = parts.next()?.trim();
        let essence = match essence.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(essence.to_ascii_lowercase()),
            false => Cow::Borrowed(essence),
        };
        let (ty, subtype) = essence.split_once('/')?;
        if !is_token(ty) || !is_token(subtype) {
            return None;
        }
        let mut charset = None;
        for parameter in parts {
            let Some((name, value)) = parameter.split_once('=') else {
                // Some clients end the value with a semicolon.
                if parameter.trim().is_empty() {
                    continue;
                }
                return None;
            };
            let value = value.trim();
            let value = match value.strip_prefix('"') {
                Some(rest) => rest.strip_suffix('"')?,
                None => value,
            };
            if name.trim().eq_ignore_ascii_case("charset") {
                charset = Some(value);
            }
        }
        Some(Self { essence, charset })
    }

    /// Type and subtype, in lower case.
    pub(in crate::post) fn essence(&self) -> &str {
        &self.essence
    }

    /// Whether it is JSON that is not an event itself: `application/json`, or any `+json`.
    pub(in crate::post) fn is_json_data(&self) -> bool {
        let is_json = self.essence == "application/json" || self.essence.ends_with("+json");
        is_json && !self.essence.starts_with("application/cloudevents")
    }

    /// Whether the text is UTF-8, as JSON must be.
    pub(in crate::post) fn is_utf8(&self) -> bool {
        let names = ["utf-8", "utf8"];
        let is_named = |charset: &str| names.iter().any(|name| charset.eq_ignore_ascii_case(name));
        self.charset.is_none_or(is_named)
    }
}

/// The parts between semicolons. A quoted value may contain some.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |character| {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = is_quoted,
            '"' => is_quoted = !is_quoted,
            ';' => return !is_quoted,
            _ => {}
        }
        false
    })
}

fn is_token(text: &str) -> bool {
    let is_token_byte =
        |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token_byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_in_utf_8_is_data() {
        for (text, expected) in [
            ("application/json", true),
            ("Application/JSON", true),
            ("application/json;", true),
            ("application/json; charset=utf-8", true),
            ("application/json;charset=\"UTF-8\"", true),
            ("application/json; charset = utf8 ; profile=x", true),
            ("application/vnd.shop.order+json", true),
            ("application/json; profile=\"a;b\"", true),
            ("application/json; profile=\"a\\\";b\"; charset=utf-8", true),
            ("application/json; profile=\"a;b\"; charset=utf-16", false),
            ("application/json; profile=\"a; charset=utf-16", false),
            ("application/json; charset=iso-8859-1", false),
            ("application/json; charset=", false),
            ("application/json; utf-8", false),
            ("application/json, text/plain", false),
            ("application/cloudevents+json", false),
            ("application/cloudevents-batch+json", false),
            ("application/jsonp", false),
            ("text/plain", false),
            ("json", false),
            ("/json", false),
            ("", false),
        ] {
            let read = MediaType::parse(text);
            let is_data = read.is_some_and(|read| read.is_json_data() && read.is_utf8());
            assert_eq!(is_data, expected, "{text:?}");
        }
    }
}
