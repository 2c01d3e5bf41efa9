//! Finds tokens in the query of a URL, where they do not belong: URLs stand in the logs of
//! proxies and in the history of browsers.

/// The parameters that carry a token in other APIs.
const TOKEN_PARAMETERS: [&str; 3] = ["access_token", "token", "api_key"];

/// Whether the query has a parameter for a token, in any case and percent-encoded or not.
pub(super) fn has_token(query: &str) -> bool {
    query.split(['&', ';']).any(|parameter| {
        let name = parameter.split('=').next().unwrap_or_default();
        let name = percent_decoded(name);
        let is_name = |token: &&str| name.eq_ignore_ascii_case(token.as_bytes());
        TOKEN_PARAMETERS.iter().any(is_name)
    })
}

/// Decodes `%41` to `A`. What is no escape stays as it is.
fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match escaped(&bytes[at..]) {
            Some(escaped) => {
                decoded.push(escaped);
                at += 3;
            }
            None => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    decoded
}

/// The byte of the escape that `bytes` begins with.
fn escaped(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else {
        return None;
    };
    let digit = |digit: u8| char::from(digit).to_digit(16);
    u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_in_queries_are_found() {
        for (query, expected) in [
            ("access_token=x", true),
            ("type=a&token=x", true),
            ("api_key", true),
            ("type=a;api_key=x", true),
            ("Access_Token=x", true),
            ("TOKEN=", true),
            ("access%5Ftoken=x", true),
            ("%74%6F%6b%65%6e=x", true),
            ("", false),
            ("type=token", false),
            ("tokens=3", false),
            ("page_token=x", false),
            ("%=x&%7=x&%zz=x", false),
            ("tok%65n%=x", false),
        ] {
            assert_eq!(has_token(query), expected, "{query:?}");
        }
    }
}
